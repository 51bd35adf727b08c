"""Read the release that a host's bundle directory offers, or say by name why it is refused.

What reaches the host is either a complete, authentic, newer release for this very host, or it changes nothing.
Every file is opened once, without following links, below a directory that is itself opened once, so nothing can
be exchanged between check and use.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from securesystemslib.signer import Key

from tidegate_agents.files import FileRefused, read_bounded
from tidegate_schema import keyset
from tidegate_schema.bundle import FILE_MAX_BYTES, FILES
from tidegate_schema.keyset import KEYS_FILE, KEYS_MAX_BYTES, KeySet, KeySetError
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
    """Who this host is, whose signatures it trusts, how many of them it needs, and which key set they are (0: none)."""

    fleet: str
    kind: str
    host: str
    trusted: Sequence[Key]
    threshold: int = 1
    key_set: int = 0

    def trusting(self, keys: KeySet) -> Identity:
        """Return the same host with the keys of a set in place of those it trusted."""
        return replace(self, trusted=keys.trusted, threshold=keys.threshold, key_set=keys.version)


@dataclass(frozen=True)
class Accepted:
    """A release whose every check held, with the bytes of its payload files."""

    release: Release
    digest: str
    files: Mapping[str, bytes]
    envelope: bytes = b""
    """The bytes of release.json."""


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

    A renewal changes release.json alone, so the link is not enough; new keys are looked at as well.
    """
    try:
        info = (directory / "current" / ENVELOPE_FILE).lstat()
        return _link(directory), info.st_ino, info.st_mtime_ns, info.st_size, _keys_fingerprint(directory)
    except OSError:
        return (_link(directory),) if os.path.lexists(directory / "current") else None


def _keys_fingerprint(directory: Path) -> tuple[int, ...]:
    try:
        info = (directory / "current" / KEYS_FILE).lstat()
        return info.st_ino, info.st_mtime_ns, info.st_size
    except OSError:
        return ()


def _link(directory: Path) -> str:
    try:
        return str((directory / "current").readlink())
    except OSError:
        return ""


def read_current(
    directory: Path, identity: Identity, highest_serial: int, now: float, highest_digest: str = ""
) -> Accepted:
    """Return the release that `current` names when it may be applied at Unix time `now`; else ReleaseError.

    `highest_serial` is the highest serial this host has ever accepted, and `highest_digest` the digest of that
    release, "" where it is not known.
    """

    def check(release: Release) -> None:
        if release.serial < highest_serial:
            raise ReleaseError("replayed", f"serial {release.serial} is older than {highest_serial}")
        if now >= release.not_after:
            raise ReleaseError("expired", "the release's not_after has passed; publish again")
        if release.serial == highest_serial and highest_digest not in ("", files_digest(release.files)):
            raise ReleaseError("replayed", f"serial {release.serial} was another release before")

    with ExitStack() as stack:
        at, named = _open_current(stack, directory)
        return _read_release(at, named, identity, check)


def read_kept(directory: Path, digest: str, identity: Identity) -> Accepted:
    """Return a release that this host has accepted before and kept in a directory of its own; else ReleaseError.

    Everything is checked anew, but its serial and its end: it was in force already.
    """
    with ExitStack() as stack:
        return _read_release(_open_directory(stack, directory, None), digest, identity, lambda _release: None)


def _read_release(at: int, name: str, identity: Identity, check: Callable[[Release], None]) -> Accepted:
    envelope = _read(ENVELOPE_FILE, ENVELOPE_MAX_BYTES, at)
    release = open_envelope(envelope, identity.trusted, identity.threshold)
    _check_statement(release, identity, check)
    digest = files_digest(release.files)
    if digest != name:
        raise ReleaseError("mixed-files", "the directory's name is not the digest of the signed files")
    files = {name: _file(name, entry, at) for name, entry in release.files.items()}
    return Accepted(release, digest, files, envelope)


def read_keys(directory: Path, ours: KeySet) -> KeySet:
    """Return the newest key set that `current` brings and that goes on from ours; ours when it brings none.

    Raises ReleaseError: "wrong-key-set" when what it brings does not go on from ours.
    """
    with ExitStack() as stack:
        at, _ = _open_current(stack, directory)
        try:
            data = read_bounded(KEYS_FILE, KEYS_MAX_BYTES, dir_fd=at)
        except FileNotFoundError:
            return ours  # taking the file away holds a new set back, and no more: releases name the set they need
        except FileRefused as error:
            raise ReleaseError("bad-file", str(error)) from None
        try:
            return keyset.advance(ours, _chain(data))
        except KeySetError as error:
            raise ReleaseError("wrong-key-set", f"{KEYS_FILE}: {error}") from None


@functools.lru_cache(maxsize=1)
def _chain(data: bytes) -> tuple[keyset.Link, ...]:
    """Read a chain, once for as long as it stays the same: a long one takes a tenth of a second."""
    return keyset.read(data)


def _open_current(stack: ExitStack, directory: Path) -> tuple[int, str]:
    """Open the directory of the release that `current` names; returns its descriptor and its name."""
    match = _CURRENT.fullmatch(_link(directory))
    if match is None:
        raise ReleaseError("bad-link", f"{directory}/current does not point to releases/<digest>")
    at = _open_directory(stack, directory, None)
    at = _open_directory(stack, "releases", at)
    return _open_directory(stack, match[1], at), match[1]


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


def _check_statement(release: Release, identity: Identity, check: Callable[[Release], None]) -> None:
    for name, is_value, ought in (
        ("other-fleet", release.fleet, identity.fleet),
        ("other-kind", release.kind, identity.kind),
        ("other-host", release.host, identity.host),
    ):
        if is_value != ought:
            raise ReleaseError(name, f"the release is for {is_value}, this is {ought}")
    if release.key_set > identity.key_set:
        # Or whoever carries releases could hold back the set that takes a stolen key away, and nobody would notice.
        raise ReleaseError(
            "missing-key-set",
            f"signed under key set {release.key_set}, this host has {identity.key_set}; bring {KEYS_FILE} along",
        )
    check(release)
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
