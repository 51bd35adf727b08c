"""Names for policies and groups that have to be made: from what they say, and never one that is taken. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from tidegate_compiler.model import ALL_CLIENTS

_LONGEST = 63
_NUMBER_ROOM = 6
_NOT_NAME = re.compile(r"[^a-z0-9]+")


class Naming:
    """Gives each name once."""

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = set(taken)

    def policy(self, sources: Sequence[str], to: Sequence[str], ports: Sequence[str] | None) -> str:
        """Return `engineers-to-prod-db`, or with the ports behind it where that is taken."""
        who = _word(sources[0]) + (f"-and-{len(sources) - 1}" if len(sources) > 1 else "")
        what = _word(to[0]) + (f"-and-{len(to) - 1}" if len(to) > 1 else "")
        short = f"{who}-to-{what}"
        return self._give(
            short if ports is None or _cut(short) not in self._taken else f"{short}-{_plain(ports[0])}"
        )

    def group(self, target: str) -> str:
        """Return `prod-db-users`."""
        return self._give(f"{_word(target)}-users")

    def _give(self, text: str) -> str:
        name, number = _cut(text), 2
        while name in self._taken:
            name = f"{_cut(text)[: _LONGEST - _NUMBER_ROOM].rstrip('-')}-{number}"
            number += 1
        self._taken.add(name)
        return name


def _word(selector: str) -> str:
    if selector == ALL_CLIENTS:
        return "all"
    kind, _, name = selector.partition(":")
    if kind in ("group", "client", "resource") and name and ":" not in name:
        return name
    return _plain(re.sub(r"/(32|128)\Z", "", selector))


def _plain(text: str) -> str:
    return _NOT_NAME.sub("-", text.lower()).strip("-") or "any"


def _cut(text: str) -> str:
    return text[:_LONGEST].strip("-")
