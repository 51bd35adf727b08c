"""The forwarder over a socket pair, an in-memory twin of the TUN: what goes in comes back unchanged, or not at all."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate_agents.datapath import counters, forwarder
from tidegate_agents.datapath.counters import Counters
from tidegate_agents.datapath.forwarder import BATCH, Forwarder
from tidegate_agents.datapath.judge import Tables
from tidegate_agents.events import ring
from tidegate_agents.events.ring import Ring
from tidegate_schema import event
from tidegate_schema.policy import PolicyTable, Reason
from unit.agents.kit import NOW, TCP, UDP, id_of, ip4, ip6, policy, raw, tcp, udp

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
        self.kernel.setblocking(False)
        self.tun.setblocking(False)
        self.counters = directory / "counters"
        self.ring = directory / "events.ring"
        ring.create(self.ring, 256)

    def forwarder(self, *, enforce: bool, logging: bool = False, **changes: Any) -> Forwarder:
        clients = {raw(ALICE4): id_of("alice"), raw(ALICE6): id_of("alice"), raw(BOB4): id_of("bob")}
        table = PolicyTable(policy(alice=RULES, bob=[]))
        fields = {"generation": 9, "enforce": enforce, "clients": clients, "policy": table}
        tables = Tables(**fields | changes)
        return Forwarder(
            self.tun.fileno(), tables, Counters(self.counters), Ring(self.ring) if logging else None
        )

    def returned(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.kernel.recv(70000))
            except BlockingIOError:
                return found

    def events(self) -> list[event.Event]:
        reader = Ring(self.ring)
        return [event.unpack(record) for record in reader.peek(10**6)]


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Twin]:
    made = Twin(tmp_path)
    yield made
    made.kernel.close()
    made.tun.close()


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
        twin.kernel.send(data)
    assert moving.step() == len(PACKETS)
    assert twin.returned() == PACKETS[:2]
    assert moving.step() == 0


@pytest.mark.parametrize("logging", [False, True])
def test_observe_writes_back_everything_byte_by_byte(twin: Twin, logging: bool) -> None:
    moving = twin.forwarder(enforce=False, logging=logging)
    for data in PACKETS:
        twin.kernel.send(data)
    assert moving.step() == len(PACKETS)
    assert twin.returned() == PACKETS


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200), st.booleans())
def test_any_bytes_pass_observe_unchanged_and_are_denied_by_enforce(
    twin: Twin, data: bytes, logging: bool
) -> None:
    twin.kernel.send(data)
    assert twin.forwarder(enforce=False, logging=logging).step() == 1
    assert twin.returned() == [data]
    twin.kernel.send(data)
    assert twin.forwarder(enforce=True, logging=logging).step() == 1
    assert twin.returned() == []


def test_the_largest_packet_passes_unchanged(twin: Twin) -> None:
    data = ip4(ALICE4, WEB4, TCP, tcp(body=os.urandom(65535 - 40)))
    assert len(data) == 65535
    twin.kernel.send(data)
    assert twin.forwarder(enforce=True).step() == 1
    assert twin.returned() == [data]


def test_a_step_is_bounded(twin: Twin) -> None:
    moving = twin.forwarder(enforce=False)
    for _ in range(BATCH + 10):
        twin.kernel.send(WEB)
    assert [moving.step(), moving.step(), moving.step()] == [BATCH, 10, 0]
    for _ in range(7):
        twin.kernel.send(WEB)
    assert moving.step(5) == 5


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
        twin.kernel.send(data)
    moving.step()
    assert twin.returned() == PACKETS


def test_enforce_does_ask(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PolicyTable, "decide", fail)
    moving = twin.forwarder(enforce=True)
    twin.kernel.send(WEB)
    with pytest.raises(AssertionError):
        moving.step()
    assert twin.returned() == []


@pytest.mark.parametrize("enforce", [False, True])
def test_with_logging_off_nothing_is_written_to_the_ring(twin: Twin, enforce: bool) -> None:
    before = twin.ring.read_bytes()
    moving = twin.forwarder(enforce=enforce)
    for data in PACKETS:
        twin.kernel.send(data)
    moving.step()
    assert twin.ring.read_bytes() == before


@pytest.mark.parametrize("enforce", [False, True])
def test_with_logging_on_every_packet_makes_one_event(twin: Twin, enforce: bool) -> None:
    moving = twin.forwarder(enforce=enforce, logging=True)
    for data in PACKETS:
        twin.kernel.send(data)
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
    twin.kernel.send(ip4(ALICE4, WEB4, TCP, tcp(1234, 443, 0x18, secret)))
    twin.kernel.send(ip4("10.64.0.99", WEB4, UDP, udp(1, 2, secret)))
    twin.kernel.send(secret)
    twin.kernel.send(ip4(ALICE4, WEB4, UDP, secret, fragment=(1480, False)))
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


def clock(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr(forwarder, "time", SimpleNamespace(time=lambda: now, monotonic_ns=lambda: 1))


@pytest.mark.parametrize("remembered", [0.0, NOW + 20.0])
def test_a_clock_set_back_revives_no_grant(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, remembered: float
) -> None:
    rule = {"to": ["10.20.0.80/32"], "ports": ["any"], "expires": NOW + 10}
    table = PolicyTable(policy(alice=[rule]))
    clock(monkeypatch, NOW)
    moving = twin.forwarder(enforce=True, policy=table, not_earlier_than=remembered)
    twin.kernel.send(WEB)
    moving.step()
    assert twin.returned() == ([] if remembered else [WEB])
    for now in (NOW + 10, NOW, 0):
        clock(monkeypatch, now)
        twin.kernel.send(WEB)
        moving.step()
        assert twin.returned() == []


def test_packets_and_bytes_are_counted_by_reason(twin: Twin) -> None:
    moving = twin.forwarder(enforce=True)
    for data in [*PACKETS, WEB]:
        twin.kernel.send(data)
    moving.step()
    found = counters.read(twin.counters)
    assert found.packets["allowed"] == 3
    assert found.bytes["allowed"] == 2 * len(WEB) + len(PACKETS[1])
    assert found.packets["unparseable"] == 4
    assert found.packets["unknown-source"] == found.packets["no-rule"] == 1
    assert found.write_errors == 0
    # The counts go on over a hand-over, and each reason has its own.
    twin.kernel.send(WEB)
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
    twin.kernel.send(WEB)
    assert moving.step() == 1
    assert counters.read(twin.counters).write_errors == 1
    twin.returned()
    twin.kernel.send(WEB)
    moving.step()
    assert twin.returned() == [WEB]


def test_a_full_ring_holds_nobody_up(twin: Twin) -> None:
    moving = twin.forwarder(enforce=False, logging=True)
    for _ in range(10):
        for _ in range(50):
            twin.kernel.send(WEB)
        moving.step()
        assert twin.returned() == [WEB] * 50
    reader = Ring(twin.ring)
    assert (reader.pending(), reader.dropped()) == (256, 244)
