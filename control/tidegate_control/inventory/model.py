"""The values that the inventory service takes and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.edit.remove import Loss
from tidegate_compiler.plan.plan import Plan

if TYPE_CHECKING:
    from tidegate_control.inventory.snapshot import Snapshot

KINDS = ("client", "gateway", "group", "resource", "policy", "test", "overlay")
OVERLAY = "overlay"
"""The kind of `overlay.yaml`, and the name of its one object."""
Fields = dict[str, Any]
"""An object's fields as JSON has them."""


@dataclass(frozen=True)
class Author:
    """Who a commit is by. Whatever git has no place for in a name (controls, `<`, `>`) is left out of it."""

    name: str
    email: str


@dataclass(frozen=True)
class Object:
    """An object as it is written: `fields` are its JSON values, `file` is relative to the inventory, `line` from 1.

    `client_id` is there for clients whose key can be read; nobody writes it.
    """

    kind: str
    name: str
    fields: Fields
    file: str
    line: int
    client_id: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a write did, or with `dry_run` would do.

    `commit` is None for a dry run and for a write that changes nothing. `revision` is what the next `expected` is: the
    new commit, or the one that was looked at. `plan` is None where it was not asked for or a side has errors.
    `name` is the object's name afterwards: that of an access test follows from what it says. `warnings` are those that
    were not there before; `losses` what a delete takes out; `branch` the branch that waits for review, if any.
    """

    commit: str | None
    revision: str
    plan: Plan | None
    snapshot: Snapshot
    name: str = ""
    warnings: tuple[Diagnostic, ...] = ()
    losses: tuple[Loss, ...] = ()
    diff: tuple[str, ...] = ()
    branch: str | None = None


@dataclass(frozen=True)
class Entry:
    """A commit in the history: `when` in Unix seconds; `files` relative to the inventory; every text printable."""

    commit: str
    name: str
    email: str
    when: int
    subject: str
    files: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Released:
    """The commit that was published last, and whether the inventory is still what it was there."""

    entry: Entry
    is_current: bool
