"""The run, as one visible list of steps: read -> load -> check -> resolve -> render -> write.

Everything between `read` and `write` is pure: the same bytes in, the same bytes out, no clock, no network.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate_compiler import files, output
from tidegate_compiler.check import Checked, check
from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.load import Documents, load
from tidegate_compiler.model import Inventory
from tidegate_compiler.progress import stage
from tidegate_compiler.render import render
from tidegate_compiler.resolve import Fleet, resolve

if TYPE_CHECKING:
    from tidegate_compiler.cache import Cache


@dataclass(frozen=True)
class Compiled:
    """An inventory without errors, and its hosts."""

    inventory: Inventory
    fleet: Fleet
    digest: str
    documents: Documents
    diagnostics: tuple[Diagnostic, ...]

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """Return the files that the hosts are sent, by path."""
        with _without_collector():
            stage("rendering")
            return render(self.fleet, self.digest)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Spare Python's cycle collector a walk over millions of values that all stay, again and again as they grow."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def validate_files(
    content: Mapping[str, bytes],
    unreadable: list[Diagnostic] | None = None,
    at: int | None = None,
    careful: Collection[str] = (),
    like: Documents = (),
    cache: Cache | None = None,
) -> Checked:
    """Judge an inventory given as {path: bytes}; see `check` for `at`, `load` for the others."""
    with _without_collector():
        documents, problems = load(content, careful, like, cache)
        while True:
            stage("checking")
            checked = check(documents, [*(unreadable or []), *problems], content, at)
            if not checked.rough:
                return checked
            again, more = load({file: content[file] for file in checked.rough}, checked.rough)
            exact = {document.file: document for document in again}
            # Each round leaves fewer documents that were read the fast way, so this ends.
            documents = tuple(
                exact.get(d.file, d) for d in documents if d.file in exact or d.file not in checked.rough
            )
            problems = [*problems, *more]


def compile_files(
    content: Mapping[str, bytes],
    unreadable: list[Diagnostic] | None = None,
    like: Compiled | None = None,
    cache: Cache | None = None,
) -> Compiled | Checked:
    """Compile an inventory given as {path: bytes}; what comes back as Checked has errors.

    What it shares with `like`, another one that is compiled already, is not made again.
    """
    checked = validate_files(content, unreadable, like=like.documents if like else (), cache=cache)
    if checked.inventory is None:
        return checked
    with _without_collector():
        stage("resolving")
        fleet = resolve(checked.inventory, checked.grants, like.fleet if like else None)
    return Compiled(checked.inventory, fleet, files.digest(content), checked.documents, checked.diagnostics)


def validate(
    root: Path, at: int | None = None, careful: Collection[str] = (), cache: Cache | None = None
) -> Checked:
    """Judge an inventory on disk. Raises OSError when `root` is no readable directory."""
    content, unreadable = files.read(root)
    return validate_files(content, unreadable, at, careful, cache=cache)


def compile_inventory(root: Path, cache: Cache | None = None) -> Compiled | Checked:
    """Compile an inventory on disk. Raises OSError when `root` is no readable directory."""
    content, unreadable = files.read(root)
    return compile_files(content, unreadable, cache=cache)


def write(compiled: Compiled, out: Path) -> output.Written:
    """Make `out` hold exactly these files; OutputError when it is somebody else's directory."""
    return output.write(out, compiled.files)
