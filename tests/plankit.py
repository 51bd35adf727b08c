"""Plans of small inventories for the tests: {path: bytes} of two sides in, the plan or its document out."""

from __future__ import annotations

import ipaddress
from typing import Any

from compilerkit import compiled
from tidegate_compiler.plan.document import document
from tidegate_compiler.plan.plan import Plan, plan
from tidegate_compiler.plan.source import Content, Side, of_compiled
from tidegate_schema import validation
from tidegate_schema.ports import PORTED_NUMBERS, parse_ports


def side(files: dict[str, bytes], root: str = "inv") -> Side:
    return of_compiled(Content(root, root, files, []), compiled(files))


def planned(old: dict[str, bytes], new: dict[str, bytes]) -> Plan:
    return plan(side(old), side(new))


def told(old: dict[str, bytes], new: dict[str, bytes]) -> dict[str, Any]:
    """Return the plan's document; it keeps its schema."""
    found = document(planned(old, new))
    assert validation.errors("plan", found) == []
    return found


def policies_only(documents: dict[str, Any], names: dict[str, str]) -> Side:
    """Return a side of which nothing is known but its gateways' policies."""
    return Side("side", "side", {}, documents, names, None)


def holds(text: str, family: int, protocol: int, port: int) -> bool:
    """Tell whether a written form of ports, as a plan writes it, admits a packet."""
    kind, _, numbers = text.partition("/")
    if kind == "proto" and "-" in numbers:
        first, last = map(int, numbers.split("-"))
        return first <= protocol <= last
    ports = parse_ports(text, family)
    ported = protocol in PORTED_NUMBERS
    return ports.protocol in (-1, protocol) and (not ported or ports.first <= port <= ports.last)


def covers(access: dict[str, Any], client: str, to: Any, protocol: int, port: int, at: str) -> bool:
    """Tell whether a difference of the document holds a packet; `at` is a UTC time as it is written there."""
    return (
        any(one["client_id"] == client for one in access["clients"])
        and any(to in ipaddress.ip_network(prefix) for prefix in access["to"])
        and any(holds(text, to.version, protocol, port) for text in access["ports"])
        and (access["not_before"] or "") <= at < (access["expires"] or "z")
    )
