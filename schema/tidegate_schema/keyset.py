"""Key sets: whose signatures count, and how one set hands over to the next.

    keys.json    [envelope of version n, envelope of version n + 1, …]    canonical JSON, at most 64 KiB

Each envelope is DSSE (tidegate_schema.signatures), its payload the canonical JSON of `KeySet.payload()`. The list is
the **chain**; its versions follow each other without a gap. The rule is that of The Update Framework for its root role
(https://theupdateframework.github.io/specification/latest/, 5.3): version n + 1 counts only when the threshold of set n
**and** the threshold of set n + 1 have signed it. A host goes on from the set it trusts, so the oldest sets may be left
out of the file when it would grow past its bound; a host that is older than its first one must be set up anew.

A set without a version, 0, is what a host has that was given public keys alone: any one of them may sign.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Key, Signer

from tidegate_schema import jsonfile, validation
from tidegate_schema.signatures import load_public_key, parse_all, seal, signed_by

FORMAT = 1
PAYLOAD_TYPE = "application/vnd.tidegate.keys+json"
KEYS_FILE = "keys.json"
KEYS_MAX_BYTES = 64 * 1024


class KeySetError(ValueError):
    """A key set or a chain that does not count; the message is one line."""


@dataclass(frozen=True)
class KeySet:
    """The signing keys of a fleet (PEM, SubjectPublicKeyInfo), and how many of them must sign."""

    fleet: str
    version: int
    threshold: int
    keys: tuple[str, ...]

    @cached_property
    def trusted(self) -> tuple[Key, ...]:
        """The keys, read."""
        return tuple(load_public_key(pem.encode()) for pem in self.keys)

    def payload(self) -> bytes:
        """Return the canonical bytes that are signed."""
        document = {
            "format": FORMAT,
            "fleet": self.fleet,
            "version": self.version,
            "threshold": self.threshold,
            "keys": list(self.keys),
        }
        return jsonfile.canonical(document)


@dataclass(frozen=True)
class Link:
    """One set of a chain, and the envelope that it came in."""

    key_set: KeySet
    envelope: Envelope


def read_set(payload: bytes) -> KeySet:
    """Read a set whose payload this is; KeySetError when it is none, or could never be signed by enough keys."""
    try:
        document: Any = jsonfile.parse(payload)
    except jsonfile.JsonError as error:
        raise KeySetError(f"a key set is not JSON: {error}") from None
    for problem in validation.errors("keys", document):
        where = ".".join(map(str, problem.path)) or "the key set"
        raise KeySetError(f"{where}: {problem.message[:200]}")
    found = KeySet(document["fleet"], document["version"], document["threshold"], tuple(document["keys"]))
    if found.payload() != payload:
        raise KeySetError("a key set is not canonical JSON")
    return _possible(found)


def checked(key_set: KeySet) -> KeySet:
    """Return a set that can sign; KeySetError when a key is none, stands twice, or the threshold cannot be met."""
    for problem in validation.errors("keys", jsonfile.parse(key_set.payload())):
        raise KeySetError(f"{'.'.join(map(str, problem.path))}: {problem.message[:200]}")
    return _possible(key_set)


def _possible(key_set: KeySet) -> KeySet:
    try:
        distinct = {key.keyid for key in key_set.trusted}
    except ValueError as error:
        raise KeySetError(f"a key of the set is {error}") from None
    if len(distinct) != len(key_set.keys):
        raise KeySetError("a key stands twice in the set")
    if key_set.threshold > len(distinct):
        raise KeySetError(f"{key_set.threshold} must sign and there are only {len(distinct)} keys")
    return key_set


def sign(key_set: KeySet, signers: Iterable[Signer]) -> Link:
    """Return the set signed by these; whether they are enough is `missing`'s to say."""
    return Link(checked(key_set), seal(key_set.payload(), PAYLOAD_TYPE, signers))


def missing(link: Link, before: KeySet | None) -> str | None:
    """Return what a set lacks of the signatures that it needs, one line, or None; `before` is the set it follows."""
    return _missing(link, before, _signers(link, before))


