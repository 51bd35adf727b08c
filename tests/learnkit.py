"""Recorded traffic for tests: events as a gateway writes them, from its own record and encoder."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Iterable
from typing import Any

from jsonschema import Draft202012Validator

import compilerkit
from tidegate_compiler.learn import comment as comments
from tidegate_compiler.learn import replaydoc
from tidegate_compiler.learn.flows import FlowGroup, Slots, Window
from tidegate_compiler.learn.names import Names, Timeline
from tidegate_compiler.learn.records import Records
from tidegate_compiler.learn.replay import Candidate, replay
from tidegate_compiler.pipeline import Compiled
from tidegate_compiler.plan import source
from tidegate_compiler.resolve import Fleet
from tidegate_schema import event, validation
from tidegate_schema.keys import client_id
from tidegate_schema.policy import Reason

NOON = 1_795_953_600  # 2026-11-29T12:00:00Z
NS = 1_000_000_000
KINDS = {kind.name.lower().replace("_", "-"): kind for kind in event.Kind}


def id_of(label: str) -> str:
    """Return the ID of the client whose key `compilerkit.key` makes of a label."""
    return client_id(base64.b64decode(compilerkit.key(label)))


def record(
    client: str | None = "alice",
    to: str = "10.20.0.80",
    port: int | None = 443,
    protocol: int = 6,
    *,
    at: float = NOON,
    kind: str = "flow-open",
    allow: bool = True,
    reason: Reason = Reason.OBSERVED,
    octets: int = 1000,
    gateway: str = "gw",
    source: str = "10.64.0.11",
    seq: int = 0,
) -> bytes:
    """Return a line of NDJSON; `client` is a label, an ID, or None for an unknown source."""
    identifier = "" if client is None else client if len(client) == 32 else id_of(client)
    packed = (event.mapped(ipaddress.ip_address(one).packed) for one in (source, to))
    one = event.Event(
        seq=seq,
        monotonic_ns=1,
        wall_ns=int(at * NS),
        generation=1,
        rule=event.NO_RULE,
        client_id=bytes.fromhex(identifier) if identifier else event.NO_CLIENT,
        source=next(packed),
        destination=next(packed),
        source_port=50000 if port is not None else 0,
        destination_port=port or 0,
        kind=KINDS[kind],
        mode=int(reason != Reason.OBSERVED),
        verdict=int(allow),
        reason=int(reason),
        protocol=protocol,
        tcp_flags=2,
        known=event.KNOWN_ADDRESSES | (0 if port is None else event.KNOWN_PORTS),
        version=event.VERSION,
        end=0,
        packets=1,
        length=octets,
        reply_packets=0,
        reply_length=0,
        start_ns=0,
    )
    return json.dumps(event.to_json(one, gateway, "0" * 16, ())).encode() + b"\n"


def deny(*args: Any, **more: Any) -> bytes:
    """Return a refusal that was recorded in enforce."""
    return record(*args, **{"kind": "deny", "allow": False, "reason": Reason.NO_RULE} | more)


def groups(lines: Iterable[bytes], slots: Slots | None = None) -> list[tuple[int, FlowGroup]]:
    """Return the groups of lines."""
    return list(Records().groups(lines, slots or Slots(Window())))


def candidate(files: dict[str, bytes], past: Timeline | None = None) -> Candidate:
    """Return an inventory's files made ready to judge."""
    return ready(compilerkit.compiled(files).fleet, past)


def ready(fleet: Fleet, past: Timeline | None = None) -> Candidate:
    """Return a fleet made ready to judge."""
    names: Names = (past or Timeline()).end(fleet.ids)
    return Candidate(fleet, names)


def right(kind: str, document: dict[str, Any]) -> dict[str, Any]:
    """Return a document, once its schema has accepted it as JSON has it."""
    said: dict[str, Any] = json.loads(json.dumps(document))
    Draft202012Validator(validation.schema(kind)).validate(said)
    return said


def comment(old: Compiled, new: Compiled, lines: list[bytes]) -> str:
    """Return the comment on a change of which these lines were recorded."""
    reader = Records()
    before, after = (ready(one.fleet) for one in (old, new))
    done = replay(reader.groups(lines, Slots(Window())), after, NOON, before)
    about = replaydoc.About("NEW", "inventory", "FLOWS", NOON, "OLD", reader.unreadable, reader.gaps)
    told = replaydoc.document(done, new.inventory, after.names, about)
    sides = [
        source.of_compiled(source.Content(title, "inventory", {}, []), one)
        for title, one in (("OLD", old), ("NEW", new))
    ]
    return comments.comment(sides[0], sides[1], done, told)
