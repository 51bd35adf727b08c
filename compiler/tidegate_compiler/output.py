"""The output directory: what `compile` writes and `publish` reads.

Only a directory that is absent, empty, or carries our manifest is ever written into, and only there is anything
removed. Files whose bytes are right already are not touched. New bytes are first written beside the old ones,
all of them, and then renamed in one go, under the mark `.incomplete`; an output that carries the mark may be a
mixture of two runs, which `publish` refuses and the next `compile` mends. Nothing is synced to the disk: the output
can be made again at any time, and `publish` checks what it signs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate_compiler.diagnostics import show
from tidegate_compiler.render import FORMAT, MANIFEST
from tidegate_schema import jsonfile, validation, wgquick
from tidegate_schema.names import is_name
from tidegate_schema.policy import PolicyTable
from tidegate_schema.release import FILE_MAX_BYTES, FILES

INCOMPLETE = ".incomplete"
_ASIDE = ".new"
_MANIFEST_MAX_BYTES = 64 << 20


class OutputError(Exception):
    """The directory is not what it has to be; one line."""


@dataclass(frozen=True)
class Written:
    """What a write did: paths relative to the output, sorted."""

    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int


@dataclass(frozen=True)
class Output:
    """A compile output read back: fleet, the inventory's digest, and the files of every (kind, host)."""

    fleet: str
    inventory: str
    hosts: Mapping[tuple[str, str], Mapping[str, bytes]]


def write(out: Path, files: Mapping[str, bytes]) -> Written:
    """Make `out` hold exactly `files`. Raises OutputError when it is not ours, OSError on trouble."""
    _claim(out)
    changed = tuple(sorted(path for path, data in files.items() if not _is_same(out / path, data)))
    stale = tuple(sorted(_present(out) - set(files) - {path + _ASIDE for path in changed}))
    if not changed and not stale and not (out / INCOMPLETE).exists():
        return Written((), (), len(files))
    (out / INCOMPLETE).touch()
    for path in changed:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        _aside(out / path).write_bytes(files[path])
    for path in changed:
        _aside(out / path).replace(out / path)
    for path in stale:
        (out / path).unlink()
    _drop_empty(out)
    (out / INCOMPLETE).unlink()
    return Written(changed, stale, len(files) - len(changed))


def _aside(path: Path) -> Path:
    return path.with_name(path.name + _ASIDE)


def _claim(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out}: not a directory")
    out.mkdir(parents=True, exist_ok=True)
    names = {entry.name for entry in out.iterdir()}
    first_run_was_cut = (
        names <= {INCOMPLETE, "client", "gateway", MANIFEST + _ASIDE} and (out / INCOMPLETE).exists()
    )
    if not names or first_run_was_cut:
        return
    if MANIFEST not in names:
        raise OutputError(
            f"{out}: not empty and no output of 'tidegate compile' (no {MANIFEST}); name another"
        )
    _manifest(out)


def _is_same(path: Path, data: bytes) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _present(out: Path) -> set[str]:
    """Return the paths of all files under the hosts' directories; everything there is ours."""
    found: set[str] = set()
    for kind in FILES:
        for folder, _, names in os.walk(out / kind):
            found.update(str((Path(folder) / name).relative_to(out)) for name in names)
    return found


def _drop_empty(out: Path) -> None:
    for kind in FILES:
        if not (out / kind).is_dir():
            continue
        for host in (out / kind).iterdir():
            if host.is_dir() and not host.is_symlink() and not any(host.iterdir()):
                host.rmdir()


def _manifest(out: Path) -> dict[str, Any]:
    try:
        data = read_bounded(out / MANIFEST, _MANIFEST_MAX_BYTES)
        document = jsonfile.parse(data)
        fleet, hosts = document["fleet"], document["hosts"]
        names = [name for kind in FILES for name in hosts[kind]]
        if (
            document["format"] != FORMAT
            or set(hosts) != set(FILES)
            or not isinstance(document["inventory"], str)
        ):
            raise ValueError
        if not all(isinstance(name, str) and is_name(name) for name in (*names, fleet)):
            raise ValueError
    except (OutputError, OSError, ValueError, KeyError, TypeError):
        raise OutputError(f"{out}: no output of 'tidegate compile' ({MANIFEST} is not one of ours)") from None
    return dict(document)


def read(out: Path) -> Output:
    """Read an output back for publishing.

    Raises OutputError on anything in it that a host would refuse: nobody signs what nobody can apply.
    """
    if not out.is_dir():
        raise OutputError(f"{out}: no such directory; run 'tidegate compile' first")
    manifest = _manifest(out)
    if (out / INCOMPLETE).exists():
        raise OutputError(f"{out}: an interrupted compile left a mixture; run 'tidegate compile' again")
    expected = {(kind, host) for kind in FILES for host in manifest["hosts"][kind]}
    present = {
        (kind, host.name)
        for kind in FILES
        if (out / kind).is_dir()
        for host in sorted((out / kind).iterdir())
    }
    for kind, host in sorted(expected ^ present):
        state = "is missing" if (kind, host) in expected else f"is not in {MANIFEST}"
        raise OutputError(f"{out}: {kind} {show(host)} {state}; run 'tidegate compile' again")
    hosts = {(kind, host): _host_files(out, kind, host) for kind, host in sorted(expected)}
    return Output(manifest["fleet"], manifest["inventory"], hosts)


def _host_files(out: Path, kind: str, host: str) -> dict[str, bytes]:
    folder = out / kind / host
    required, allowed = FILES[kind]
    names = (
        {entry.name for entry in folder.iterdir()} if folder.is_dir() and not folder.is_symlink() else set()
    )
    for name in sorted((required - names) | (names - allowed)):
        state = "is missing" if name in required else "does not belong there"
        raise OutputError(f"{folder}: {show(name)} {state}; run 'tidegate compile' again")
    files = {name: read_bounded(folder / name, FILE_MAX_BYTES[name]) for name in sorted(names)}
    for name, data in files.items():
        try:
            refuse(name, data)
        except ValueError as error:
            raise OutputError(f"{folder / name}: {error}") from None
    return files


def refuse(name: str, data: bytes) -> None:
    """Raise ValueError, one line, when a host would refuse this payload file."""
    if name == "wg0.conf":
        wgquick.parse(data)
        return
    document = jsonfile.parse(data)
    problems = validation.errors(name.removesuffix(".json"), document)
    if problems:
        raise ValueError(f"breaks its schema: {ascii(problems[0].message[:160])[1:-1]}")
    if name == "policy.json":
        PolicyTable(document)


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file that is no link; OutputError when it cannot be read or is larger than `limit` bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from None
    if len(data) > limit:
        raise OutputError(f"{path}: larger than {limit} bytes")
    return data
