"""A tree with some of its files changed, written made from the lowest folder up: no index, so no index.lock."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tidegate_compiler.diagnostics import show_path
from tidegate_control.git.objects import Objects
from tidegate_control.git.pack import Pack
from tidegate_control.git.process import GitError

_TREE, _FILE = "40000", "100"
_NEW_FILE = "100644"

Entries = dict[str, tuple[str, str]]
"""Name to (mode, ID)."""


class TreeError(Exception):
    """A file cannot be put there, since something else stands in the way; one line."""


def changed(pack: Pack, objects: Objects, tree: str, files: Mapping[str, bytes | None]) -> str:
    """Return the ID of a tree in which these files have these bytes, or are gone (None); what is new goes into `pack`.

    `files` are paths from the tree's top; a folder that is left without anything goes. TreeError, GitError.
    """
    blobs = {path: None if data is None else pack.add("blob", data) for path, data in files.items()}
    return _folder(pack, objects, tree, blobs, "") or pack.add("tree", b"")


def _folder(
    pack: Pack, objects: Objects, tree: str | None, files: Mapping[str, str | None], at: str
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
        made = _folder(pack, objects, sha or None, inner, f"{at}{name}/")
        if made is None:
            entries.pop(name, None)
        else:
            entries[name] = (_TREE, made)
    return pack.add("tree", _written(entries)) if entries else None


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
        entries[os.fsdecode(name)] = (mode.decode(), data[end + 1 : position].hex())
    return entries


def _written(entries: Entries) -> bytes:
    """Return a tree's bytes; git sorts a folder as if its name ended in a slash."""
    ordered = sorted(
        (os.fsencode(name) + b"/" * (mode == _TREE), mode, sha) for name, (mode, sha) in entries.items()
    )
    return b"".join(
        mode.encode() + b" " + (key[:-1] if mode == _TREE else key) + b"\0" + bytes.fromhex(sha)
        for key, mode, sha in ordered
    )


def _what(mode: str) -> str:
    return {"120000": "a symbolic link", "160000": "a submodule", _TREE: "a directory"}.get(mode, "a file")
