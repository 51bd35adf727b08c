"""The plan as `--format json` prints it: schemas/plan.schema.json. Text and Markdown are made from it, too."""

from __future__ import annotations

from typing import Any

from tidegate_compiler.plan.objects import ObjectChange
from tidegate_compiler.plan.plan import Plan
from tidegate_compiler.plan.source import Side
from tidegate_compiler.plan.words import Access, Told, Witness
from tidegate_compiler.times import format_instant

FORMAT = 1


def document(plan: Plan) -> dict[str, Any]:
    """Return the whole plan; nothing is left out, and nothing is escaped but by JSON itself."""
    return {
        "format": FORMAT,
        "old": _side(plan.old),
        "new": _side(plan.new),
        "changes": not plan.is_empty,
        "access": {"gained": list(map(_access, plan.gained)), "lost": list(map(_access, plan.lost))},
        "limits": [
            {"name": one.name, "value": one.value, "limit": one.limit, "message": one.message}
            for one in plan.exceeded
        ],
        "bundles": [
            {
                "kind": bundle.kind,
                "host": bundle.host,
                "change": bundle.change,
                "files": [
                    {"file": one.file, "change": one.change, "parts": list(one.parts)} for one in bundle.files
                ],
            }
            for bundle in plan.bundles
        ],
        "objects": None if plan.objects is None else [_object(plan, one) for one in plan.objects],
    }


def _side(side: Side) -> dict[str, Any]:
    return {"name": _text(side.title), "is": "output" if side.inventory is None else "inventory"}


def _text(text: str) -> str:
    """Return a file's or side's name with undecodable bytes escaped, so that it can be encoded anywhere."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _object(plan: Plan, one: ObjectChange) -> dict[str, Any]:
    side = plan.old if one.change == "removed" else plan.new
    return {
        "kind": one.kind,
        "name": one.name,
        "change": one.change,
        "was": one.was,
        "file": _text(side.place(one.where) or ""),
        "line": one.where.line,
        "fields": [
            {"field": field.field, "removed": list(field.removed), "added": list(field.added)}
            for field in one.fields
        ],
    }


def _access(one: Access) -> dict[str, Any]:
    return {
        "clients": [
            {"name": client.name, "client_id": client.client_id, "new_key": client.new_key}
            for client in one.clients
        ],
        "group": one.group,
        "to": list(one.to),
        "ports": list(one.ports),
        "not_before": _instant(one.not_before),
        "expires": _instant(one.expires),
        "policy": _told(one.policy),
        "denied_by": None if one.denied_by is None else _told(one.denied_by),
        "witnesses": list(map(_witness, one.witnesses)),
    }


def _told(told: Told) -> dict[str, Any]:
    return {
        "name": told.policy,
        "file": None if told.file is None else _text(told.file),
        "line": told.line,
    }


def _witness(one: Witness) -> dict[str, Any]:
    return {
        "client": one.client,
        "client_id": one.client_id,
        "destination": one.destination,
        "port": one.port,
        "at": _instant(one.at),
    }


def _instant(second: int | None) -> str | None:
    return None if second is None else format_instant(second)
