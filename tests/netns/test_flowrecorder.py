"""The recorder on the kernel's real connection table, without a gateway: what it loses, it says."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns.flowkit import ALICE, SETTINGS, Recorded, address, flush, prepare, send
from netns.lab import until
from tidegate_agents.gateway import connections, conntrack
from tidegate_agents.gateway.flownews import News
from tidegate_agents.gateway.netlink import open_netfilter
from tidegate_schema import event
from tidegate_schema.event import End, Kind

pytestmark = pytest.mark.netns


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    prepare()
    made = Recorded(tmp_path)
    yield made
    made.recorder.stop()


def test_a_flow_s_close_tells_all_of_it_and_who_had_it_and_why(recorded: Recorded) -> None:
    recorded.keep()
    before = time.time_ns()
    send(3)
    send(2, source=address(2), source_port=5001)
    with recorded.recorder.standing_back() as cutting:
        conntrack.revoke(lambda source, *_: source != socket.inet_aton(address(1)), cutting)
    (cut,) = recorded.closed(1)
    assert (cut.packets, cut.length, cut.reply_packets, cut.reply_length) == (3, 3 * 128, 0, 0)
    assert cut.source == event.mapped(socket.inet_aton(address(1)))
    assert (cut.source_port, cut.destination_port, cut.protocol) == (5000, 9, socket.IPPROTO_UDP)
    assert before < cut.start_ns < cut.wall_ns < time.time_ns()
    assert (cut.client_id.hex(), cut.end, cut.generation, cut.rule) == (ALICE, End.REVOKED, 1, event.NO_RULE)
    flush()
    _, ended = recorded.closed(2)
    assert (ended.packets, ended.length, ended.end) == (2, 2 * 128, End.ENDED)
    assert [one.seq for one in recorded.records()] == [0, 1]


def test_connections_that_are_not_ours_are_nobody_s_business(recorded: Recorded) -> None:
    recorded.keep()
    send(3, port=7)
    send(1)
    flush()
    assert [one.destination_port for one in recorded.closed(1)] == [9]
    time.sleep(0.2)
    assert len(recorded.records()) == 1
    assert recorded.recorder.status()["unreadable"] == 0
    with contextlib.closing(News(1 << 20)) as news:  # they do not even take room
        send(3, port=7)
        send(1)
        flush()
        assert len(list(news.read(10))) == 1


def test_news_that_another_process_has_made_up_is_none(recorded: Recorded) -> None:
    """One that may send to such sockets at all, as root may."""
    with contextlib.closing(News(1 << 20)) as news, open_netfilter() as other:
        send(1)
        flush()
        (told,) = news.read(10)
        other.sendto(told, news._socket.getsockname())
        send(1, source_port=5001)
        flush()
        (next_one,) = news.read(10)
    ports = [connections.flow(connections.read(data[16:]).original).source_port for data in (told, next_one)]
    assert ports == [5000, 5001]


def test_what_lasts_is_told_of_in_parts_that_add_up(recorded: Recorded) -> None:
    recorded.keep(flow_update_interval=0.2)
    send(3)
    until("an update", lambda: recorded.records(Kind.FLOW_UPDATE))
    send(4)
    until("another one", lambda: len(recorded.records(Kind.FLOW_UPDATE)) == 2)
    time.sleep(0.6)  # two looks more, in which nothing has moved
    assert [one.packets for one in recorded.records()] == [3, 4]
    send(5)
    flush()
    recorded.closed(1)
    assert sum(one.packets for one in recorded.records()) == 12
    assert sum(one.length for one in recorded.records()) == 12 * 128
    assert len({one.start_ns for one in recorded.records()}) == 1


def test_only_what_comes_while_it_records_is_told(recorded: Recorded) -> None:
    send(3)
    send(1, source=address(2))
    recorded.keep()
    send(4)
    send(2, source_port=5001)
    flush()
    assert sorted(one.packets for one in recorded.closed(3)) == [0, 2, 4]
    send(5)
    recorded.keep(logging_enabled=False)
    assert not recorded.recorder.status()["recording"]
    send(6)
    flush()
    recorded.keep()
    send(1)
    flush()
    assert [one.packets for one in recorded.closed(4)][3:] == [1]
    assert not recorded.records(Kind.GAP)


def test_news_that_finds_no_room_becomes_a_gap_and_afterwards_all_is_right_again(tmp_path: Path) -> None:
    prepare()
    recorded = Recorded(tmp_path, room=8192)
    recorded.keep(flow_update_interval=0.2)
    before = time.time_ns()
    for number in range(1, 2000):
        send(source=address(number))
    until("they have been told of", lambda: len(recorded.records(Kind.FLOW_UPDATE)) >= 1999)
    flush()
    until("a gap", lambda: recorded.records(Kind.GAP))
    time.sleep(0.3)
    closes, gaps = recorded.records(Kind.FLOW_CLOSE), recorded.records(Kind.GAP)
    assert 0 < len(closes) < 1999
    assert before < gaps[0].start_ns < gaps[0].wall_ns < time.time_ns()
    assert recorded.recorder.status()["gaps"] == len(gaps)
    time.sleep(0.6)  # two looks
    send(7, source_port=6000)
    flush()
    assert recorded.closed(len(closes) + 1)[-1].packets == 7
    assert len(recorded.records(Kind.GAP)) == len(gaps)
    recorded.recorder.stop()


def test_while_there_is_no_ring_nothing_is_recorded_and_afterwards_a_gap_says_so(recorded: Recorded) -> None:
    aside = recorded.places.run.with_name("aside")
    recorded.places.run.rename(aside)
    recorded.recorder.keep(SETTINGS)
    problem = until("it is in trouble", lambda: recorded.recorder.status()["problem"])
    assert "flows.ring" in problem
    assert not recorded.recorder.status()["recording"]
    before = time.time_ns()
    aside.rename(recorded.places.run)
    until("flows are recorded", lambda: recorded.recorder.status()["recording"])
    assert recorded.recorder.status()["problem"] is None
    (gap,) = recorded.records()
    assert gap.kind == Kind.GAP
    assert gap.start_ns < before < gap.wall_ns


def test_it_rests_while_connections_are_cut_and_loses_nothing_of_that_time(recorded: Recorded) -> None:
    recorded.keep(flow_update_interval=0.2)
    with recorded.recorder.standing_back():
        send(3)
        send(2, source=address(2))
        conntrack.revoke(lambda source, *_: source != socket.inet_aton(address(2)), lambda _port: None)
        time.sleep(0.5)
        assert recorded.records() == []
    until("both are told of", lambda: len(recorded.records()) == 2)
    assert {(one.kind, one.packets) for one in recorded.records()} == {
        (Kind.FLOW_CLOSE, 2),
        (Kind.FLOW_UPDATE, 3),
    }
