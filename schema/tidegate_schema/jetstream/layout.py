"""How releases lie in JetStream: one stream per fleet, one subject per host and part.

    stream   tidegate-<fleet>
    subject  tidegate.<fleet>.<kind>.<host>.current          the pointer, at most 256 KiB
             tidegate.<fleet>.<kind>.<host>.part.<sha256>    512 KiB of a file at most, named by its SHA-256 in hex
             tidegate.<fleet>.index.current, .part.<sha256>  the publisher's own index, a file in the same way

The stream keeps one message per subject. The pointer is canonical JSON and names the newest release first, then those
before it that are kept:

    {"format":1,"releases":[{"digest":DIGEST,"files":{NAME:{"parts":[SHA256,…],"size":BYTES},…}},…]}

A part says by its name what it has to be, so nothing is ever overwritten by something else: a release is there when its
pointer is. Nothing here is signed, nor has to be: release.json is, and whoever writes here can only hold releases back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate_schema import jsonfile
from tidegate_schema.bundle import FILE_MAX_BYTES, FILES
from tidegate_schema.names import is_name
from tidegate_schema.release import DIGEST_PATTERN, ENVELOPE_FILE, ENVELOPE_MAX_BYTES

FORMAT = 1
PART_BYTES = 512 * 1024
"""Half of what a NATS server takes in one message by default (max_payload, 1 MiB), as headers count too."""
POINTER_MAX_BYTES = 256 * 1024
KEEP_MAX = 6
"""Releases in a pointer: six gateways' bundles of the greatest size still fit its bound."""
KEYS_FILE = "keys.json"
KEYS_MAX_BYTES = 64 * 1024
PARTS_OF_PUBLISHER = ("STREAM.CREATE", "STREAM.INFO", "STREAM.PURGE", "STREAM.MSG.GET")
"""The requests of the JetStream API that publishing needs, and no others."""


class LayoutError(ValueError):
    """What the stream holds is nothing that `publish` has written; one line, without a byte of it."""


@dataclass(frozen=True)
class Stored:
    """A file: its size in bytes, and the SHA-256 of each part, in order."""

    size: int
    parts: tuple[str, ...]

    @classmethod
    def of(cls, data: bytes) -> Stored:
        """Return how a file with these bytes is stored."""
        return cls(len(data), tuple(sha256(part) for part in cut(data)))

    def part_size(self, number: int) -> int:
        """Return the size of a part, in bytes."""
        return min(PART_BYTES, self.size - number * PART_BYTES)


@dataclass(frozen=True)
class Entry:
    """A release: the digest that names its directory, and its files, release.json among them."""

    digest: str
    files: Mapping[str, Stored]

    def parts(self) -> set[str]:
        """Return the names of all its parts."""
        return {part for file in self.files.values() for part in file.parts}


def sha256(data: bytes) -> str:
    """Return the name of a part with these bytes."""
    return hashlib.sha256(data).hexdigest()


def cut(data: bytes) -> list[bytes]:
    """Return the parts of a file."""
    return [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]


def stream(fleet: str) -> str:
    """Return the name of a fleet's stream."""
    return f"tidegate-{_name(fleet)}"


def of_fleet(fleet: str) -> str:
    """Return the subject that stands for everything in a fleet's stream."""
    return f"tidegate.{_name(fleet)}.>"


def of_host(fleet: str, kind: str, host: str) -> str:
    """Return what all subjects of a host begin with."""
    if kind not in FILES:
        raise ValueError("no kind of host")
    return f"tidegate.{_name(fleet)}.{kind}.{_name(host)}"


def pointer(fleet: str, kind: str, host: str) -> str:
    """Return the subject of a host's pointer."""
    return f"{of_host(fleet, kind, host)}.current"


def part(fleet: str, kind: str, host: str, name: str) -> str:
    """Return the subject of one part."""
    if not DIGEST_PATTERN.fullmatch(name):
        raise ValueError("no name of a part")
    return f"{of_host(fleet, kind, host)}.part.{name}"


def index(fleet: str) -> str:
    """Return what the subjects of the publisher's index begin with."""
    return f"tidegate.{_name(fleet)}.index"


