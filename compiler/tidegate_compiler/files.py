"""The inventory on disk, read once into {path: bytes}.

    INV/overlay.yaml
    INV/{gateways,clients,groups,resources,policies,tests}/*.yaml

Symbolic links are refused, so that a pull request cannot pull in a file of the machine that compiles it.
Nothing that looks like a part of the inventory is passed over in silence: a `deny` in a file that nobody
reads would be an access.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from tidegate_compiler.diagnostics import Diagnostic, Where, did_you_mean, show
from tidegate_schema import jsonfile

KINDS = ("gateways", "clients", "groups", "resources", "policies", "tests")
OVERLAY_FILE = "overlay.yaml"
FILE_MAX_BYTES = 4 << 20
INVENTORY_INSIDE = "an inventory inside an inventory is not read; name this directory, or move it away"
_LIKE_YAML = (".yaml", ".yml")


def read(root: Path) -> tuple[dict[str, bytes], list[Diagnostic]]:
    """Return the files of the inventory by relative path, and what could not or may not be read.

    Raises OSError only when `root` itself is no readable directory.
    """
    files: dict[str, bytes] = {}
    problems: list[Diagnostic] = []
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for entry in _entries(descriptor):
            if entry.name in KINDS:
                _read_kind(descriptor, entry, files, problems)
            elif entry.name == OVERLAY_FILE:
                _read_file(descriptor, entry, entry.name, files, problems)
            else:
                problems.extend(_stranger(descriptor, entry))
    finally:
        os.close(descriptor)
    return files, problems


def digest(files: Mapping[str, bytes]) -> str:
    """Return "sha256:…" over the files' names and bytes, whatever their order."""
    return digest_of(digests(files))


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each file, in hexadecimal."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def digest_of(digests: Mapping[str, str]) -> str:
    """Return what `digest` does of files with these SHA-256."""
    listing = {name.encode("utf-8", "surrogateescape").hex(): found for name, found in digests.items()}
    return "sha256:" + hashlib.sha256(jsonfile.canonical(listing)).hexdigest()


def _entries(descriptor: int) -> list[os.DirEntry[str]]:
    with os.scandir(descriptor) as found:
        return sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)


def _is_yaml_like(name: str) -> bool:
    return name.lower().endswith(_LIKE_YAML)


def _read_kind(
    root: int, entry: os.DirEntry[str], files: dict[str, bytes], problems: list[Diagnostic]
) -> None:
    if entry.is_symlink():
        problems.append(_symlink(entry.name))
        return
    try:
        descriptor = os.open(
            entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root
        )
    except OSError as error:
        problems.append(_unreadable(entry.name, error))
        return
    try:
        for child in _entries(descriptor):
            path = f"{entry.name}/{child.name}"
            if child.name.endswith(".yaml"):
                _read_file(descriptor, child, path, files, problems)
            elif child.is_symlink():
                problems.append(_symlink(path))
            elif child.is_dir(follow_symlinks=False):
                problems.append(_unexpected(path, "a directory inside a kind is not read; move its files up"))
            elif _is_yaml_like(child.name) or child.name.lower().endswith(".json"):
                problems.append(_unexpected(path, "only *.yaml is read; rename it"))
    finally:
        os.close(descriptor)


def _read_file(
    directory: int, entry: os.DirEntry[str], path: str, files: dict[str, bytes], problems: list[Diagnostic]
) -> None:
    if entry.is_symlink():
        problems.append(_symlink(path))
        return
    try:
        # O_NONBLOCK: a FIFO in the way must not hang the run.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(entry.name, flags, dir_fd=directory)
        try:
            found = os.fstat(descriptor)
            if not (
                stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
            ):  # a directory refuses to be read
                problems.append(Diagnostic(Where(path), "TG001", "not a regular file; remove or rename it"))
                return
            data = _content(descriptor, found.st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        problems.append(_unreadable(path, error))
        return
    if len(data) > FILE_MAX_BYTES:
        problems.append(
            Diagnostic(Where(path), "TG001", f"larger than {FILE_MAX_BYTES} bytes; split it into files")
        )
        return
    files[path] = data


def _content(descriptor: int, size: int) -> bytes:
    """Return what is in a file that seems to have this size, and of a larger one more than is allowed.

    A read makes room for all that it is asked for first: for as much as is allowed takes longer than small files.
    """
    parts: list[bytes] = []
    left = FILE_MAX_BYTES + 1
    while left and (part := os.read(descriptor, min(size + 1, left))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _stranger(root: int, entry: os.DirEntry[str]) -> list[Diagnostic]:
    """Judge a top-level entry that is no part of an inventory: fine, unless somebody may think it is."""
    if entry.is_symlink():
        return [_symlink(entry.name)] if _is_yaml_like(entry.name) else []
    if not entry.is_dir(follow_symlinks=False):
        if _is_yaml_like(entry.name):
            return [
                _unexpected(entry.name, f"at the top only {OVERLAY_FILE} is read; move it under its kind")
            ]
        return []
    hint = did_you_mean(entry.name, KINDS)
    try:
        descriptor = os.open(
            entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root
        )
    except OSError as error:
        return [_unreadable(entry.name, error)]
    try:
        names = [child.name for child in _entries(descriptor)]
    finally:
        os.close(descriptor)
    if OVERLAY_FILE in names and not hint:
        return [_unexpected(entry.name, INVENTORY_INSIDE)]
    if not hint and not any(map(_is_yaml_like, names)):
        return []
    return [
        _unexpected(
            entry.name, f"no kind is called {show(entry.name)}{hint or '; kinds: ' + ', '.join(KINDS)}"
        )
    ]


def _symlink(path: str) -> Diagnostic:
    return Diagnostic(Where(path), "TG002", "a symbolic link; put the file itself here")


def _unexpected(path: str, message: str) -> Diagnostic:
    return Diagnostic(Where(path), "TG004", message)


def _unreadable(path: str, error: OSError) -> Diagnostic:
    return Diagnostic(Where(path), "TG001", f"cannot be read: {error.strerror or 'input/output error'}")
