"""Publishing to a directory: every host's bundle signed, and its `current` link moved in one step.

    TARGET/<kind>/<host>/current -> releases/<digest>
    TARGET/<kind>/<host>/releases/<digest>/release.json  wg0.conf | peers.json policy.json

A release is complete on disk before `current` names it, so a host never sees half of one. Its serial is the last
one that this key signed here plus one; a lock on TARGET keeps two publishers apart. A host whose files are the
same is left alone until its release is past half its validity.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from tidegate_compiler.held import CURRENT, RELEASES
from tidegate_compiler.output import Output
from tidegate_schema.release import (
    DIGEST_PATTERN,
    ENVELOPE_FILE,
    ENVELOPE_MAX_BYTES,
    FileEntry,
    Release,
    ReleaseError,
    files_digest,
    open_envelope,
    sign,
)


class PublishError(Exception):
    """The target refuses, or another publisher is at work; one line."""


@dataclass(frozen=True)
class Row:
    """What publishing did for one host: "published", "renewed" or "unchanged"; `not_after` in Unix seconds."""

    kind: str
    host: str
    action: str
    serial: int
    not_after: int
    digest: str


@dataclass(frozen=True)
class _Signed:
    """What this key has signed for a host: the highest serial, and the release `current` names if it is whole."""

    serial: int
    current: Release | None
    digest: str


def publish(
    output: Output,
    target: Path,
    signer: CryptoSigner,
    now: int,
    valid_for: int,
    source: str,
    *,
    first: Callable[[], None] = lambda: None,
    dry_run: bool = False,
) -> Iterator[Row]:
    """Publish every host of an output; yields one row as each is done.

    `now` is a Unix second and `valid_for` seconds; `source` is told to hosts. `first` is called when no other publisher
    can be at work and nothing is signed yet; what it raises ends the run. A `dry_run` signs and writes nothing, and its
    rows are what would be. Raises PublishError and OSError.
    """
    _refuse_what_is_no_bundle_directory(target)
    if not dry_run:
        target.mkdir(parents=True, exist_ok=True)
    with _locked(target) if target.exists() else nullcontext():
        first()
        for (kind, host), files in output.hosts.items():
            folder = target / kind / host
            entries = {name: FileEntry.of(data) for name, data in files.items()}
            digest = files_digest(entries)
            before = _signed(folder, output.fleet, kind, host, signer)
            same = before.current is not None and before.digest == digest
            if before.current is not None and same and _is_fresh(before.current, now, valid_for):
                yield Row(kind, host, "unchanged", before.current.serial, before.current.not_after, digest)
                continue
            release = Release(output.fleet, kind, host, before.serial + 1, now + valid_for, source, entries)
            if not dry_run:
                _store(folder, digest, {**files, ENVELOPE_FILE: sign(release, signer)})
                _point(folder, digest)
            yield Row(
                kind, host, "renewed" if same else "published", release.serial, release.not_after, digest
            )


def _refuse_what_is_no_bundle_directory(target: Path) -> None:
    first = target.parts[0] if target.parts else ""
    if ":" in first:
        raise PublishError(
            f"{target}: this version publishes to a directory only; publish to one and copy it over"
        )
    for name, what in (("overlay.yaml", "an inventory"), ("manifest.json", "a compile output")):
        if (target / name).exists():
            raise PublishError(f"{target} is {what}, not a bundle directory; name another")


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PublishError(f"{target}: another publish is at work; try again when it is done") from None
        yield
    finally:
        os.close(descriptor)


def _is_fresh(release: Release, now: int, valid_for: int) -> bool:
    return release.not_after - now > valid_for / 2


def _signed(folder: Path, fleet: str, kind: str, host: str, signer: CryptoSigner) -> _Signed:
    serial = 0
    current: Release | None = None
    digest = ""
    link = folder / CURRENT
    named = link.readlink().name if link.is_symlink() else ""
    for release_folder in sorted((folder / RELEASES).glob("*")):
        if not DIGEST_PATTERN.fullmatch(release_folder.name):
            continue
        try:
            release = _open(release_folder, signer)
        except ReleaseError as error:
            if error.name == "wrong-key" and release_folder.name == named:
                raise PublishError(
                    f"{folder}: another key signed the current release; use that key"
                ) from None
            continue  # damaged, or an old key's: no serial of ours, and publishing mends it
        if release is None or (release.fleet, release.kind, release.host) != (fleet, kind, host):
            continue
        serial = max(serial, release.serial)
        if release_folder.name == named and _is_whole(release_folder, release):
            current, digest = release, named
    return _Signed(serial, current, digest)


def _open(release_folder: Path, signer: CryptoSigner) -> Release | None:
    try:
        with (release_folder / ENVELOPE_FILE).open("rb") as file:
            return open_envelope(file.read(ENVELOPE_MAX_BYTES), [signer.public_key])
    except OSError:
        return None


def _is_whole(release_folder: Path, release: Release) -> bool:
    try:
        return all(
            FileEntry.of((release_folder / name).read_bytes()) == entry
            for name, entry in release.files.items()
        )
    except OSError:
        return False


def _store(folder: Path, digest: str, files: Mapping[str, bytes]) -> None:
    """Make releases/<digest> hold these files, complete before it has that name."""
    releases = folder / RELEASES
    releases.mkdir(parents=True, exist_ok=True)
    final = releases / digest
    if final.is_dir():  # renewed, or an earlier release again: the payload first, the envelope last
        for name in sorted(files, key=lambda name: (name == ENVELOPE_FILE, name)):
            aside = final / f".{name}.new"
            _write(aside, files[name])
            aside.replace(final / name)
        _sync(final)
        return
    aside = releases / f".{digest}.new"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name, data in files.items():
        _write(aside / name, data)
    _sync(aside)
    aside.rename(final)
    _sync(releases)


def _point(folder: Path, digest: str) -> None:
    """Move `current`; also when it points there already, so that whoever watches it sees a renewal."""
    aside = folder / f".{CURRENT}.new"
    aside.unlink(missing_ok=True)
    aside.symlink_to(f"{RELEASES}/{digest}")
    aside.replace(folder / CURRENT)
    _sync(folder)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
