"""A proposal: what somebody has in mind, on the inventory as it is. Nothing is written.

`edits` are made one after the other, as the API's own writes would be; `files` are the inventory's files as a pull
request would have them, null for one that goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate_compiler.diagnostics import show
from tidegate_compiler.files import KINDS as FOLDERS
from tidegate_compiler.files import OVERLAY_FILE
from tidegate_compiler.pipeline import Compiled
from tidegate_control import problems
from tidegate_control.api import kinds, objects, shape
from tidegate_control.api.operation import Schema
from tidegate_control.git.repository import Content
from tidegate_control.inventory import edits
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.problems import named

MOST_EDITS, MOST_FILES = 100, 1000
_BY_PATH = {kind.path: kind for kind in kinds.EVERY}


def schema() -> Schema:
    """Return the schema of a proposal."""
    path = {"enum": [kind.path for kind in kinds.KINDS], "type": "string"}
    every = {"enum": [*_BY_PATH], "type": "string"}
    name = {"type": "string", "maxLength": 63}
    return {
        "type": "object",
        "additionalProperties": False,
        "minProperties": 1,
        "properties": {
            "edits": {
                "type": "array",
                "maxItems": MOST_EDITS,
                "items": {
                    "oneOf": [
                        _edit("create", {"kind": path, "object": {"type": "object"}}),
                        _edit("replace", {"kind": every, "object": {"type": "object"}}, {"name": name}),
                        _edit("delete", {"kind": path, "name": name}, {"cascade": {"type": "boolean"}}),
                    ]
                },
            },
            "files": {
                "type": "object",
                "maxProperties": MOST_FILES,
                "additionalProperties": {"type": ["string", "null"]},
                "description": "The inventory's files by path, such as clients/team.yaml; null takes one out.",
            },
        },
    }


def _edit(op: str, required: Mapping[str, Schema], more: Mapping[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["op", *required],
        "properties": {"op": {"const": op}, **required, **(more or {})},
    }


def propose(base: Snapshot, body: Any) -> Snapshot:
    """Return the inventory as it would be; it may have errors. InventoryError, Problem 422."""
    shape.check(schema(), body)
    after = _with_files(base, body["files"]) if "files" in body else base
    for position, edit in enumerate(body.get("edits", ())):
        after = _with_edit(after, edit, position)
    return after


def compiled(snapshot: Snapshot) -> Compiled:
    """Return a snapshot's hosts. Problem 409 when it has errors: whoever asked is not the one to blame."""
    found = snapshot.compiled
    if found is None:
        raise named(
            409,
            "inventory-has-errors",
            "The inventory has errors",
            "mend them first; nothing is compiled of an inventory with errors",
            **problems.diagnostics(snapshot.checked.diagnostics),
        )
    return found


def _with_files(base: Snapshot, files: Mapping[str, str | None]) -> Snapshot:
    for path in files:
        if not _is_read(path):
            error = shape.error(("files", path), "no file of an inventory; for instance clients/team.yaml")
            raise shape.refused(
                f"{show(path)}: no file of an inventory; for instance clients/team.yaml", [error]
            )
    return _changed(base, {path: None if text is None else text.encode() for path, text in files.items()})


def _is_read(path: str) -> bool:
    """Tell whether a path is one at which an inventory's files are read."""
    folder, _, name = path.partition("/")
    if path == OVERLAY_FILE:
        return True
    return (
        folder in FOLDERS
        and name.endswith(".yaml")
        and name[0] != "."
        and "/" not in name
        and name.isprintable()
    )


def _with_edit(base: Snapshot, edit: Mapping[str, Any], position: int) -> Snapshot:
    kind = _BY_PATH.get(edit["kind"])
    if kind is None or (kind is kinds.THE_OVERLAY and edit["op"] != "replace"):
        error = shape.error(("edits", position, "kind"), f"is one of {', '.join(_BY_PATH)}")
        raise shape.refused(error["message"], [error])
    if edit["op"] == "delete":
        made = edits.delete(base, kind.kind, edit["name"], edit.get("cascade", False))
    elif edit["op"] == "create":
        shape.check(objects.new_schema(kind), edit["object"])
        fields = dict(edit["object"])
        made = edits.create(base, kind.kind, fields.pop("name", ""), fields, fields.pop("file", None))
    else:
        fields, _ = kinds.split(kind, edit["object"])
        shape.check(kind.schema, fields)
        name = kind.kind if kind is kinds.THE_OVERLAY else edit.get("name", "")
        made = edits.update(base, kind.kind, name, fields)
    return _changed(base, made.change.files)


def _changed(base: Snapshot, files: Mapping[str, bytes | None]) -> Snapshot:
    """Return the inventory with some files new, changed or gone."""
    kept = {path: data for path, data in base.files.items() if path not in files}
    new = {path: data for path, data in files.items() if data is not None}
    blobs = {path: blob for path, blob in base.content.blobs.items() if path not in files}
    content = Content(dict(sorted({**kept, **new}.items())), blobs, base.content.problems)
    return Snapshot.of(base.commit, content, base)