def _signers(link: Link, before: KeySet | None) -> frozenset[str]:
    """Return the key IDs, of this set or the one before it, that have signed a set."""
    known = {key.keyid: key for of in (before, link.key_set) if of is not None for key in of.trusted}
    return signed_by(link.envelope, list(known.values()))


def _missing(link: Link, before: KeySet | None, signers: frozenset[str]) -> str | None:
    for of in (link.key_set,) if before is None else (before, link.key_set):
        have = len(signers & {key.keyid for key in of.trusted})
        if have < of.threshold:
            return (
                f"version {link.key_set.version} of the key set has {have} of the {of.threshold} signatures "
                f"that it needs by keys of version {of.version}"
            )
    return None


def read(data: bytes) -> tuple[Link, ...]:
    """Read a keys.json whose every set follows from the one before it; KeySetError when one does not.

    The first one vouches for itself alone. Whoever trusts none of the sets has learned nothing: `advance` says what
    they are worth to a host.
    """
    links = read_unsigned(data)
    for before, link in zip((None, *links), links, strict=False):
        _check(link, before.key_set if before is not None else None)
    return links


def read_unsigned(data: bytes) -> tuple[Link, ...]:
    """Read the form of a chain, and check no signature: for a set that still waits for some."""
    if len(data) > KEYS_MAX_BYTES:
        raise KeySetError(f"{len(data)} bytes, at most {KEYS_MAX_BYTES} are read")
    envelopes = parse_all(data)
    if not envelopes:
        raise KeySetError("not a list of DSSE envelopes in canonical JSON")
    if any(envelope.payload_type != PAYLOAD_TYPE for envelope in envelopes):
        raise KeySetError("an envelope is of another type than a Tidegate key set")
    return tuple(Link(read_set(envelope.payload), envelope) for envelope in envelopes)


def _check(link: Link, before: KeySet | None) -> None:
    """Refuse a set that does not follow from `before`; None when it is the first that is known."""
    if before is not None and link.key_set.fleet != before.fleet:
        raise KeySetError(f"the key set is for fleet {link.key_set.fleet}, not {before.fleet}")
    if before is not None and link.key_set.version != before.version + 1:
        raise KeySetError(f"version {link.key_set.version} of the key set follows version {before.version}")
    signers = _signers(link, before)
    lacking = _missing(link, before, signers)
    if lacking is not None:
        raise KeySetError(lacking)
    # A signature that nobody looks at could be anything. That of the first set's forerunner cannot be judged here.
    if (before is not None or link.key_set.version == 1) and len(signers) != len(link.envelope.signatures):
        raise KeySetError(f"version {link.key_set.version} of the key set carries a signature that is wrong")


def advance(ours: KeySet, chain: Sequence[Link]) -> KeySet:
    """Return the newest set of a chain (by `read`) that goes on from the set that a host trusts; else KeySetError."""
    first, newest = chain[0].key_set, chain[-1].key_set
    if newest.fleet != ours.fleet:
        raise KeySetError(f"the key sets are for fleet {newest.fleet}, this is {ours.fleet}")
    if newest.version < ours.version:
        raise KeySetError(f"they end with version {newest.version}, this host has {ours.version} already")
    if first.version > ours.version + 1:
        raise KeySetError(
            f"they begin with version {first.version}, this host has {ours.version or 'a public key alone'}; "
            "set the host up anew with this keys.json"
        )
    if first.version == ours.version + 1:
        _check(chain[0], ours)
    elif chain[ours.version - first.version].key_set.payload() != ours.payload():
        raise KeySetError(f"their version {ours.version} is not the set that this host trusts")
    return newest


def write(links: Sequence[Link]) -> bytes:
    """Return the bytes of keys.json, the oldest sets left out where it would be too large."""
    for start in range(len(links)):
        data = jsonfile.canonical([link.envelope.to_dict() for link in links[start:]])
        if len(data) <= KEYS_MAX_BYTES:
            return data
    raise KeySetError(f"one key set alone is larger than {KEYS_MAX_BYTES} bytes")
