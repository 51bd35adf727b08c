"""The forwarder over a socket pair, an in-memory twin of the TUN: what goes in comes back unchanged, or not at all."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate_agents import clock
from tidegate_agents.datapath import counters, flows, forwarder, offload
from tidegate_agents.datapath.counters import Counters
from tidegate_agents.datapath.flowlog import FOLD_SECONDS, FlowLog
from tidegate_agents.datapath.forwarder import BATCH, Forwarder
from tidegate_agents.datapath.judge import Judge, Tables
from tidegate_agents.datapath.offload import segments
from tidegate_agents.datapath.packet import parse
from tidegate_agents.events import ring
from tidegate_agents.events.ring import Ring
from tidegate_schema import event
from tidegate_schema.policy import PolicyTable, Reason
from unit.agents.kit import (
    ICMP,
    NOW,
    SCTP,
    TCP,
    UDP,
    VNET,
    icmp,
    id_of,
    ip4,
    ip6,
    policy,
    raw,
    routing6,
    sctp,
    tcp,
    udp,
    unpacked,
)

ALICE4, ALICE6, BOB4, WEB4, WEB6 = "10.64.0.11", "fd64::11", "10.64.0.12", "10.20.0.80", "fd20::80"
WEB = ip4(ALICE4, WEB4, TCP, tcp())
RULES: list[dict[str, Any]] = [
    {"to": ["10.20.0.80/32"], "ports": ["tcp/443"]},
    {"to": ["fd20::80/128"], "ports": ["udp/53"]},
]


class Twin:
    """Both ends of the twin, and a forwarder made on demand."""

    def __init__(self, directory: Path) -> None:
        self.kernel, self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.told, self.denied = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.kernel, self.tun, self.told, self.denied):
            end.setblocking(False)
        self.counters = directory / "counters"
        self.ring = directory / "events.ring"
        ring.create(self.ring, 256)

    def forwarder(
        self,
        *,
        enforce: bool,
        logging: bool = False,
        silence: float | None = None,
        denied: int | None = None,
        **changes: Any,
    ) -> Forwarder:
        clients = {raw(ALICE4): id_of("alice"), raw(ALICE6): id_of("alice"), raw(BOB4): id_of("bob")}
        table = PolicyTable(policy(alice=RULES, bob=[]))
        fields = {"generation": 9, "enforce": enforce, "clients": clients, "policy": table}
        tables = Tables(**fields | changes)
        log = Ring(self.ring) if logging else None
        return Forwarder(
            self.tun.fileno(),
            tables,
            Counters(self.counters),
            FlowLog(log, silence) if log is not None and silence is not None else log,
            denied,
        )

    def send(self, data: bytes, header: bytes = VNET) -> None:
        self.kernel.send(header + data)

    def returned(self, end: socket.socket | None = None) -> list[bytes]:
        found = []
        while True:
            try:
                found.append((end or self.kernel).recv(70000).removeprefix(VNET))
            except BlockingIOError:
                return found

    def events(self) -> list[event.Event]:
        reader = Ring(self.ring)
        return unpacked(reader.peek(10**6))


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Twin]:
    made = Twin(tmp_path)
    yield made
    for end in (made.kernel, made.tun, made.told, made.denied):
        end.close()


PACKETS = [
    WEB,
    ip6(ALICE6, WEB6, UDP, udp()),
    ip4(BOB4, WEB4, TCP, tcp()),
    ip4("10.64.0.99", WEB4, TCP, tcp()),
    ip4(ALICE4, WEB4, TCP, tcp(), length=9),
    b"\x00",
    b"\x45",
    b"\xff" * 2000,
]


@pytest.mark.parametrize("logging", [False, True])
def test_enforce_writes_back_what_is_allowed_and_nothing_else(twin: Twin, logging: bool) -> None:
    moving = twin.forwarder(enforce=True, logging=logging)
    for data in PACKETS:
        twin.send(data)
    assert moving.step() == len(PACKETS)
    assert twin.returned() == PACKETS[:2]
    assert moving.step() == 0


@pytest.mark.parametrize("logging", [False, True])
def test_observe_writes_back_everything_byte_by_byte(twin: Twin, logging: bool) -> None:
    moving = twin.forwarder(enforce=False, logging=logging)
    for data in PACKETS:
        twin.send(data)
    assert moving.step() == len(PACKETS)
    assert twin.returned() == PACKETS


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200), st.booleans())
def test_any_bytes_pass_observe_unchanged_and_are_denied_by_enforce(
    twin: Twin, data: bytes, logging: bool
) -> None:
    twin.send(data)
    assert twin.forwarder(enforce=False, logging=logging).step() == 1
    assert twin.returned() == [data]
    twin.send(data)
    assert twin.forwarder(enforce=True, logging=logging).step() == 1
    assert twin.returned() == []


def test_the_largest_packet_passes_unchanged(twin: Twin) -> None:
    data = ip4(ALICE4, WEB4, TCP, tcp(body=os.urandom(65535 - 40)))
    assert len(data) == 65535
    twin.send(data)
    assert twin.forwarder(enforce=True).step() == 1
    assert twin.returned() == [data]


def test_a_step_is_bounded(twin: Twin) -> None:
    moving = twin.forwarder(enforce=False)
    for _ in range(BATCH + 10):
        twin.send(WEB)
    assert [moving.step(), moving.step(), moving.step()] == [BATCH, 10, 0]
    for _ in range(7):
        twin.send(WEB)
    assert moving.step(5) == 5


@pytest.mark.parametrize("enforce", [False, True])
def test_an_end_of_what_it_reads_is_its_end(twin: Twin, enforce: bool) -> None:
    moving = twin.forwarder(enforce=enforce)
    twin.kernel.close()
    with pytest.raises(OSError, match="bad state"):
        moving.step()


def fail(*_: object) -> None:
    raise AssertionError("observe runs no authorization code")


@pytest.mark.parametrize("logging", [False, True])
def test_observe_never_asks_the_policy_nor_makes_a_judge(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, logging: bool
) -> None:
    monkeypatch.setattr(PolicyTable, "decide", fail)
    monkeypatch.setattr(forwarder, "Judge", fail)
    if not logging:
        monkeypatch.setattr(forwarder, "parse", fail)  # with nothing to tell, not even a header is read
    moving = twin.forwarder(enforce=False, logging=logging)
    for data in PACKETS:
        twin.send(data)
    moving.step()
    assert twin.returned() == PACKETS


def test_enforce_does_ask(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PolicyTable, "decide", fail)
    moving = twin.forwarder(enforce=True)
    twin.send(WEB)
    with pytest.raises(AssertionError):
        moving.step()
    assert twin.returned() == []


@pytest.mark.parametrize("enforce", [False, True])
def test_with_logging_off_nothing_is_written_to_the_ring(twin: Twin, enforce: bool) -> None:
    before = twin.ring.read_bytes()
    moving = twin.forwarder(enforce=enforce)
    for data in PACKETS:
        twin.send(data)
    moving.step()
    assert twin.ring.read_bytes() == before


@pytest.mark.parametrize("enforce", [False, True])
def test_with_logging_on_every_packet_makes_one_event(twin: Twin, enforce: bool) -> None:
    moving = twin.forwarder(enforce=enforce, logging=True)
    for data in PACKETS:
        twin.send(data)
    moving.step()
    events = twin.events()
    assert [one.seq for one in events] == list(range(len(PACKETS)))
    assert [one.length for one in events] == [len(data) for data in PACKETS]
    assert {(one.mode, one.generation, one.packets) for one in events} == {(int(enforce), 9, 1)}
    if enforce:
        assert [Reason(one.reason) for one in events] == [
            *(Reason.ALLOWED, Reason.ALLOWED, Reason.NO_RULE, Reason.UNKNOWN_SOURCE),
            *[Reason.UNPARSEABLE] * 4,
        ]
        assert [one.rule for one in events] == [0, 1, *[event.NO_RULE] * 6]
    else:
        assert {(one.verdict, one.reason, one.rule) for one in events} == {
            (1, Reason.OBSERVED, event.NO_RULE)
        }


@pytest.mark.parametrize("enforce", [False, True])
def test_an_event_tells_who_and_where_and_no_payload(twin: Twin, enforce: bool) -> None:
    secret = b"payload that nobody logs"
    twin.send(ip4(ALICE4, WEB4, TCP, tcp(1234, 443, 0x18, secret)))
    twin.send(ip4("10.64.0.99", WEB4, UDP, udp(1, 2, secret)))
    twin.send(secret)
    twin.send(ip4(ALICE4, WEB4, UDP, secret, fragment=(1480, False)))
    twin.forwarder(enforce=enforce, logging=True).step()
    one, unknown, unparseable, later = twin.events()
    assert one.client_id.hex() == id_of("alice")
    assert (one.source, one.destination) == (event.mapped(raw(ALICE4)), event.mapped(raw(WEB4)))
    assert (one.source_port, one.destination_port, one.protocol, one.tcp_flags, one.known) == (
        1234,
        443,
        6,
        0x18,
        3,
    )
    assert (unknown.client_id, unknown.known) == (event.NO_CLIENT, 3)
    assert (unparseable.client_id, unparseable.known, unparseable.source) == (event.NO_CLIENT, 0, bytes(16))
    assert (later.known, later.source_port, later.destination_port) == (event.KNOWN_ADDRESSES, 0, 0)
    assert secret not in twin.ring.read_bytes()
    assert secret[:8] not in twin.ring.read_bytes()


def set_clock(monkeypatch: pytest.MonkeyPatch, now: float, passed: float = 0.0) -> None:
    """Let the clock say `now` when so many seconds have passed."""
    monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: now, monotonic=lambda: passed))


@pytest.mark.parametrize("remembered", [0.0, NOW + 20.0])
def test_a_clock_set_back_revives_no_grant(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, remembered: float
) -> None:
    rule = {"to": ["10.20.0.80/32"], "ports": ["any"], "expires": NOW + 10}
    table = PolicyTable(policy(alice=[rule]))
    set_clock(monkeypatch, NOW)
    moving = twin.forwarder(enforce=True, policy=table, not_earlier_than=remembered)
    twin.send(WEB)
    moving.step()
    assert twin.returned() == ([] if remembered else [WEB])
    for now in (NOW + 10, NOW, 0):
        set_clock(monkeypatch, now)
        twin.send(WEB)
        moving.step()
        assert twin.returned() == []


# Packets of a few flows, written so that their bytes stand where another one's might be looked for: with options,
# fragments, extension headers, cut short, longer than they say, and of lengths that vary.
FEW: list[bytes] = [
    *(ip4(ALICE4, WEB4, TCP, tcp(1000, port, body=body)) for port in (443, 22) for body in (b"", b"x" * 30)),
    *(ip4(source, WEB4, UDP, udp(1000, 443)) for source in (ALICE4, BOB4, "10.64.0.99")),
    *(ip6(ALICE6, WEB6, UDP, udp(1000, port)) for port in (53, 54)),
    ip6(ALICE6, WEB6, TCP, tcp(1000, 53)),
    ip4(ALICE4, WEB4, 47, tcp(1000, 443)),
    ip4(ALICE4, WEB4, TCP, tcp(1000, 443), fragment=(0, True)),
    ip4(ALICE4, WEB4, TCP, tcp(1000, 443), fragment=(64, False)),
    ip4(ALICE4, WEB4, TCP, tcp(1000, 443), options=b"\x01" * 4),
    ip4(ALICE4, WEB4, TCP, tcp(1000, 443)[:8]),
    ip4(ALICE4, WEB4, TCP, b""),
    ip4(ALICE4, WEB4, UDP, b""),
    *(first + ip6(ALICE6, WEB6, UDP, udp(1000, 53))[1:] for first in (b"\x46", b"\x45", b"\x70", b"\x61")),
    *(first + ip4(ALICE4, WEB4, TCP, tcp(1000, 443))[1:] for first in (b"\x46", b"\x55", b"\x65")),
]


@st.composite
def alike(draw: st.DrawFn) -> bytes:
    """One of the few, as it is, cut, with more behind it, or with a byte changed."""
    data = draw(st.sampled_from(FEW))
    how = draw(st.sampled_from(["as it is", "cut", "more", "changed"]))
    if how == "cut":
        return data[: draw(st.integers(1, len(data)))]
    if how == "more":
        return data + draw(st.binary(min_size=1, max_size=30))
    if how == "changed":
        at = draw(st.integers(0, min(len(data) - 1, 48)))
        return data[:at] + draw(st.binary(min_size=1, max_size=1)) + data[at + 1 :]
    return data


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(alike(), min_size=1, max_size=30), st.integers(1, 5))
def test_what_is_remembered_changes_no_verdict_and_no_event(
    twin: Twin, packets: list[bytes], most: int
) -> None:
    ring.create(twin.ring, 256)
    moving = twin.forwarder(enforce=True, logging=True)
    judge = Judge(moving._tables)
    expected = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "MOST", most)
        for data in packets:
            twin.send(data)
        assert moving.step() == len(packets)
    for data, found in zip(packets, twin.events(), strict=True):
        packet = parse(data)
        verdict = judge.judge(packet, NOW)
        expected += [data] if verdict.allow else []
        ports = (packet.source_port, packet.port, packet.tcp_flags) if packet else (0, 0, 0)
        assert (found.verdict, found.reason, found.length) == (verdict.allow, verdict.reason, len(data))
        assert found.rule == (event.NO_RULE if verdict.rule is None else verdict.rule)
        assert (found.source_port, found.destination_port, found.tcp_flags) == ports
        assert found.protocol == (packet.protocol if packet else 0)
    assert twin.returned() == expected


@pytest.mark.parametrize("first", [0x40, 0x46, 0x55, 0x70, 0x86, 0xFF])
def test_a_packet_of_another_version_is_not_taken_for_a_known_flow(twin: Twin, first: int) -> None:
    moving = twin.forwarder(enforce=True)
    for known in (FEW[0], FEW[7]):
        twin.send(known)
        twin.send(bytes([first]) + known[1:])
    moving.step()
    assert twin.returned() == [FEW[0], FEW[7]]


def test_a_later_fragment_is_never_remembered(twin: Twin) -> None:
    moving = twin.forwarder(enforce=True)
    first = ip4(ALICE4, WEB4, TCP, tcp(1000, 443, body=bytes(28)), fragment=(0, True))
    later = ip4(ALICE4, WEB4, TCP, tcp(1000, 443), fragment=(64, False))
    for data in (later, first, later):
        twin.send(data)
    moving.step()
    assert twin.returned() == [first, later]


def test_a_clock_set_back_revives_no_grant_for_who_was_idle(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {"to": ["10.20.0.80/32"], "ports": ["any"], "expires": NOW + 180}
    set_clock(monkeypatch, NOW)
    moving = twin.forwarder(enforce=True, policy=PolicyTable(policy(alice=[rule])))
    twin.send(WEB)
    moving.step()
    assert twin.returned() == [WEB]
    set_clock(monkeypatch, NOW - 100, passed=181.0)
    twin.send(WEB)
    moving.step()
    assert twin.returned() == []


def test_only_what_is_denied_for_its_ports_goes_to_the_denied(twin: Twin) -> None:
    """The kernel drops the same again without asking; what was denied for its shape must not speak for the rest."""
    denied = [ip4(BOB4, WEB4, TCP, tcp(n, 443)) for n in (1, 2, 1)]
    denied += [ip4("10.64.0.99", WEB4, UDP, udp()), ip6(ALICE6, WEB6, SCTP, sctp())]
    others = [
        WEB,
        ip4(BOB4, WEB4, ICMP, icmp()),
        ip4(BOB4, WEB4, TCP, tcp(), options=b"\x01\x01\x01\x00"),
        ip4(BOB4, WEB4, TCP, tcp(body=bytes(28)), fragment=(0, True)),
        ip4(BOB4, WEB4, TCP, tcp(), fragment=(64, False)),
        ip4(BOB4, WEB4, TCP, tcp()[:10]),
        ip6(ALICE6, WEB6, TCP, tcp(), routing6()),
        b"\xff" * 60,
    ]
    moving = twin.forwarder(enforce=True, denied=twin.denied.fileno())
    for data in [*denied, *others]:
        twin.send(data)
    moving.step()
    assert twin.returned(twin.told) == denied
    assert twin.returned() == [WEB]
    twin.told.close()
    twin.send(denied[0])
    twin.send(WEB)
    assert moving.step() == 2
    assert twin.returned() == [WEB]


@pytest.mark.parametrize("logging", [False, True])
def test_only_the_first_packet_of_a_flow_is_judged(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, logging: bool
) -> None:
    asked = []
    decide = PolicyTable.decide
    monkeypatch.setattr(PolicyTable, "decide", lambda *rest: asked.append(rest) or decide(*rest))
    moving = twin.forwarder(enforce=True, logging=logging)
    for data in [FEW[0], FEW[1], FEW[7], FEW[0], FEW[7], FEW[2], FEW[2]] * 3:
        twin.send(data)
    moving.step()
    assert len(asked) == 3
    assert twin.returned() == [FEW[0], FEW[1], FEW[7], FEW[0], FEW[7]] * 3


def test_what_is_remembered_is_bounded(twin: Twin) -> None:
    moving = twin.forwarder(enforce=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "MOST", 50)
        for port in range(BATCH):
            twin.send(ip4(ALICE4, WEB4, TCP, tcp(1000 + port, 443)))
        moving.step()
    assert len(moving._flows._known) == BATCH - 50


def test_no_remembered_flow_outlives_its_rule(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    table = PolicyTable(policy(alice=[{"to": ["10.20.0.80/32"], "ports": ["any"], "expires": NOW + 10}]))
    set_clock(monkeypatch, NOW)
    moving = twin.forwarder(enforce=True, policy=table)
    for now, expected in ((NOW, [WEB]), (NOW + 9.9, [WEB]), (NOW + 10, []), (NOW + 11, [])):
        set_clock(monkeypatch, now)
        twin.send(WEB)
        moving.step()
        assert twin.returned() == expected


def super_packet(kind: int, size: int) -> bytes:
    return struct.pack("=BBHHHH", 1, kind, 0, size, 0, 0)


@pytest.mark.parametrize("enforce", [False, True])
def test_a_super_packet_comes_back_with_its_header_and_counts_as_what_it_stands_for(
    twin: Twin, enforce: bool
) -> None:
    moving = twin.forwarder(enforce=enforce, logging=True)
    sent = [
        (super_packet(1, 1000), ip4(ALICE4, WEB4, TCP, tcp(body=bytes(2001))), 3),
        (super_packet(1, 1000), ip4(ALICE4, WEB4, TCP, tcp(body=bytes(2000))), 2),
        (super_packet(5, 100), ip6(ALICE6, WEB6, UDP, udp(body=bytes(450))), 5),
        (super_packet(1, 0), ip4(ALICE4, WEB4, TCP, tcp(body=bytes(450))), 1),
        (super_packet(0, 100), ip4(ALICE4, WEB4, TCP, tcp(body=bytes(450))), 1),
    ]
    for header, data, _ in sent:
        twin.send(data, header)
    moving.step()
    assert twin.returned() == [header + data for header, data, _ in sent]
    counted = [one.packets for one in twin.events()]
    assert counted == [count for _, _, count in sent]
    found = counters.read(twin.counters)
    reasons = ["allowed"] if enforce else ["observed"]
    assert [found.packets[reason] for reason in reasons] == [sum(counted)]


@settings(deadline=None, max_examples=200)
@given(st.binary(min_size=10, max_size=200))
def test_any_header_stands_for_a_packet_or_more(data: bytes) -> None:
    assert segments(data.ljust(70000, b"\0"), len(data)) >= 1


def test_a_kernel_that_takes_no_super_packets_is_given_none_any_more(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(forwarder, "set_offloads", lambda _, bits: asked.append(bits))
    moving = twin.forwarder(enforce=True)
    write = os.write

    def refuse(fd: int, data: memoryview) -> int:
        if data[1]:
            raise OSError(errno.EINVAL, "refused")
        return write(fd, data)

    monkeypatch.setattr(forwarder.os, "write", refuse)
    twin.send(WEB, super_packet(1, 100))
    twin.send(WEB)
    moving.step()
    assert twin.returned() == [WEB]
    assert asked == [0]
    found = counters.read(twin.counters)
    assert (found.write_errors, found.refused_super_packets) == (1, 1)


@pytest.mark.parametrize(
    ("setting", "taken", "expected"),
    [
        ("auto", {0x6F, 7, 0}, "tso+uso"),
        ("auto", {7, 0}, "tso"),
        ("auto", {0}, "none"),
        ("tso", {0x6F, 7, 0}, "tso"),
        ("off", {0x6F, 7, 0}, "none"),
    ],
)
def test_offloads_go_down_a_ladder(setting: str, taken: set[int], expected: str) -> None:
    def set_them(_: int, bits: int) -> None:
        if bits not in taken:
            raise OSError(errno.EINVAL, "unknown bits")

    assert offload.NAMES[offload.negotiate(3, setting, set_them)] == expected


def test_packets_and_bytes_are_counted_by_reason(twin: Twin) -> None:
    moving = twin.forwarder(enforce=True)
    for data in [*PACKETS, WEB]:
        twin.send(data)
    moving.step()
    found = counters.read(twin.counters)
    assert found.packets["allowed"] == 3
    assert found.bytes["allowed"] == 2 * len(WEB) + len(PACKETS[1])
    assert found.packets["unparseable"] == 4
    assert found.packets["unknown-source"] == found.packets["no-rule"] == 1
    assert found.write_errors == 0
    # The counts go on over a hand-over, and each reason has its own.
    twin.send(WEB)
    twin.forwarder(enforce=False).step()
    found = counters.read(twin.counters)
    assert (found.packets["allowed"], found.packets["observed"]) == (3, 1)
    assert sum(found.packets.values()) == len(PACKETS) + 2
    assert twin.counters.stat().st_mode & 0o777 == 0o600


def test_a_packet_that_the_kernel_does_not_take_is_counted_and_the_next_goes_on(twin: Twin) -> None:
    moving = twin.forwarder(enforce=False)
    while True:  # fill the way back
        try:
            twin.tun.send(b"x" * 1000)
        except BlockingIOError:
            break
    twin.send(WEB)
    assert moving.step() == 1
    assert counters.read(twin.counters).write_errors == 1
    twin.returned()
    twin.send(WEB)
    moving.step()
    assert twin.returned() == [WEB]


def test_a_full_ring_holds_nobody_up(twin: Twin) -> None:
    moving = twin.forwarder(enforce=False, logging=True)
    for _ in range(10):
        for _ in range(50):
            twin.send(WEB)
        moving.step()
        assert twin.returned() == [WEB] * 50
    reader = Ring(twin.ring)
    assert (reader.pending(), reader.dropped()) == (256, 244)
    assert [one.seq for one in twin.events()] == list(range(256))


# Events by flow -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enforce", [False, True])
def test_by_flow_each_flow_has_one_event(twin: Twin, enforce: bool) -> None:
    moving = twin.forwarder(enforce=enforce, logging=True, silence=120.0)
    for _ in range(3):
        for data in PACKETS:
            twin.send(data)
        moving.step()
    moving.close()
    allowed = PACKETS[:2] if enforce else PACKETS
    events = [(event.Kind(one.kind), one.verdict, one.packets) for one in twin.events()]
    opened = [one for one in events if one[0] == event.Kind.FLOW_OPEN]
    assert set(opened) == {(event.Kind.FLOW_OPEN, 1, 0)}
    # Those of which nothing can be read are one flow.
    unreadable = len({bytes(data) for data in PACKETS[4:]}) - 1
    assert len(opened) == len(allowed) - (0 if enforce else unreadable)
    denied = [one for one in events if one[0] == event.Kind.DENY]
    assert sum(packets for _, _, packets in denied) == 3 * (len(PACKETS) - len(allowed))
    assert twin.returned() == allowed * 3


def test_by_flow_what_opens_a_flow_is_told_with_its_rule(twin: Twin) -> None:
    moving = twin.forwarder(enforce=True, logging=True, silence=120.0)
    twin.send(ip4(ALICE4, WEB4, TCP, tcp(1234, 443, 0x02)))
    twin.send(ip4(ALICE4, WEB4, TCP, tcp(1234, 22, 0x02)))
    moving.step()
    opened, denied = twin.events()
    assert (opened.kind, opened.rule, opened.reason, opened.tcp_flags) == (2, 0, Reason.ALLOWED, 0x02)
    assert (denied.kind, denied.rule, denied.reason) == (5, event.NO_RULE, Reason.NO_RULE)
    assert {one.client_id.hex() for one in (opened, denied)} == {id_of("alice")}


def test_by_flow_it_asks_to_be_called_when_something_is_due(twin: Twin) -> None:
    moving = twin.forwarder(enforce=True, logging=True, silence=120.0)
    assert moving.patience() is None
    for _ in range(2):
        twin.send(ip4(ALICE4, WEB4, TCP, tcp(1234, 22)))
    moving.step()
    patience = moving.patience()
    assert patience is not None
    assert 0 < patience <= FOLD_SECONDS
    assert twin.forwarder(enforce=True, logging=True).patience() is None
