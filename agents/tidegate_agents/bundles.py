"""Read the release that a host's bundle directory offers, or say by name why it is refused.

What reaches the host is either a complete, authentic, newer release for this very host, or it changes nothing.
Every file is opened once, without following links, below a directory that is itself opened once, so nothing can
be exchanged between check and use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Key

from tidegate_agents.files import FileRefused, read_bounded
from tidegate_schema.bundle import FILE_MAX_BYTES, FILES
from tidegate_schema.release import (
    ENVELOPE_FILE,
    ENVELOPE_MAX_BYTES,
    FileEntry,
    Release,
    ReleaseError,
    files_digest,
    open_envelope,
)

_CURRENT = re.compile(r"releases/([0-9a-f]{64})")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Identity:
    """Who this host is, and whose signatures it trusts."""

    fleet: str
    kind: str
    host: str
    trusted: Sequence[Key]


@dataclass(frozen=True)
class Accepted:
    """A release whose every check held, with the bytes of its payload files."""

    release: Release
    digest: str
    files: Mapping[str, bytes]


def summary(accepted: Accepted) -> dict[str, str | int]:
    """Return what a status says of the release in force."""
    release = accepted.release
    return {
        "digest": accepted.digest,
        "serial": release.serial,
        "not_after": release.not_after,
        "source": release.source,
    }


def host_directory(bundles: Path, identity: Identity) -> Path:
    """Return BUNDLES/<kind>/<host>, the directory a host watches."""
    return bundles / identity.kind / identity.host


def fingerprint(directory: Path) -> tuple[object, ...] | None:
    """Return what changes when a host is published to, None when nothing is there; a look that proves nothing.

    A renewal changes release.json alone, so the link is not enough.
    """
    try:
        info = (directory / "current" / ENVELOPE_FILE).lstat()
        return _link(directory), info.st_ino, info.st_mtime_ns, info.st_size
    except OSError:
        return (_link(directory),) if os.path.lexists(directory / "current") else None


def _link(directory: Path) -> str:
    try:
        return str((directory / "current").readlink())
    except OSError:
        return ""


def read_current(directory: Path, identity: Identity, highest_serial: int, now: float) -> Accepted:
    """Return the release that `current` names when it may be applied at Unix time `now`; else ReleaseError.

    `highest_serial` is the highest serial this host has ever accepted.
    """
    match = _CURRENT.fullmatch(_link(directory))
    if match is None:
        raise ReleaseError("bad-link", f"{directory}/current does not point to releases/<digest>")
    with ExitStack() as stack:
        at = _open_directory(stack, directory, None)
        at = _open_directory(stack, "releases", at)
        at = _open_directory(stack, match[1], at)
        release = open_envelope(_read(ENVELOPE_FILE, ENVELOPE_MAX_BYTES, at), identity.trusted)
        _check_statement(release, identity, highest_serial, now)
        digest = files_digest(release.files)
        if digest != match[1]:
            raise ReleaseError("mixed-files", "the directory's name is not the digest of the signed files")
        return Accepted(
            release, digest, {name: _file(name, entry, at) for name, entry in release.files.items()}
        )


def _open_directory(stack: ExitStack, path: Path | str, dir_fd: int | None) -> int:
    try:
        fd = os.open(path, _DIRECTORY, dir_fd=dir_fd)
    except OSError as error:
        raise ReleaseError("half-written", f"{path}: {error.strerror}") from None
    stack.callback(os.close, fd)
    return fd


def _read(name: str, limit: int, dir_fd: int) -> bytes:
    try:
        return read_bounded(name, limit, dir_fd=dir_fd)
    except FileNotFoundError:
        raise ReleaseError("half-written", f"{name} is not there") from None
    except FileRefused as error:
        raise ReleaseError("bad-file", str(error)) from None


def _check_statement(release: Release, identity: Identity, highest_serial: int, now: float) -> None:
    for name, is_value, ought in (
        ("other-fleet", release.fleet, identity.fleet),
        ("other-kind", release.kind, identity.kind),
        ("other-host", release.host, identity.host),
    ):
        if is_value != ought:
            raise ReleaseError(name, f"the release is for {is_value}, this is {ought}")
    if release.serial < highest_serial:
        raise ReleaseError("replayed", f"serial {release.serial} is older than {highest_serial}")
    if now >= release.not_after:
        raise ReleaseError("expired", "the release's not_after has passed; publish again")
    required, allowed = FILES[release.kind]
    if not required <= set(release.files) <= allowed:
        raise ReleaseError(
            "wrong-files", f"a {release.kind} release does not consist of {sorted(release.files)}"
        )


def _file(name: str, entry: FileEntry, dir_fd: int) -> bytes:
    data = _read(name, min(entry.size, FILE_MAX_BYTES[name]), dir_fd)
    if FileEntry.of(data) != entry:
        raise ReleaseError("mixed-files", f"{name} is not the file that was signed")
    return data
