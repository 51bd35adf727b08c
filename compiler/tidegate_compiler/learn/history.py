"""The clients of every commit of an inventory, read with git's plumbing. The I/O edge of `names`.

    git log --first-parent --raw REV -- INV/clients  ->  git cat-file --batch  ->  Timeline.step, commit by commit

Only what a merge brought to the branch counts, when it came there (the committer's time): hosts are told by the branch,
not by what somebody wrote on the side. Each content is parsed once, whatever number of commits has it. A file that was
no inventory in some commit says nothing there: what it said before stays.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tidegate_compiler.files import FILE_MAX_BYTES
from tidegate_compiler.learn.names import Timeline
from tidegate_compiler.load import QuickDocument, load
from tidegate_compiler.model import ClientRow
from tidegate_compiler.plan.revision import RevisionError, git, split
from tidegate_compiler.yamltree import Member, Node
from tidegate_schema.keys import client_id, parse_public_key
from tidegate_schema.names import is_name

_BATCH = 256
"""Contents that are in memory at once."""
_NO_BLOB = "0" * 40


@dataclass
class _Commit:
    moment: int
    blobs: dict[str, str] = field(default_factory=dict)


def timeline(inventory: str) -> Timeline:
    """Return the timeline of what the command line named: a directory in a git repository, or a revision.

    Outside of git, and for a compile output, it is an empty one. Raises RevisionError when git fails, or will not read
    the repository.
    """
    found = _place(inventory)
    return Timeline() if found is None else of_commit(*found)


def is_shallow(inventory: str) -> bool:
    """Tell whether the repository of what the command line named lacks commits, so that names of the past may too."""
    where = ("-C", inventory) if Path(inventory).is_dir() else ()
    try:
        return git(*where, "rev-parse", "--is-shallow-repository").strip() == b"true"
    except RevisionError:
        return False


def _place(inventory: str) -> tuple[str, str, str] | None:
    """Return (directory to run git in, commit, path of the inventory from the top, "" for the top itself)."""
    path = Path(inventory)
    if path.is_dir():
        try:
            top = os.fsdecode(git("-C", str(path), "rev-parse", "--show-prefix").removesuffix(b"\n"))
            commit = git("-C", str(path), "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        except RevisionError as error:
            if str(error) and not str(error).startswith("not a git repository"):
                raise  # one that git does not trust, for instance: then names are missing, which has to be told
            return None  # no repository, or one without a commit
        return str(path.resolve()), commit.decode().strip(), top.rstrip("/")
    rev, inside = split(inventory)
    try:
        commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}")
    except RevisionError:
        return None  # a tree has no history
    return str(Path.cwd()), commit.decode().strip(), inside


@functools.lru_cache(8)
def of_commit(directory: str, commit: str, path: str) -> Timeline:
    """Return the timeline that ends with a commit; a commit never changes, so it is read once.

    `directory` is any inside the repository, or a bare one; `path` the inventory's from the top. RevisionError.
    """
    clients = f"{path}/clients/" if path else "clients/"
    commits = list(_commits(directory, commit, clients))
    wanted = dict.fromkeys(blob for one in commits for blob in one.blobs.values() if blob != _NO_BLOB)
    known: dict[str, Mapping[str, str] | None] = {}
    for content in _contents(directory, list(wanted)):
        known.update((blob, _clients(data)) for blob, data in content.items())
    told = Timeline()
    for one in commits:
        files = {
            file: {} if blob == _NO_BLOB else found
            for file, blob in one.blobs.items()
            if (found := known.get(blob)) is not None or blob == _NO_BLOB
        }
        told.step(one.moment, {file: found or {} for file, found in files.items()})
    return told


def _commits(directory: str, commit: str, clients: str) -> Iterator[_Commit]:
    own = ("--no-relative", "--no-show-signature")  # whatever somebody's settings say
    words = ("--first-parent", "-m", "--reverse", "--raw", "--no-renames", "--no-abbrev", "-z", *own)
    form = "--format=tformat:%x01%ct"
    said = git("-C", directory, "log", *words, form, commit, "--", f":(top,literal){clients}")
    current: _Commit | None = None
    tokens = iter(said.split(b"\0"))
    for token in tokens:
        told = token.strip(b"\n")
        if told.startswith(b"\1"):
            if current is not None:
                yield current
            current = _Commit(int(told[1:]))
        elif told.startswith(b":") and current is not None:
            _, mode, _, blob, _ = told.decode("ascii").split(" ")
            name = os.fsdecode(next(tokens))[len(clients) :]
            if "/" not in name and name.endswith(".yaml") and not name.startswith("."):
                current.blobs[name] = blob if mode.startswith("100") else _NO_BLOB
    if current is not None:
        yield current


def _contents(directory: str, blobs: list[str]) -> Iterator[dict[str, bytes]]:
    for first in range(0, len(blobs), _BATCH):
        batch = blobs[first : first + _BATCH]
        answer = git("-C", directory, "cat-file", "--batch", given="".join(f"{b}\n" for b in batch).encode())
        found, position = {}, 0
        for blob in batch:
            start = answer.index(b"\n", position) + 1
            head = answer[position:start].split()
            if head[1:2] != [b"blob"]:
                raise RevisionError(f"git does not have the content {blob}")
            size = int(head[2])
            if size <= FILE_MAX_BYTES:
                found[blob] = answer[start : start + size]
            position = start + size + 1
        yield found


def _clients(data: bytes) -> Mapping[str, str] | None:
    """Return a file's clients, name to ID; None when it is none of an inventory.

    What is no name is left out: it was in no bundle, and could be any text.
    """
    documents, problems = load({"clients/history.yaml": data})
    if problems or not documents:
        return None
    (document,) = documents
    if isinstance(document, QuickDocument):
        rows = cast("Mapping[str, ClientRow]", document.content)
        return {name: client_id(row[0]) for name, row in rows.items() if is_name(name)}
    if not isinstance(document.root.value, dict):
        return None
    found = {}
    for name, client in document.root.value.items():
        key = _members(client.node).get("public_key")
        try:
            if key is not None and isinstance(key.node.value, str) and is_name(name):
                found[name] = client_id(parse_public_key(key.node.value))
        except ValueError:
            continue
    return found


def _members(node: Node) -> Mapping[str, Member]:
    return node.value if isinstance(node.value, dict) else {}
