"""Who sends a request, and what that one may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

READER, EDITOR, PUBLISHER, GATEWAY_INTAKE = "reader", "editor", "publisher", "gateway-intake"
SCOPES = (READER, EDITOR, PUBLISHER, GATEWAY_INTAKE)
_IMPLIED = {EDITOR: (READER,), PUBLISHER: (READER,)}


@dataclass(frozen=True)
class Caller:
    """The holder of a token, with every scope that it has, the implied ones too.

    `gateway` is the one gateway whose events it may bring: with the scope gateway-intake, which stands alone.
    """

    name: str
    email: str
    scopes: frozenset[str]
    gateway: str | None = None


def closure(scopes: Iterable[str]) -> frozenset[str]:
    """Return scopes with those that they imply."""
    given = frozenset(scopes)
    return given.union(*(_IMPLIED.get(scope, ()) for scope in given))
