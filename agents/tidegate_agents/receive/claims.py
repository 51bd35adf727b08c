"""What a release.json claims, whoever signed it: enough to tell whether the files that came with it are all there.

No signature is looked at, and the format's number neither: whether a release is authentic, and can be read, is for the
agent to decide, which may be of another version than the receiver.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate_schema import jsonfile
from tidegate_schema.release import FileEntry, files_digest

_FIELDS = ("fleet", "kind", "host", "serial", "not_after")


class ClaimsError(ValueError):
    """An envelope that claims nothing, or something that contradicts what it came with; one line."""


@dataclass(frozen=True)
class Claims:
    """Whom a release claims to be for, and its files. `serial`, `not_after` (Unix seconds): for the status only."""

    fleet: str
    kind: str
    host: str
    serial: int
    not_after: int
    files: Mapping[str, FileEntry]


def read(envelope: bytes) -> Claims:
    """Read the claims of a release.json; ClaimsError when it has none."""
    try:
        document: Any = jsonfile.parse(envelope)
        payload: Any = jsonfile.parse(binascii.a2b_base64(document["payload"], strict_mode=True))
        files = {name: FileEntry(entry["sha256"], entry["size"]) for name, entry in payload["files"].items()}
        fleet, kind, host, serial, not_after = (payload[name] for name in _FIELDS)
        claims = Claims(fleet, kind, host, serial, not_after, files)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ClaimsError("release.json is no envelope of a release") from None
    texts = (claims.fleet, claims.kind, claims.host, *(entry.sha256 for entry in files.values()))
    numbers = (claims.serial, claims.not_after, *(entry.size for entry in files.values()))
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise ClaimsError("release.json is no envelope of a release")
    return claims


def check(
    claims: Claims, fleet: str, kind: str, host: str, digest: str, files: Mapping[str, FileEntry]
) -> None:
    """Refuse, by ClaimsError, what is another host's, or not what these payload files and this digest are."""
    if (claims.fleet, claims.kind, claims.host) != (fleet, kind, host):
        raise ClaimsError("the release is for another fleet, kind or host")
    if dict(claims.files) != dict(files):
        raise ClaimsError("the files are not those that release.json names")
    if files_digest(files) != digest:
        raise ClaimsError("the digest is not that of the files")
