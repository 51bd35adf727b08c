"""Releases as files: the layout that hosts watch, kept so that a host never sees half of a release.

    TARGET/<kind>/<host>/current -> releases/<digest>
    TARGET/<kind>/<host>/releases/<digest>/{payload files, keys.json, release.json}
    TARGET/.tidegate/index.json                       the publisher's own; no host reads it

A release is complete on the disk before `current` names it. Cut anywhere, what `current` names is the old release or
the new one; what was written aside (names that begin with a dot) is removed by the next put. A renewal has the digest
of what it renews, so there release.json alone is replaced, in one step.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from tidegate_compiler import parallel
from tidegate_compiler.targets import ENVELOPES_MAX, Conflict, Found, Host, TargetError
from tidegate_compiler.targets.folders import Folder
from tidegate_schema.bundle import FILE_MAX_BYTES, FILES
from tidegate_schema.keyset import KEYS_FILE, KEYS_MAX_BYTES
from tidegate_schema.names import is_name
from tidegate_schema.release import (
    DIGEST_PATTERN,
    ENVELOPE_FILE,
    ENVELOPE_MAX_BYTES,
    FileEntry,
    files_digest,
)

CURRENT, RELEASES = "current", "releases"
PRIVATE, INDEX = ".tidegate", "index.json"
INDEX_MAX_BYTES = 256 << 20
_LINK = re.compile(r"releases/([0-9a-f]{64})")
_STAMPED = {kind: (*sorted(names), KEYS_FILE, ENVELOPE_FILE) for kind, (_, names) in FILES.items()}


def hosts(root: Folder) -> dict[Host, str]:
    """Return every host below a local `root` that has a current release, and its stamp."""
    found: dict[Host, str] = {}
    for kind in FILES:
        with _open(root, kind) as folder:
            if folder is None:
                continue
            names = sorted(filter(is_name, folder.names()))
            look = functools.partial(_stamp_of, folder, kind)
            stamps = parallel.each(look, names, parallel.by_count, "looking at the target")
            found.update({(kind, name): said for name, said in zip(names, stamps, strict=True) if said})
    return found


def _stamp_of(folder: Folder, kind: str, name: str) -> str:
    return stamp(folder, kind, f"{name}/")


def stamp(folder: Folder, kind: str, prefix: str = "") -> str:
    """Return a host's stamp: what its link says, and what lstat says of the files there; "" without a `current`."""
    link = folder.link(f"{prefix}{CURRENT}")
    match = _LINK.fullmatch(link)
    if match is None:
        return "other" if link else ""
    return " ".join([match[1], *folder.stamps([f"{prefix}{link}/{name}" for name in _STAMPED[kind]])])


def find(root: Folder, kind: str, host: str) -> Found:
    """Read what there is of a host."""
    with _open(root, kind) as of_kind, _open(of_kind, host) as folder, _open(folder, RELEASES) as releases:
        if folder is None or releases is None:
            return Found(token=stamp(folder, kind) if folder else "")
        token = stamp(folder, kind)
        match = _LINK.fullmatch(folder.link(CURRENT))
        current = match[1] if match else ""
        digest, first, keys = "", None, b""
        # A link in the release's place is no release; the next put removes it.
        with suppress(TargetError), _open(releases, current) as release:
            if release is not None:
                digest = current if _digest(release, kind) == current else ""
                first = release.read(ENVELOPE_FILE, ENVELOPE_MAX_BYTES)
                keys = release.read(KEYS_FILE, KEYS_MAX_BYTES) or b""
        envelopes = [] if first is None else [first]
        for name in _by_age(releases):
            if name != current and len(envelopes) < ENVELOPES_MAX:
                with suppress(TargetError), _open(releases, name) as release:
                    data = release.read(ENVELOPE_FILE, ENVELOPE_MAX_BYTES) if release else None
                    envelopes += [] if data is None else [data]
        return Found(digest, tuple(envelopes), first is not None, keys, token)