def direct_get(fleet: str, subject: str) -> str:
    """Return the request for the last message of a subject, which any replica answers.

    The subject is part of it (NATS ADR-31), so that a server's permissions can tell whose releases are asked for.
    """
    return f"$JS.API.DIRECT.GET.{stream(fleet)}.{subject}"


def inbox(kind: str, host: str) -> str:
    """Return the prefix of a host's answers, which is its own, as the server's permissions say."""
    return f"_INBOX.{kind}.{_name(host)}"


PUBLISHER_INBOX = "_INBOX.publisher"


def _name(name: str) -> str:
    if not is_name(name):
        raise ValueError("no name")
    return name


def file_limit(name: str) -> int:
    """Return how many bytes a file of a release may have."""
    return {ENVELOPE_FILE: ENVELOPE_MAX_BYTES, KEYS_FILE: KEYS_MAX_BYTES, **FILE_MAX_BYTES}[name]


def pointer_bytes(entries: Sequence[Entry]) -> bytes:
    """Return the pointer that names these releases, newest first."""
    releases = [
        {
            "digest": entry.digest,
            "files": {
                name: {"size": file.size, "parts": list(file.parts)} for name, file in entry.files.items()
            },
        }
        for entry in entries
    ]
    return jsonfile.canonical({"format": FORMAT, "releases": releases})


def read_pointer(kind: str, data: bytes) -> tuple[Entry, ...]:
    """Return the releases that a pointer names, newest first; LayoutError on anything that `publish` never writes.

    After this every size and every number of parts is known and bounded, and every name is one of ours.
    """
    if len(data) > POINTER_MAX_BYTES:
        raise LayoutError(f"the pointer has {len(data)} bytes, at most {POINTER_MAX_BYTES} are read")
    try:
        document = jsonfile.parse(data)
    except jsonfile.JsonError as error:
        raise LayoutError(f"the pointer is no JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT or document["format"] is True:
        raise LayoutError(f"the pointer is of another format than {FORMAT}")
    releases = document.get("releases")
    if set(document) != {"format", "releases"} or not isinstance(releases, list):
        raise LayoutError("the pointer has other members than format and releases")
    if not 1 <= len(releases) <= KEEP_MAX:
        raise LayoutError(f"the pointer names {len(releases)} releases, it may be 1 to {KEEP_MAX}")
    return tuple(_entry(kind, release) for release in releases)


def _entry(kind: str, release: Any) -> Entry:
    if not isinstance(release, dict) or set(release) != {"digest", "files"}:
        raise LayoutError("a release has other members than digest and files")
    digest, files = release["digest"], release["files"]
    if not isinstance(digest, str) or not DIGEST_PATTERN.fullmatch(digest):
        raise LayoutError("a release's digest is none")
    required, allowed = FILES[kind]
    names = set(files) if isinstance(files, dict) else set()
    if not required | {ENVELOPE_FILE} <= names <= allowed | {ENVELOPE_FILE, KEYS_FILE}:
        raise LayoutError(f"a release does not consist of the files of a {kind}")
    return Entry(digest, {name: read_stored(name, files[name], file_limit(name)) for name in sorted(names)})


def read_stored(name: str, file: Any, limit: int) -> Stored:
    """Return how a file of at most `limit` bytes is stored, from its JSON; LayoutError names what is wrong."""
    if not isinstance(file, dict) or set(file) != {"size", "parts"}:
        raise LayoutError(f"{name}: other members than size and parts")
    size, parts = file["size"], file["parts"]
    if type(size) is not int or not 0 <= size <= limit:
        raise LayoutError(f"{name}: its size is none, or more than {limit} bytes")
    if not isinstance(parts, list) or len(parts) != -(-size // PART_BYTES):
        raise LayoutError(f"{name}: not as many parts as a file of {size} bytes has")
    if not all(isinstance(part, str) and DIGEST_PATTERN.fullmatch(part) for part in parts):
        raise LayoutError(f"{name}: a part's name is no SHA-256")
    return Stored(size, tuple(parts))
