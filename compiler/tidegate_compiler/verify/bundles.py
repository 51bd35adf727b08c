"""A compile output as it stands on the disk, and what its files say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate_compiler.verify import words
from tidegate_compiler.verify.space import EVER, Claim, Right, Span
from tidegate_compiler.verify.words import Net, RefusalError
from tidegate_schema import jsonfile, validation

_MAX_BYTES = 64 << 20
Claims = Mapping[int, tuple[Claim, ...]]  # by address family


@dataclass(frozen=True)
class Peer:
    """One entry of peers.json."""

    client_id: str
    key: bytes
    addresses: frozenset[Net]


@dataclass(frozen=True)
class Rule:
    """One rule of policy.json, by its policy's name."""

    policy: str
    deny: bool
    claims: Claims


@dataclass(frozen=True)
class Policy:
    """A policy.json: rules, sets of them by index, and the set of each client ID."""

    rules: tuple[Rule, ...]
    sets: tuple[tuple[int, ...], ...]
    clients: Mapping[str, int]


def read(out: Path) -> dict[str, bytes | None]:
    """Return every file by its path relative to the output; None for what is no regular file of sane size.

    Empty directories end in "/". Only a `.git` at the top is passed over. Raises OSError on trouble.
    """
    found: dict[str, bytes | None] = {}
    for folder, folders, names in os.walk(out, onerror=_raise):
        here = Path(folder)
        if here == out and ".git" in folders:
            folders.remove(".git")
        for name in (*names, *(child for child in folders if (here / child).is_symlink())):
            found[str((here / name).relative_to(out))] = _bytes(here / name)
        if not names and not folders and here != out:
            found[f"{here.relative_to(out)}/"] = None
    return found


def _raise(error: OSError) -> None:
    raise error


def _bytes(path: Path) -> bytes | None:
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    return data if len(data) <= _MAX_BYTES else None


def document(data: bytes, schema: str | None = None) -> Any:
    """Return a JSON file's value, which its schema accepts. Raises RefusalError."""
    try:
        found = jsonfile.parse(data)
    except ValueError as error:
        raise RefusalError(f"not JSON: {error}") from None
    for problem in validation.errors(schema, found) if schema else ():
        raise RefusalError(f"{'/'.join(map(str, problem.path))[:80]!a} breaks the schema ({problem.keyword})")
    return found


def peers(data: bytes) -> tuple[Peer, ...]:
    """Read a peers.json. Raises RefusalError."""
    return tuple(
        Peer(item["client_id"], words.key(item["public_key"]), frozenset(map(words.net, item["allowed_ips"])))
        for item in document(data, "peers")["peers"]
    )


def policy(data: bytes) -> Policy:
    """Read a policy.json. Raises RefusalError, also when an index in it leads nowhere."""
    found = document(data, "policy")
    rules = tuple(map(_rule, found["rules"]))
    if any(index >= len(rules) for indexes in found["sets"] for index in indexes):
        raise RefusalError("a set names a rule that is not there")
    if any(number >= len(found["sets"]) for number in found["clients"].values()):
        raise RefusalError("a client has a set that is not there")
    return Policy(rules, tuple(tuple(sorted(indexes)) for indexes in found["sets"]), found["clients"])


def _rule(item: Mapping[str, Any]) -> Rule:
    deny = item["action"] == "deny"
    time = Span(item.get("not_before", EVER.low), item.get("expires", EVER.high))
    prefixes = [words.net(text) for text in item["to"]]
    claims = {}
    for family in (4, 6):
        services = tuple(sorted(words.service(text, family) for text in item["ports"]))
        claims[family] = tuple(
            Claim(words.span(prefix), Right(deny, services, time))
            for prefix in prefixes
            if prefix.version == family
        )
    return Rule(item["policy"], deny, claims)
