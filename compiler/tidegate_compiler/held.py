"""What a bundle directory holds already: the release of every host there that this key signed, read back whole.

    TARGET/<kind>/<host>/current -> releases/<digest>/{release.json, files}

Nothing there is believed but what the signature covers, and nothing is read without a bound. A release that is damaged,
another key's or another fleet's is none; the host is named, so that nobody takes a comparison for complete.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from tidegate_compiler.output import OutputError, read_bounded, refuse
from tidegate_schema.bundle import FILE_MAX_BYTES, FILES
from tidegate_schema.names import is_name
from tidegate_schema.release import (
    DIGEST_PATTERN,
    ENVELOPE_FILE,
    ENVELOPE_MAX_BYTES,
    FileEntry,
    ReleaseError,
    files_digest,
    open_envelope,
)

CURRENT = "current"
RELEASES = "releases"
Host = tuple[str, str]


@dataclass(frozen=True)
class Held:
    """The files of every (kind, host) that has a current release of this key, and the hosts that have another one."""

    hosts: Mapping[Host, Mapping[str, bytes]]
    unread: tuple[Host, ...]


def read(target: Path, fleet: str, signer: CryptoSigner) -> Held:
    """Read a bundle directory, which may be empty or absent. Raises OSError when it cannot be listed."""
    hosts: dict[Host, Mapping[str, bytes]] = {}
    unread: list[Host] = []
    for kind in FILES:
        if not (target / kind).is_dir():
            continue
        for name in sorted(entry.name for entry in os.scandir(target / kind) if is_name(entry.name)):
            if (target / kind / name / CURRENT).is_symlink():
                files = _files(target / kind / name, fleet, kind, name, signer)
                if files is None:
                    unread.append((kind, name))
                else:
                    hosts[kind, name] = files
    return Held(hosts, tuple(unread))


def _files(
    folder: Path, fleet: str, kind: str, host: str, signer: CryptoSigner
) -> Mapping[str, bytes] | None:
    try:
        digest = (folder / CURRENT).readlink().name
        if not DIGEST_PATTERN.fullmatch(digest):
            return None
        place = folder / RELEASES / digest
        release = open_envelope(read_bounded(place / ENVELOPE_FILE, ENVELOPE_MAX_BYTES), [signer.public_key])
        required, allowed = FILES[kind]
        names = set(release.files)
        if (release.fleet, release.kind, release.host) != (fleet, kind, host):
            return None
        if not required <= names <= allowed:
            return None
        files = {name: read_bounded(place / name, FILE_MAX_BYTES[name]) for name in sorted(names)}
        if {name: FileEntry.of(data) for name, data in files.items()} != dict(release.files):
            return None
        if files_digest(release.files) != digest:
            return None
        for name, data in files.items():
            refuse(name, data)
    except (OSError, OutputError, ReleaseError, ValueError):
        return None
    return files
