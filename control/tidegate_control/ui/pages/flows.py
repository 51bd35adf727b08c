"""Flows: what the gateways have told of, filtered, over time; and what each gateway's account says."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from tidegate_control.intake.store import (
    NS,
    Account,
    EventStore,
    Filters,
    FlowGroup,
    Flows,
    Page,
    StoreError,
    Window,
)
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.ui import drawing
from tidegate_control.ui.visit import Visit
from tidegate_schema import validation

WINDOWS = {
    "1h": ("an hour", 3600),
    "24h": ("a day", 86400),
    "7d": ("a week", 7 * 86400),
    "30d": ("30 days", 30 * 86400),
}
DEFAULT_WINDOW = "24h"
BUCKETS = 48
PAGE = 50
OF_POLICY = 10
FIELDS = ("client", "to", "port", "verdict", "reason", "gateway", "policy")
REASONS: tuple[str, ...] = tuple(validation.schema("event")["properties"]["event.reason"]["enum"])
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp"}
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True)
class Row:
    """A group of flows as people read it; `client` is None for packets that are no known client's."""

    client: str | None
    client_id: str
    destination: str
    port: str
    verdict: str
    reason: str
    rule: str
    gateway: str
    first: int
    last: int
    count: int
    bytes: int


def flows(visit: Visit) -> Response:
    """Show flows."""
    asked = {name: visit.query.get(name, "").strip()[:200] for name in FIELDS}
    span = visit.query.get("span", DEFAULT_WINDOW)
    span = span if span in WINDOWS else DEFAULT_WINDOW
    number = visit.query.get("page", "1")
    page = int(number) if number.isascii() and number.isdecimal() and len(number) < 6 and int(number) else 1
    events: EventStore = visit.services.events
    window = Window.last(WINDOWS[span][1], time.time())
    problem, found, bars, denied = "", Flows([], False), [], []
    try:
        filters = filters_of(asked, visit.snapshot)
        found = events.flows(window, filters, Page(PAGE, (page - 1) * PAGE))
        bars = [
            drawing.Bar(bucket.start_ns // NS, bucket.allowed, bucket.denied)
            for bucket in events.timeline(window, filters, BUCKETS)
        ]
        denied = events.top_denied(window, 10)
    except ValueError as error:
        problem = str(error)
    except StoreError as error:
        problem = f"the events are not to be had: {error}"
    title = f"Flows allowed and denied, {BUCKETS} parts of {WINDOWS[span][0]}"
    return visit.page(
        "flows.html",
        422 if problem else 200,
        asked=asked,
        span=span,
        spans=WINDOWS,
        reasons=REASONS,
        problem=problem,
        flows=rows(found.rows, visit),
        more=found.more,
        number=page,
        bars=bars,
        chart=drawing.chart(bars, title),
        denied=rows(denied, visit),
        params={**asked, "span": span},
    )


def of_policy(visit: Visit, policy: str) -> list[Row]:
    """Return the latest flows of a week that a policy decided; none where the events are not to be had."""
    try:
        found = visit.services.events.flows(
            Window.last(WINDOWS["7d"][1], time.time()), Filters(rule=policy), Page(OF_POLICY)
        )
    except (StoreError, ValueError):
        return []
    return rows(found.rows, visit)


def accounts(visit: Visit) -> Mapping[str, Account]:
    """Return each gateway's account by its name; none where the events are not to be had."""
    try:
        return {account.gateway: account for account in visit.services.events.accounts()}
    except StoreError:
        return {}


def filters_of(asked: Mapping[str, str], snapshot: Snapshot) -> Filters:
    """Return what a form asks for; ValueError in one line for what makes no sense."""
    protocol, port = _port(asked["port"])
    return Filters(
        gateway=asked["gateway"] or None,
        client_id=_client(asked["client"], snapshot),
        destination=asked["to"] or None,
        protocol=protocol,
        port=port,
        verdict=asked["verdict"] or None,
        reason=asked["reason"] or None,
        rule=asked["policy"] or None,
    )


def _client(text: str, snapshot: Snapshot) -> str | None:
    """Return the ID of a client that is named, or the text, which may be an ID of one that is gone."""
    if not text:
        return None
    known = snapshot.objects("client")
    return known[text].client_id or text if text in known else text


def _port(text: str) -> tuple[int | None, int | None]:
    """Read tcp/443, icmp or proto/47 as protocol and port."""
    if not text:
        return None, None
    word, _, number = text.partition("/")
    is_number = number.isascii() and number.isdecimal() and len(number) < 6
    if word in _NUMBERS and (is_number or not number):
        return _NUMBERS[word], int(number) if number else None
    if word == "proto" and is_number:
        return int(number), None
    if text == "icmp":
        return 1, None
    if text == "icmpv6":
        return 58, None
    raise ValueError("write a port as tcp/443, udp/53, icmp, icmpv6 or proto/47")


def rows(groups: Sequence[FlowGroup], visit: Visit) -> list[Row]:
    """Return groups of flows with the names of their clients."""
    names = visit.names_by_id if groups else {}
    return [
        Row(
            names.get(group.client_id),
            group.client_id,
            group.destination,
            _port_text(group.protocol, group.port),
            group.verdict,
            group.reason,
            group.rule,
            group.gateway,
            group.first_ns // NS,
            group.last_ns // NS,
            group.count,
            group.bytes,
        )
        for group in groups
    ]


def _port_text(protocol: int, port: int) -> str:
    word = _PROTOCOLS.get(protocol)
    if word is None:
        return f"proto/{protocol}"
    return f"{word}/{port}" if protocol in _NUMBERS.values() else word
