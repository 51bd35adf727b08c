"""An inventory as it stands in a git revision, read with git's plumbing; never a checkout, never a filter.

    git rev-parse REV^{tree}  ->  git ls-tree -r -t  ->  git cat-file --batch

What is refused on disk is refused here by the same names: the listing is judged as `tidegate_compiler.files` judges
directories. `git archive` would not do: it follows .gitattributes, so a pull request could hide a file from it.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from tidegate_compiler.diagnostics import Diagnostic, Where, did_you_mean, show
from tidegate_compiler.files import FILE_MAX_BYTES, INVENTORY_INSIDE, KINDS, OVERLAY_FILE

DEFAULT_PATH = "inventory"
_TIMEOUT = 120
_LIKE_YAML = (".yaml", ".yml")
_LINK, _FILE = "120000", "100"


class RevisionError(Exception):
    """There is no such revision or path, or no repository; one line."""


class Entry(NamedTuple):
    """A file or directory in a listing: its git mode, object ID, size in bytes, and path from the listing's top."""

    mode: str
    sha: str
    size: int
    path: str


Ask: TypeAlias = Callable[..., bytes]
"""Runs a git command as `git` below does."""


def read(name: str) -> tuple[str, dict[str, bytes], list[Diagnostic]]:
    """Return (path in the repository, files by path relative to it, problems) of REV or REV:path."""
    rev, path = split(name)
    if not rev or rev.startswith("-") or "\0" in name or ".." in path.split("/"):
        raise RevisionError("neither a directory nor a git revision; write REV or REV:path")
    commit = _resolve(f"{rev}^{{tree}}", "no such directory, and no such git revision")
    tree = _resolve(f"{commit}:{path}", _lacks(rev, path)) if path else commit
    if git("cat-file", "-t", tree).strip() != b"tree":
        raise RevisionError(f"{show(path)} is no directory in that revision")
    wanted, problems = judged(tree)
    return path or ".", contents(wanted), problems


def judged(tree: str, ask: Ask | None = None) -> tuple[list[Entry], list[Diagnostic]]:
    """Return the files of a tree that an inventory consists of, in order of path, and what is wrong with others."""
    entries = sorted(_listing(tree, ask or git), key=lambda entry: entry.path)
    wanted: list[Entry] = []
    problems = [problem for entry in entries for problem in _judge(entry, entries, wanted)]
    return wanted, problems


def _lacks(rev: str, path: str) -> str:
    top = show(f"{rev}:")
    return f"the revision has no {show(path)}; write REV:path, or {top} if its top is the inventory"


def split(name: str) -> tuple[str, str]:
    """Return (revision, path from the top of the repository, "" for the top itself).

    A revision may hold colons inside braces, as in main@{2026-01-01 12:00} or HEAD^{/fix: it}: as git does, the path
    begins after the first one outside (gitrevisions(7)). `REV:` and `REV:.` are the top.
    """
    depth = 0
    for position, char in enumerate(name):
        if char == "{" or (char == "}" and depth):
            depth += 1 if char == "{" else -1
        elif char == ":" and depth == 0:
            steps = name[position + 1 :].split("/")
            return name[:position], "/".join(step for step in steps if step not in ("", "."))
    return name, DEFAULT_PATH


def _resolve(expression: str, otherwise: str) -> str:
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", expression).decode().strip()
    except RevisionError as error:
        raise RevisionError(str(error) or otherwise) from None


def git(*args: str, given: bytes = b"") -> bytes:
    """Return what git prints for plumbing words; RevisionError with its first line when it refuses."""
    environment = {**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "--no-pager", "--no-replace-objects", *args],
            input=given,
            capture_output=True,
            env=environment,
            timeout=_TIMEOUT,
        )
    except FileNotFoundError:
        raise RevisionError("neither a directory, nor is git installed to read a revision") from None
    except subprocess.TimeoutExpired:
        raise RevisionError(f"git {args[0]} took longer than {_TIMEOUT} s") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        told = lines[0].removeprefix("fatal: ") if lines else ""
        raise RevisionError("".join(char if " " <= char <= "~" else "?" for char in told[:200]))
    return done.stdout


