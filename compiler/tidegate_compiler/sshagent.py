"""Signing keys that an ssh-agent keeps: the private key stays with it, and it signs what it is given.

An agent's ed25519 signature is a plain one over the bytes, so the envelope it goes into is like any other. Keys in
hardware (sk-ssh-ed25519) sign something else, and certificates are no keys: both are passed over.
"""

from __future__ import annotations

import asyncio
import base64
import os

import asyncssh
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.signer import Key, SecretsHandler, Signature, Signer, SSlibKey

from tidegate_compiler.diagnostics import show
from tidegate_compiler.keysource import blob_fingerprint
from tidegate_schema.cli import Failure

_TYPE = b"ssh-ed25519"
_SIGNATURE_HEAD = b"\0\0\0\x0b" + _TYPE + b"\0\0\0\x40"  # RFC 8709, section 6: the type, then 64 bytes


class AgentSigner(Signer):
    """One ed25519 key of an ssh-agent."""

    def __init__(self, socket: str, blob: bytes) -> None:
        """Take the agent's socket, and the public key as SSH writes it."""
        self._socket = socket
        self._blob = blob
        self._key = SSlibKey.from_crypto(load_ssh_public_key(_TYPE + b" " + base64.b64encode(blob)))

    @property
    def public_key(self) -> Key:
        """The public half."""
        return self._key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Signer:
        """Not used: `load` finds a key."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        """Have the agent sign; Failure, one line, when it will not, or what it gives is not this key's signature."""
        try:
            answer = asyncio.run(self._ask(payload))
        except (OSError, ValueError) as error:
            raise Failure(
                f"the ssh-agent does not sign ({error}); is the key still there (ssh-add -l)?"
            ) from None
        signature = Signature(self._key.keyid, answer.removeprefix(_SIGNATURE_HEAD).hex())
        try:
            self._key.verify_signature(signature, payload)
        except SecureSystemsError:
            raise Failure("the ssh-agent gave a signature that is not this key's") from None
        return signature

    async def _ask(self, payload: bytes) -> bytes:
        agent = await asyncssh.connect_agent(self._socket)
        try:
            return await agent.sign(self._blob, payload)
        finally:
            agent.close()
            await agent.wait_closed()


def load(name: str) -> Signer:
    """Return the key that a fingerprint (SHA256:…) or a comment names; Failure, one line, when none or several are."""
    socket = os.environ.get("SSH_AUTH_SOCK", "")
    if not socket:
        raise Failure("no ssh-agent here: SSH_AUTH_SOCK is not set; start one, and ssh-add the key")
    try:
        held = asyncio.run(_keys(socket))
    except (OSError, ValueError) as error:
        raise Failure(f"the ssh-agent at SSH_AUTH_SOCK does not answer: {error}") from None
    usable = {blob: comment for blob, comment, algorithm in held if algorithm == _TYPE}
    found = [blob for blob, comment in usable.items() if name in (blob_fingerprint(blob), comment)]
    if len(found) > 1:
        raise Failure(f"agent:{show(name)} names {len(found)} keys; name one by its fingerprint (ssh-add -l)")
    if not found:
        there = ", ".join(f"agent:{blob_fingerprint(blob)}" for blob in usable) or "none"
        raise Failure(f"agent:{show(name)}: no such ed25519 key in the ssh-agent; there: {there}")
    try:
        return AgentSigner(socket, found[0])
    except (ValueError, UnsupportedAlgorithm):
        raise Failure(f"agent:{show(name)}: the ssh-agent holds something that is no ed25519 key") from None


async def _keys(socket: str) -> list[tuple[bytes, str, bytes]]:
    """Return every key of an agent: the public key as SSH writes it, comment, type."""
    agent = await asyncssh.connect_agent(socket)
    try:
        held = await agent.get_keys()
    finally:
        agent.close()
        await agent.wait_closed()
    return [(key.public_data, key.get_comment(errors="replace") or "", key.algorithm) for key in held]
