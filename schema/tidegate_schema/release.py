"""A release: one published version of one host's bundle, signed.

    BUNDLES/<kind>/<host>/current -> releases/<digest>
    BUNDLES/<kind>/<host>/releases/<digest>/release.json    the envelope below
                                            wg0.conf        kind client
                                            peers.json      kind gateway
                                            policy.json     kind gateway, optional
                                            keys.json       the key sets (tidegate_schema.keyset), optional

`release.json` is an envelope (tidegate_schema.signatures) whose payload is the canonical JSON of `Release.payload()`.
`<digest>` covers the payload files only (`files_digest`), so publishing the same files again names the same directory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from securesystemslib.signer import Key, Signer

from tidegate_schema import jsonfile, validation
from tidegate_schema.signatures import (
    canonical,
    generate_key,
    load_public_key,
    load_signer,
    parse,
    seal,
    signed_by,
)

__all__ = [
    "DIGEST_PATTERN",
    "ENVELOPE_FILE",
    "ENVELOPE_MAX_BYTES",
    "FORMAT",
    "FORMATS",
    "PAYLOAD_TYPE",
    "FileEntry",
    "Release",
    "ReleaseError",
    "files_digest",
    "generate_key",
    "load_public_key",
    "load_signer",
    "open_envelope",
    "sign",
]

FORMAT = 2
FORMATS = (1, 2)
"""What is read: this version's format and the one before it, which has no `key_set`."""
PAYLOAD_TYPE = "application/vnd.tidegate.release+json"
ENVELOPE_FILE = "release.json"
ENVELOPE_MAX_BYTES = 64 * 1024
DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")


class ReleaseError(ValueError):
    """A release that is refused. `name` is the stable name of the refusal; the message is one line."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


@dataclass(frozen=True)
class FileEntry:
    """What the envelope promises of one payload file: SHA-256 in hex, size in bytes."""

    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> FileEntry:
        """Return the entry of a file with these bytes."""
        return cls(hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True)
class Release:
    """The signed statement: these files are this host's release `serial`, until `not_after` (Unix s)."""

    fleet: str
    kind: str
    host: str
    serial: int
    not_after: int
    source: str
    files: Mapping[str, FileEntry]
    key_set: int = 0
    """Version of the newest key set when it was signed, which a host must have to take it; 0 for none."""
    format: int = FORMAT

    def payload(self) -> bytes:
        """Return the canonical bytes that are signed."""
        document: dict[str, Any] = {
            "format": self.format,
            "fleet": self.fleet,
            "kind": self.kind,
            "host": self.host,
            "serial": self.serial,
            "not_after": self.not_after,
            "source": self.source,
            "files": {name: {"sha256": f.sha256, "size": f.size} for name, f in self.files.items()},
        }
        if self.format != 1:
            document["key_set"] = self.key_set
        return jsonfile.canonical(document)


def files_digest(files: Mapping[str, FileEntry]) -> str:
    """Return the release's directory name: SHA-256 over the canonical list of files."""
    listing = {name: [entry.sha256, entry.size] for name, entry in files.items()}
    return hashlib.sha256(jsonfile.canonical(listing)).hexdigest()


def sign(release: Release, signers: Signer | Sequence[Signer]) -> bytes:
    """Return the bytes of release.json, signed by one signer or by several."""
    every = [signers] if isinstance(signers, Signer) else signers
    return canonical(seal(release.payload(), PAYLOAD_TYPE, every))


def open_envelope(data: bytes, trusted: Sequence[Key], threshold: int = 1) -> Release:
    """Return the statement of an envelope that `threshold` of the trusted keys signed.

    ReleaseError names why it is refused. Order matters: nothing of the payload is read before its signatures hold.
    """
    envelope = parse(data)
    if envelope is None:
        raise ReleaseError("malformed-envelope", "release.json is not a canonical DSSE envelope")
    if not envelope.signatures:
        raise ReleaseError("unsigned", "release.json carries no signature")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ReleaseError("wrong-type", "the envelope is of another type than a Tidegate release")
    valid = len(signed_by(envelope, trusted))
    if not valid:
        raise ReleaseError("wrong-key", "no trusted key has signed this release")
    if valid < max(threshold, 1):
        raise ReleaseError(
            "too-few-signatures", f"{valid} of {len(trusted)} trusted keys signed, {threshold} must"
        )
    return _read_payload(envelope.payload)


def _read_payload(payload: bytes) -> Release:
    fractions: list[str] = []
    try:
        document: Any = jsonfile.parse(payload, fractions)
    except jsonfile.JsonError as error:
        raise ReleaseError("malformed-payload", str(error)) from None
    if isinstance(document, dict) and document.get("format") not in FORMATS:
        shown = json.dumps(document.get("format"))[:40]
        raise ReleaseError(
            "unknown-format", f"format {shown}, this host reads {' and '.join(map(str, FORMATS))}"
        )
    problems = validation.problems("release", document, fractions)
    if problems:
        raise ReleaseError("malformed-payload", problems[0].message[:200])
    return Release(
        document["fleet"],
        document["kind"],
        document["host"],
        document["serial"],
        document["not_after"],
        document["source"],
        {name: FileEntry(entry["sha256"], entry["size"]) for name, entry in document["files"].items()},
        document.get("key_set", 0),
        document["format"],
    )
