"""New objects as a pack, given to git in one go: blobs, trees and a commit cost one process together.

    "PACK" version=2 count   then for each object   type and size, deflated bytes   then the hash of all of it

gitformat-pack(5). `git unpack-objects --strict` looks at every object as fsck does, and at whether all that it refers
to is there, before it writes any.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

from tidegate_control.git.process import run

_TYPES = {"commit": 1, "tree": 2, "blob": 3}
_HASHES = {40: "sha1", 64: "sha256"}


class Pack:
    """Objects to be written; `like` is any ID of the repository, which tells its hash by its length."""

    def __init__(self, like: str) -> None:
        self._hash = _HASHES[len(like)]
        self._objects: dict[str, tuple[str, bytes]] = {}

    def add(self, kind: str, data: bytes) -> str:
        """Take an object in; return its ID."""
        sha = hashlib.new(
            self._hash, f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False
        ).hexdigest()
        self._objects[sha] = (kind, data)
        return sha

    def write(self, directory: Path) -> None:
        """Have git write them all. GitError."""
        parts = [b"PACK", struct.pack(">II", 2, len(self._objects))]
        for kind, data in self._objects.values():
            parts += [_head(_TYPES[kind], len(data)), zlib.compress(data, 1)]
        body = b"".join(parts)
        trailer = hashlib.new(self._hash, body, usedforsecurity=False).digest()
        run(directory, "unpack-objects", "-q", "--strict", given=body + trailer)


def _head(kind: int, size: int) -> bytes:
    """Return type and size: three bits and four in the first byte, seven in each further one, the lowest first."""
    byte, size = kind << 4 | size & 15, size >> 4
    found = bytearray()
    while size:
        found.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    found.append(byte)
    return bytes(found)
