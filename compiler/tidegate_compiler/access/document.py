"""The survey as `--format json` prints it: schemas/access.schema.json. The table and the picture are made from it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from tidegate_compiler.access.survey import Entry, Row, Survey, gateways_of
from tidegate_compiler.diagnostics import Where, show_path
from tidegate_compiler.plan.regions import FOREVER
from tidegate_compiler.plan.words import port_text, prefixes
from tidegate_compiler.times import format_instant

FORMAT = 1


def document(survey: Survey, root: str) -> dict[str, Any]:
    """Return the whole survey; `root` is the inventory's directory as the command line named it."""
    inventory = survey.inventory
    prefix = show_path(root.rstrip("/")) + "/"
    return {
        "format": FORMAT,
        "fleet": inventory.overlay.fleet,
        "at": None if survey.at is None else format_instant(survey.at),
        "resources": [
            {
                "name": name,
                "addresses": [str(at.value) for at in inventory.resources[name].addresses],
                "ports": _texts(inventory.resources[name].ports),
                "gateways": list(gateways_of(inventory, name)),
                **_place(inventory.resources[name].where, prefix),
            }
            for name in survey.resources
        ],
        "rows": [_row(survey, row, prefix) for row in survey.rows],
    }


def _texts(ports: Any) -> list[str] | None:
    return None if ports is None else [at.value for at in ports]


def _place(where: Where, prefix: str) -> dict[str, Any]:
    return {"file": prefix + show_path(where.file), "line": where.line}


def _row(survey: Survey, row: Row, prefix: str) -> dict[str, Any]:
    return {
        "clients": list(row.clients),
        "group": row.group,
        "resources": [
            {
                "resource": cell.resource,
                "reach": cell.reach,
                "partial": list(cell.ways),
                "beyond_ports": cell.beyond,
                "access": [_entry(survey, entry, prefix) for entry in cell.entries],
            }
            for cell in row.cells.values()
        ],
        "elsewhere": [_entry(survey, entry, prefix) for entry in row.elsewhere],
    }


def _entry(survey: Survey, entry: Entry, prefix: str) -> dict[str, Any]:
    begin, end = entry.time
    timed = survey.at is None
    return {
        "to": [str(one) for family, to in entry.to for one in prefixes(family, to)],
        "ports": list(dict.fromkeys(port_text(*ports) for ports in entry.ports)),
        "not_before": format_instant(begin) if timed and begin else None,
        "expires": format_instant(end) if timed and end < FOREVER else None,
        "policies": [
            {"name": name, **_place(survey.inventory.policies[name].where, prefix)} for name in entry.policies
        ],
    }


def ranges(texts: Iterable[str]) -> list[str]:
    """Return prefixes in order as people read them: neighbours that make up no prefix as FIRST-LAST."""
    joined: list[list[Any]] = []
    for network in map(ipaddress.ip_network, texts):
        last = joined[-1] if joined else None
        if last and last[0].version == network.version and int(last[1]) + 1 == int(network.network_address):
            last[1], last[2] = network.broadcast_address, ""
        else:
            joined.append([network.network_address, network.broadcast_address, str(network)])
    return [text or f"{first}-{last}" for first, last, text in joined]
