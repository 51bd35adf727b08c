"""A release: one published version of one host's bundle, signed.

    BUNDLES/<kind>/<host>/current -> releases/<digest>
    BUNDLES/<kind>/<host>/releases/<digest>/release.json    the envelope below
                                            wg0.conf        kind client
                                            peers.json      kind gateway
                                            policy.json     kind gateway, optional

`release.json` is a DSSE envelope (https://github.com/secure-systems-lab/dsse), made and checked by
securesystemslib, whose payload is the canonical JSON of `Release.payload()`. `<digest>` covers the payload
files only (`files_digest`), so publishing the same files again names the same directory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from tidegate_schema import jsonfile, validation

FORMAT = 1
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

    def payload(self) -> bytes:
        """Return the canonical bytes that are signed."""
        return jsonfile.canonical(
            {
                "format": FORMAT,
                "fleet": self.fleet,
                "kind": self.kind,
                "host": self.host,
                "serial": self.serial,
                "not_after": self.not_after,
                "source": self.source,
                "files": {name: {"sha256": f.sha256, "size": f.size} for name, f in self.files.items()},
            }
        )


def files_digest(files: Mapping[str, FileEntry]) -> str:
    """Return the release's directory name: SHA-256 over the canonical list of files."""
    listing = {name: [entry.sha256, entry.size] for name, entry in files.items()}
    return hashlib.sha256(jsonfile.canonical(listing)).hexdigest()


def generate_key() -> tuple[bytes, bytes]:
    """Make an ed25519 signing key: (private PEM, PKCS #8; public PEM, SubjectPublicKeyInfo)."""
    private = Ed25519PrivateKey.generate()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def load_signer(private_pem: bytes) -> CryptoSigner:
    """Read an ed25519 private key in PEM; ValueError with one line when it is none."""
    try:
        return _only_ed25519(CryptoSigner(load_pem_private_key(private_pem, password=None)))
    except (ValueError, TypeError):
        raise ValueError(
            "not an unencrypted ed25519 private key in PEM; make one with 'tidegate keys init'"
        ) from None


def _only_ed25519(signer: CryptoSigner) -> CryptoSigner:
    if signer.public_key.keytype != "ed25519":
        raise ValueError("not ed25519")
    return signer


def load_public_key(public_pem: bytes) -> Key:
    """Read an ed25519 public key in PEM; ValueError with one line when it is none."""
    try:
        key = SSlibKey.from_crypto(load_pem_public_key(public_pem))
    except ValueError:
        key = None
    if key is None or key.keytype != "ed25519":
        raise ValueError("not an ed25519 public key in PEM; 'tidegate keys init' writes one")
    return key


def sign(release: Release, signer: CryptoSigner) -> bytes:
    """Return the bytes of release.json, signed by one key."""
    envelope = Envelope(release.payload(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return jsonfile.canonical(envelope.to_dict())


def open_envelope(data: bytes, trusted: Sequence[Key]) -> Release:
    """Return the statement of an envelope that a trusted key signed; ReleaseError names why it is refused.

    Order matters: nothing of the payload is read before its signature holds.
    """
    try:
        envelope = Envelope.from_dict(jsonfile.parse(data))
        # Base64 has spare bits and spellings, and an envelope room for more members: only the bytes that `sign`
        # writes are read, so that no changed byte goes unnoticed.
        canonical = jsonfile.canonical(envelope.to_dict()) == data
    except (SecureSystemsError, ValueError, KeyError, TypeError, AttributeError):
        canonical = False
    if not canonical:
        raise ReleaseError("malformed-envelope", "release.json is not a canonical DSSE envelope")
    if not envelope.signatures:
        raise ReleaseError("unsigned", "release.json carries no signature")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ReleaseError("wrong-type", "the envelope is of another type than a Tidegate release")
    try:
        envelope.verify(list(trusted), 1)
    except (SecureSystemsError, ValueError):
        raise ReleaseError("wrong-key", "no trusted key has signed this release") from None
    return _read_payload(envelope.payload)


def _read_payload(payload: bytes) -> Release:
    try:
        document: Any = jsonfile.parse(payload)
    except jsonfile.JsonError as error:
        raise ReleaseError("malformed-payload", str(error)) from None
    if isinstance(document, dict) and document.get("format") != FORMAT:
        raise ReleaseError(
            "unknown-format", f"format {json.dumps(document.get('format'))}, this host reads {FORMAT}"
        )
    problems = validation.errors("release", document)
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
    )
