"""A tree with some of its files changed, written by `mktree` from the lowest folder up: no index, no index.lock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tidegate_compiler.diagnostics import show_path
from tidegate_control.git.objects import Objects
from tidegate_control.git.process import GitError, run

_TREE, _FILE = "40000", "100"
_NEW_FILE = "100644"

Entries = dict[str, tuple[str, str]]
"""Name to (mode, ID)."""


class TreeError(Exception):
    """A file cannot be put there, since something else stands in the way; one line."""


def changed(directory: Path, objects: Objects, tree: str, files: Mapping[str, bytes | None]) -> str:
    """Return the ID of a tree in which these files are new, have these bytes, or are gone (None).

    `files` are paths from the tree's top; a folder that is left without anything goes. TreeError, GitError.
    """
    blobs = {path: None if data is None else _blob(directory, data) for path, data in files.items()}
    return _folder(directory, objects, tree, blobs, "") or _written(directory, {})


def _folder(
    directory: Path, objects: Objects, tree: str | None, files: Mapping[str, str | None], at: str
) -> str | None:
    """Return the ID of a folder's new tree, None when nothing is left in it."""
    entries = listing(objects, tree) if tree else {}
    below: dict[str, dict[str, str | None]] = {}
    for path, blob in files.items():
        name, _, rest = path.partition("/")
        if name in ("", ".", "..") or name.lower() == ".git":
            raise TreeError(f"{show_path(at + path)}: no path for a file")
        if rest:
            below.setdefault(name, {})[rest] = blob
            continue
        mode = entries.get(name, (_NEW_FILE, ""))[0]
        if not mode.startswith(_FILE):
            raise TreeError(
                f"{show_path(at + name)}: {_what(mode)} stands there; put a plain file in its place"
            )
        if blob is None:
            entries.pop(name, None)
        else:
            entries[name] = (mode, blob)
    for name, inner in below.items():
        mode, sha = entries.get(name, (_TREE, ""))
        if mode != _TREE:
            raise TreeError(
                f"{show_path(at + name)}: {_what(mode)} stands there; put a directory in its place"
            )
        made = _folder(directory, objects, sha or None, inner, f"{at}{name}/")
        if made is None:
            entries.pop(name, None)
        else:
            entries[name] = (_TREE, made)
    return _written(directory, entries) if entries else None


def listing(objects: Objects, tree: str) -> Entries:
    """Return what a tree holds. Its bytes are `mode name NUL ID`, again and again (gitformat-pack(5))."""
    found = objects.get(tree)
    if found is None or found.kind != "tree":
        raise GitError("git does not have a tree of the commit")
    entries: Entries = {}
    position, data, size = 0, found.data, len(found.sha) // 2
    while position < len(data):
        end = data.index(b"\0", position)
        mode, _, name = data[position:end].partition(b" ")
        position = end + 1 + size
        entries[name.decode("utf-8", "surrogateescape")] = (mode.decode(), data[end + 1 : position].hex())
    return entries


def _blob(directory: Path, data: bytes) -> str:
    return run(directory, "hash-object", "-w", "--no-filters", "--stdin", given=data).decode().strip()


def _written(directory: Path, entries: Entries) -> str:
    kinds = {_TREE: "tree", "160000": "commit"}
    given = b"".join(
        f"{mode.zfill(6)} {kinds.get(mode, 'blob')} {sha}\t".encode()
        + name.encode("utf-8", "surrogateescape")
        + b"\0"
        for name, (mode, sha) in entries.items()
    )
    # --missing: what was there before is not looked at again; a partial clone has not all of it.
    return run(directory, "mktree", "-z", "--missing", given=given).decode().strip()


def _what(mode: str) -> str:
    return {"120000": "a symbolic link", "160000": "a submodule", _TREE: "a directory"}.get(mode, "a file")
