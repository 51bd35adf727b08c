"""Signing keys and signed envelopes: ed25519 keys, and DSSE (https://github.com/secure-systems-lab/dsse).

An envelope is made and checked by securesystemslib. Only the bytes that `canonical` writes are read: base64 has spare
bits and spellings, and an envelope room for more members, so that a changed byte would otherwise go unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from tidegate_schema import jsonfile

_NO_ENVELOPE = (SecureSystemsError, ValueError, KeyError, TypeError, AttributeError)


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
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(
            "not an unencrypted ed25519 private key in PEM; make one with 'tidegate keys init'"
        ) from None


def _only_ed25519(signer: CryptoSigner) -> CryptoSigner:
    if signer.public_key.keytype != "ed25519":
        raise ValueError("not ed25519")
    return signer


def load_public_key(public_pem: bytes) -> Key:
    """Read an ed25519 public key in PEM; ValueError with one line when it is none.

    Its `keyid` is the SHA-256 of the key and its scheme, in hex, whatever the PEM looked like.
    """
    try:
        key = SSlibKey.from_crypto(load_pem_public_key(public_pem))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if key is None or key.keytype != "ed25519":
        raise ValueError("not an ed25519 public key in PEM; 'tidegate keys init' writes one")
    return key


def public_pem(data: bytes) -> str:
    """Return an ed25519 public key, in PEM or as OpenSSH writes it, as the one PEM that is written for it.

    Raises ValueError, one line.
    """
    load = load_ssh_public_key if data.startswith(b"ssh-") else load_pem_public_key
    try:
        key = load(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an ed25519 public key, in PEM or as ssh-keygen writes it (ssh-ed25519 …)")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def seal(payload: bytes, payload_type: str, signers: Iterable[Signer]) -> Envelope:
    """Return an envelope that every signer has signed."""
    envelope = Envelope(payload, payload_type, {})
    for signer in signers:
        envelope.sign(signer)
    return envelope


def canonical(envelope: Envelope) -> bytes:
    """Return the one byte string of an envelope."""
    return jsonfile.canonical(envelope.to_dict())


def parse(data: bytes) -> Envelope | None:
    """Read the bytes that `canonical` writes; None when they are others. No signature is checked."""
    try:
        envelope = _envelope(jsonfile.parse(data))
        return envelope if canonical(envelope) == data else None
    except _NO_ENVELOPE:
        return None


def parse_all(data: bytes) -> list[Envelope] | None:
    """Read the canonical bytes of a list of envelopes; None when they are others. No signature is checked."""
    try:
        envelopes = [_envelope(document) for document in jsonfile.parse(data)]
        exact = jsonfile.canonical([envelope.to_dict() for envelope in envelopes]) == data
    except _NO_ENVELOPE:
        return None
    return envelopes if exact else None


def _envelope(document: Any) -> Envelope:
    envelope = Envelope.from_dict(document)
    if not isinstance(envelope.payload_type, str):
        raise ValueError("a type that is no text")
    return envelope


def signed_by(envelope: Envelope, keys: Sequence[Key]) -> frozenset[str]:
    """Return the key IDs of those keys that have signed an envelope; a key counts once, however often it is there."""
    return frozenset(key.keyid for key in keys if key.keyid in envelope.signatures and _holds(envelope, key))


def _holds(envelope: Envelope, key: Key) -> bool:
    try:
        envelope.verify([key], 1)
    except (SecureSystemsError, ValueError):
        return False
    return True
