"""Which commits changed one object: those whose version of it differs from their first parent's, comments included."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tidegate_compiler.edit.survey import KINDS as FOLDERS
from tidegate_compiler.files import FILE_MAX_BYTES, OVERLAY_FILE
from tidegate_compiler.load import load
from tidegate_control.git.repository import Logged, Repository
from tidegate_control.inventory.model import OVERLAY
from tidegate_control.inventory.sheets import Sheet

_PAGE = 200
_SCANNED_MAX = 20_000
"""Commits that are looked at for one answer."""
_KEY = re.compile(rb"^[^\s#\-\[\]{}'\"][^\n]*", re.MULTILINE)
"""A line that begins at its first column, as an object's name does in a file in block style."""


def commits_of(
    repository: Repository, kind: str, name: str, start: str, limit: int, near: str | None = None
) -> list[Logged]:
    """Return the commits from `start` on backwards that changed an object, at most `limit`.

    `near` is a file, from the repository's top, in which it probably is at `start`: a commit that leaves alone the file
    that an object is in is not looked into; of one of hundreds of files, such as the first, that is looked at first.
    """
    found: list[Logged] = []
    # Of `X^@`, the parents of X, git finds no file: then it is as if nobody knew where the object is.
    if near is not None and _part(repository, start, kind, near, name) is None:
        near = None
    for one in _commits(repository, kind, start):
        if near is not None and near not in one.files:
            continue
        parent = repository.parent(one.commit)
        for file in sorted(one.files, key=lambda file: file != near):
            after = _part(repository, one.commit, kind, file, name)
            before = _part(repository, parent, kind, file, name) if parent else None
            if before is None and after is None:
                continue
            near = file if before is not None else None  # None: it came here, perhaps from another file
            if before != after:
                found.append(one)
            break
        if len(found) == limit:
            break
    return found


def _commits(repository: Repository, kind: str, start: str) -> Iterator[Logged]:
    place = OVERLAY_FILE if kind == OVERLAY else FOLDERS[kind]
    for _ in range(_SCANNED_MAX // _PAGE):
        page = repository.log(start=start, limit=_PAGE, paths=(place,))
        yield from page
        if len(page) < _PAGE:
            return
        start = f"{page[-1].commit}^@"


def _part(repository: Repository, commit: str, kind: str, file: str, name: str) -> object:
    """Return what stands for an object in a commit's file, None when it is not in it."""
    place = f"{commit}:{file}"
    if repository.objects.size(place) > FILE_MAX_BYTES:  # which no inventory reads either
        return None
    blob = repository.objects.get(place)
    if blob is None or blob.kind != "blob":
        return None
    if kind == OVERLAY:
        return blob.data
    if kind != "test":
        if name.encode() not in blob.data:
            return None
        lines = _lines(blob.data, name)
        if lines is not None:
            return lines
    path = f"{FOLDERS[kind]}/{file.rpartition('/')[2]}"
    for document in load({path: blob.data})[0]:
        sheet = Sheet(document)
        return sheet.read(name).fields if name in sheet.names else None
    return None


def _lines(data: bytes, name: str) -> bytes | None:
    """Return the lines of an object in block style; None when they are not to be told from others at a glance."""
    keys = list(_KEY.finditer(data))
    mine = [index for index, key in enumerate(keys) if key[0].startswith(f"{name}:".encode())]
    if len(mine) != 1:
        return None
    index = mine[0]
    end = keys[index + 1].start() if index + 1 < len(keys) else len(data)
    return data[keys[index].start() : end].rstrip()