def _listing(tree: str, ask: Ask) -> Iterable[Entry]:
    for line in ask("ls-tree", "-r", "-t", "-l", "-z", "--full-tree", tree).split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, _, sha, size = head.split()
            yield Entry(mode.decode(), sha.decode(), int(size) if size != b"-" else 0, os.fsdecode(path))


def _judge(entry: Entry, entries: list[Entry], wanted: list[Entry]) -> Iterable[Diagnostic]:
    """Yield what is wrong with an entry of the listing, and note it in `wanted` when it is to be read."""
    parts = entry.path.split("/")
    name = parts[-1]
    if any(part.startswith(".") for part in parts) or len(parts) > 2:
        return
    if len(parts) == 1:
        yield from _top(entry, entries, wanted)
    elif parts[0] not in KINDS:
        return
    elif name.endswith(".yaml"):
        yield from _file(entry, wanted)
    elif entry.mode == _LINK:
        yield _symlink(entry.path)
    elif not entry.mode.startswith(_FILE):
        yield _unexpected(entry.path, "a directory inside a kind is not read; move its files up")
    elif _is_yaml_like(name) or name.lower().endswith(".json"):
        yield _unexpected(entry.path, "only *.yaml is read; rename it")


def _top(entry: Entry, entries: list[Entry], wanted: list[Entry]) -> Iterable[Diagnostic]:
    name = entry.path
    if name in KINDS:
        if entry.mode == _LINK:
            yield _symlink(name)
        elif entry.mode.startswith(_FILE):
            yield Diagnostic(Where(name), "TG001", "cannot be read: Not a directory")
    elif name == OVERLAY_FILE:
        yield from _file(entry, wanted)
    elif entry.mode == _LINK or entry.mode.startswith(_FILE):
        if _is_yaml_like(name):
            told = f"at the top only {OVERLAY_FILE} is read; move it under its kind"
            yield _symlink(name) if entry.mode == _LINK else _unexpected(name, told)
    else:
        hint = did_you_mean(name, KINDS)
        below = _below(name, entries)
        if OVERLAY_FILE in below and not hint:
            yield _unexpected(name, INVENTORY_INSIDE)
        elif hint or any(_is_yaml_like(one) and "/" not in one and one[0] != "." for one in below):
            yield _unexpected(name, f"no kind is called {show(name)}{hint or '; kinds: ' + ', '.join(KINDS)}")


def _below(name: str, entries: Sequence[Entry]) -> set[str]:
    """Return the paths below a directory, of entries in order of path: there they stand together."""
    top = f"{name}/"
    first = bisect_left(entries, top, key=lambda entry: entry.path)
    inner = itertools.takewhile(
        lambda entry: entry.path.startswith(top), map(entries.__getitem__, range(first, len(entries)))
    )
    return {entry.path.removeprefix(top) for entry in inner}


def _file(entry: Entry, wanted: list[Entry]) -> Iterable[Diagnostic]:
    if entry.mode == _LINK:
        yield _symlink(entry.path)
    elif not entry.mode.startswith(_FILE):
        yield Diagnostic(Where(entry.path), "TG001", "cannot be read: Is a directory")
    elif entry.size > FILE_MAX_BYTES:
        told = f"larger than {FILE_MAX_BYTES} bytes; split it into files"
        yield Diagnostic(Where(entry.path), "TG001", told)
    else:
        wanted.append(entry)


def contents(wanted: Sequence[Entry], ask: Ask | None = None) -> dict[str, bytes]:
    """Return the bytes of these files by path."""
    answer = (ask or git)("cat-file", "--batch", given="".join(f"{entry.sha}\n" for entry in wanted).encode())
    found: dict[str, bytes] = {}
    position = 0
    for entry in wanted:
        start = answer.index(b"\n", position) + 1
        if answer[position:start].split()[1:] != [b"blob", str(entry.size).encode()]:
            raise RevisionError(f"git does not have the content of {show(entry.path)}")
        found[entry.path] = answer[start : start + entry.size]
        position = start + entry.size + 1
    return found


def _is_yaml_like(name: str) -> bool:
    return name.lower().endswith(_LIKE_YAML)


def _symlink(path: str) -> Diagnostic:
    return Diagnostic(Where(path), "TG002", "a symbolic link; put the file itself here")


def _unexpected(path: str, message: str) -> Diagnostic:
    return Diagnostic(Where(path), "TG004", message)
