"""Where a signing key is: in a file, or in an ssh-agent (`agent:FINGERPRINT`, `agent:COMMENT`).

agent:SHA256:i4k…                 as `ssh-add -l` shows it
agent:me@example.net              the comment, when no other key of the agent has it
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from securesystemslib.signer import Signer

from tidegate_schema import signatures
from tidegate_schema.cli import Failure
from tidegate_schema.extras import advice

KEY_MAX_BYTES = 1 << 16
_AGENT = "agent:"


def is_agent(key: str) -> bool:
    """Tell whether a --key names a key of an ssh-agent."""
    return key.startswith(_AGENT)


def load(key: str) -> Signer:
    """Return the signer that a --key names; Failure, one line, when there is none; OSError."""
    if is_agent(key):
        try:
            from tidegate_compiler import sshagent  # asyncssh takes a third of a second to import
        except ModuleNotFoundError as error:
            if error.name != "asyncssh":
                raise
            raise Failure(
                f"{key}: an ssh-agent needs the module {error.name!r}; {advice('publish')}"
            ) from None
        return sshagent.load(key.removeprefix(_AGENT))
    path = Path(key)
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        pem = file.read(KEY_MAX_BYTES)
    try:
        signer = signatures.load_signer(pem)
    except ValueError as error:
        raise Failure(f"{path}: {error}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise Failure(f"{path}: others may read the private key; chmod 600 it, and consider a new one")
    return signer


def fingerprint(public_pem: str) -> str:
    """Return a public key's fingerprint as OpenSSH shows it: SHA256: and the digest in base64, without padding."""
    key = load_pem_public_key(public_pem.encode())
    assert isinstance(key, Ed25519PublicKey)
    return blob_fingerprint(
        base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
    )


def blob_fingerprint(blob: bytes) -> str:
    """Return the fingerprint of a public key as SSH writes it (RFC 4253, section 6.6)."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
