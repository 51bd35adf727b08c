"""The comment on a pull request: the plan of a change, and beside each access gained or lost who used it lately. Pure.

    plan(OLD, NEW).access ──► each entry, with the recorded flows that are inside it ──► Markdown

So a reviewer reads in one table what a change allows or forbids, and whether anybody is going to notice.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from tidegate_compiler.learn import replaytext
from tidegate_compiler.learn.replay import Evidence, Key, Replayed
from tidegate_compiler.model import Network
from tidegate_compiler.networks import contains
from tidegate_compiler.plan import document as plandoc
from tidegate_compiler.plan.limits import DEFAULT, Limits
from tidegate_compiler.plan.markdown import code, markdown
from tidegate_compiler.plan.plan import plan
from tidegate_compiler.plan.source import Side
from tidegate_compiler.report import counted
from tidegate_compiler.times import format_instant
from tidegate_schema.ports import ANY_PROTOCOL, parse_ports

NONE = "none in this time"


def comment(old: Side, new: Side, done: Replayed, told: dict[str, Any], limits: Limits = DEFAULT) -> str:
    """Return the comment; `done` is the replay of NEW against OLD, and `told` its document."""
    document = plandoc.document(plan(old, new, limits))
    names = {**old.names, **new.names}
    used: set[Key] = set()
    for kind, passes in (("gained", True), ("lost", False)):
        mine = {key: one for key, one in done.changes.items() if key.passes == passes}
        for entry in document["access"][kind]:
            found = {key: one for key, one in mine.items() if _is_in(key, entry, names)}
            used.update(found)
            entry["recorded"] = _recorded(found)
    left = {key: one for key, one in done.changes.items() if key not in used}
    return markdown(document, _notes(told, left))


def _is_in(key: Key, entry: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    who = {client["client_id"] for client in entry["clients"]} | {one["name"] for one in entry["clients"]}
    if key.client not in who and names.get(key.client) not in who:
        return False
    if not key.destination:
        return False
    address = ipaddress.ip_network(key.destination)
    return _inside(address, map(ipaddress.ip_network, entry["to"])) and any(
        _admits(text, address.version, key) for text in entry["ports"]
    )


def _inside(address: Network, prefixes: Iterable[Network]) -> bool:
    return any(contains(prefix, address) for prefix in prefixes)


def _admits(text: str, family: int, key: Key) -> bool:
    name, _, span = text.partition("/")
    if name == "proto" and "-" in span:  # several protocols, as a plan tells them
        first, last = map(int, span.split("-"))
        return first <= key.protocol <= last
    ports = parse_ports(text, family)
    if ports.protocol == ANY_PROTOCOL:
        return True
    return ports.protocol == key.protocol and ports.first <= max(key.port, 0) <= ports.last


def _recorded(found: Mapping[Key, Evidence]) -> str:
    if not found:
        return NONE
    flows = sum(one.flows for one in found.values())
    clients = len({key.client for key in found})
    last = format_instant(int(max(one.last for one in found.values())))
    return f"{counted(flows, 'flow')} of {counted(clients, 'client')}, last {last}"


def _notes(told: dict[str, Any], left: Mapping[Key, Evidence]) -> Iterable[str]:
    counts = told["counts"]
    if not counts["flows"]:
        yield "**Recorded traffic:** none, so nothing is known of what the change does to it"
        return
    shown = f"{code(told['first'])} to {code(told['last'])}"
    changed = {kind: (counts[kind], len(replaytext.clients(told[kind]))) for kind in ("breaks", "passes")}
    words = ", ".join(
        f"{counted(flows, 'flow')} of {counted(clients, 'client')} would {'break' if kind == 'breaks' else 'pass'}"
        for kind, (flows, clients) in changed.items()
        if flows
    )
    outcome = words or "nothing of it changes"
    yield f"**Recorded traffic,** {shown}, {counted(counts['flows'], 'flow')}: **{outcome}**"
    if left:
        flows = sum(one.flows for one in left.values())
        yield f"Of these {counted(flows, 'flow')} are in no row below: {code('tidegate replay')} names them"
    for caution in replaytext.cautions(told):
        yield f"Note: {code(caution)}"
