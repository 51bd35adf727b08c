"""Each write as a pure edit: a snapshot in, the files that change and what the commit says out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate_compiler.diagnostics import Where, did_you_mean, show
from tidegate_compiler.edit import add, remove
from tidegate_compiler.edit.change import Change, EditError
from tidegate_compiler.edit.remove import Loss
from tidegate_compiler.edit.survey import KINDS as FOLDERS
from tidegate_compiler.edit.update import update as edit_update
from tidegate_compiler.files import FILE_MAX_BYTES
from tidegate_control.inventory.errors import Exists, Invalid, NotFound, Refused
from tidegate_control.inventory.model import KINDS, OVERLAY
from tidegate_control.inventory.shape import refuse
from tidegate_control.inventory.sheets import Sheet
from tidegate_control.inventory.snapshot import Snapshot

Given = Mapping[str, Any]


@dataclass(frozen=True)
class Edit:
    """The change, the subject of its commit, and where the object will be: to find its name afterwards."""

    change: Change
    subject: str
    name: str = ""
    test: tuple[str, int] | None = None
    losses: tuple[Loss, ...] = ()

    def name_in(self, snapshot: Snapshot) -> str:
        """Return the object's name after the edit: that of a test follows from what it says."""
        sheet = snapshot.sheet(self.test[0]) if self.test else None
        return sheet.names[self.test[1]] if self.test and sheet else self.name


def create(snapshot: Snapshot, kind: str, name: str, fields: Given, file: str | None) -> Edit:
    """Add an object. A test has no name of its own: what is given as such counts for nothing."""
    _known(kind)
    if kind == OVERLAY:
        raise Exists("the overlay is there already, once; update it")
    if kind != "test":
        try:
            add.check_name(name)
        except ValueError as error:
            raise Invalid(f"{kind} {show(name)}: {error}") from None
        if name in snapshot.objects(kind):
            where = snapshot.survey().place(kind, name)
            raise Exists(f"{where}: {kind} {name} is there already; choose another name")
    refuse(kind, name, fields, Where(f"{FOLDERS[kind]}/{name}.yaml"))
    try:
        added = add.add(snapshot.files, snapshot.survey(), kind, name, fields, file)
    except EditError as error:
        raise Refused(str(error)) from None
    where, label = added.places[0]
    if kind != "test":
        return Edit(_bounded(added.change), f"{label}: add", name)
    sheet = snapshot.sheet(where.file)
    position = len(sheet.names) if sheet else 0
    return Edit(_bounded(added.change), f"test in {where.file}: add", test=(where.file, position))


def update(snapshot: Snapshot, kind: str, name: str, fields: Given) -> Edit:
    """Replace an object's fields."""
    sheet = _sheet(snapshot, kind, name)
    before = sheet.read(name).fields
    refuse(kind, name, fields, sheet.where(name))
    step = sheet.index(name) if kind == "test" else name
    try:
        change = edit_update(snapshot.files, sheet.file, step, fields)
    except EditError as error:
        raise Refused(str(error)) from None
    changed = [field for field in [*before, *fields] if before.get(field) != fields.get(field)]
    subject = f"{_label(kind, name, sheet)}: change {', '.join(dict.fromkeys(changed)) or 'nothing'}"
    test = (sheet.file, sheet.index(name)) if kind == "test" else None
    return Edit(_bounded(change), subject, "" if test else name, test)


def delete(snapshot: Snapshot, kind: str, name: str, cascade: bool) -> Edit:
    """Take an object out, and every mention of it."""
    sheet = _sheet(snapshot, kind, name)
    if kind == OVERLAY:
        raise Refused("an inventory without overlay.yaml is none; update it")
    where = sheet.where(name)
    target = f"{where.file}:{where.line}" if kind == "test" else name
    try:
        removal = remove.remove(snapshot.files, snapshot.survey(), kind, target, cascade)
    except EditError as error:
        raise Refused(str(error)) from None
    if not cascade and any(loss.needs_cascade for loss in removal.losses):
        raise Refused(
            f"more would go than {kind} {name} and mere mentions of it; cascade removes it all",
            losses=removal.losses,
        )
    return Edit(removal.change, f"{_label(kind, name, sheet)}: remove", name, losses=removal.losses)


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise NotFound(f"there is no kind {show(kind)}{did_you_mean(kind, KINDS)}")


def _sheet(snapshot: Snapshot, kind: str, name: str) -> Sheet:
    _known(kind)
    found = snapshot.place(kind, name)
    if found is None:
        raise NotFound(f"there is no {kind} {show(name)}")
    return found


def _label(kind: str, name: str, sheet: Sheet) -> str:
    return OVERLAY if kind == OVERLAY else f"test in {sheet.file}" if kind == "test" else f"{kind} {name}"


def _bounded(change: Change) -> Change:
    for path, data in change.files.items():
        if data is not None and len(data) > FILE_MAX_BYTES:
            raise Refused(f"{path}: would be larger than {FILE_MAX_BYTES} bytes; choose another file")
    return change