def put(
    root: Folder, kind: str, host: str, digest: str, files: Mapping[str, bytes], found: Found, keep: int
) -> str:
    """Store a release, move `current`, and remove what is older than the newest `keep`; return the new stamp."""
    with ExitStack() as stack:
        folder = _made(stack, _made(stack, root, kind), host)
        if stamp(folder, kind) != (found.token or ""):
            raise Conflict("another publish changed it meanwhile; run this one again")
        releases = _made(stack, folder, RELEASES)
        for name in releases.names():
            if name.startswith("."):  # of a run that was cut
                releases.remove(name)
        _store(releases, digest, files)
        # Also when it points there already, so that whoever watches the folder sees a renewal.
        aside = f".{CURRENT}.new"
        folder.symlink(aside, f"{RELEASES}/{digest}")
        _replace(folder, aside, CURRENT)
        folder.sync()
        for name in [name for name in _by_age(releases) if name != digest][max(keep, 1) - 1 :]:
            releases.remove(name)
        return stamp(folder, kind)


def read_index(root: Folder) -> bytes:
    """Return what `write_index` wrote; b"" when there is nothing of that kind."""
    with _open(root, PRIVATE) as folder:
        return (folder.read(INDEX, INDEX_MAX_BYTES) or b"") if folder else b""


def write_index(root: Folder, data: bytes) -> None:
    """Replace the index in one step."""
    with ExitStack() as stack:
        folder = _made(stack, root, PRIVATE)
        folder.write(f".{INDEX}.new", data)
        _replace(folder, f".{INDEX}.new", INDEX)


def _replace(folder: Folder, old: str, new: str) -> None:
    """Rename in one step; a directory in the way, which is no publish's, goes before."""
    there = folder.info(new)
    if there is not None and there.is_directory:
        folder.remove(new)
    folder.replace(old, new)


@contextmanager
def _open(folder: Folder | None, name: str) -> Iterator[Folder | None]:
    found = folder.folder(name) if folder is not None and name else None
    try:
        yield found
    finally:
        if found is not None:
            found.close()


def _made(stack: ExitStack, folder: Folder, name: str) -> Folder:
    found = folder.folder(name, make=True)
    if found is None:
        raise TargetError(f"{name}: it went away while it was made; is another publish at work?")
    stack.callback(found.close)
    return found


def _digest(release: Folder, kind: str) -> str:
    """Return the digest of the payload files that are there; of other files none is read."""
    entries = {}
    for name in sorted(FILES[kind][1]):
        data = release.read(name, FILE_MAX_BYTES[name])
        if data is not None:
            entries[name] = FileEntry.of(data)
    return files_digest(entries)


def _by_age(releases: Folder) -> list[str]:
    """Return the releases there, the newest first."""
    names = [name for name in releases.names() if DIGEST_PATTERN.fullmatch(name)]
    told = {name: releases.info(f"{name}/{ENVELOPE_FILE}") for name in names}
    return sorted(names, key=lambda name: (-(one.modified if (one := told[name]) else 0), name))


def _store(releases: Folder, digest: str, files: Mapping[str, bytes]) -> None:
    """Make releases/<digest> hold these files, complete before it has that name."""
    known = releases.info(digest)
    if known is not None and not known.is_directory:
        releases.remove(digest)
    aside = f".{digest}.new"
    with _open(releases, digest) as final:
        if final is not None:  # renewed, or an earlier release again: the payload first, the envelope last
            for name in sorted(files, key=lambda name: (name == ENVELOPE_FILE, name == KEYS_FILE, name)):
                if final.read(name, len(files[name])) != files[name]:
                    final.write(f".{name}.new", files[name])
                    _replace(final, f".{name}.new", name)
            for name in FILE_MAX_BYTES:
                if name not in files:  # of a damaged release; with it the digest would be another
                    final.remove(name)
            final.sync()
            return
    with ExitStack() as stack:
        folder = _made(stack, releases, aside)
        for name, data in files.items():
            folder.write(name, data)
        folder.sync()
    releases.replace(aside, digest)
    releases.sync()
