"""The page of a gateway's metrics, where its facts come from, and the thread that serves it."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from doctables import CATALOGUES, written_metrics
from doctables import metrics as table_of_metrics
from netns.lab import until
from tidegate_agents import metricpage, metricserver
from tidegate_agents.client import metrics as client_metrics
from tidegate_agents.datapath import counters
from tidegate_agents.gateway import exporter, facts, metrics
from tidegate_agents.gateway.metrics import FAMILIES, Events, Facts, Rules, Told
from tidegate_agents.host import Places
from tidegate_agents.wireguard import PeerConfig, PeerState
from tidegate_schema.policy import PolicyTable, Reason
from unit.agents.kit import NOW, id_of, key, policy, raw

STATUS: dict[str, Any] = {
    "generation": 3,
    "authz_mode": "enforce",
    "logging_enabled": False,
    "peers": 2,
    "release": {"serial": 7, "not_after": NOW + 1000, "digest": "x", "source": "x"},
    "refusal": None,
    "stale": True,
    "trial": None,
    "rolled_back": {"serial": 8, "digest": "y", "reason": "z"},
    "happened": {
        "release-refused": {"replayed": 22, "failed-trial": 23},
        "rolled-back": {"": 24},
        "drift-found": {"rules": 25},
        "drift-repaired": {"rules": 26},
    },
    "drift": {"link": "tidegate0 is down"},
    "settings_problem": "bad",
    "trouble": None,
    "offloads": "tso+uso",
    "flow_records": {"recording": True, "told": 18, "dropped": 19, "gaps": 20, "unreadable": 21},
    "restarts": {"forwarder": 1, "wireguard": 0, "flusher": 2},
}
TOLD = Told(STATUS, NOW - 100.0, 3, 1.5, 0.25)
ALL = Facts(
    TOLD,
    NOW,
    counters=counters.Snapshot(
        {reason.name.lower().replace("_", "-"): reason + 1 for reason in Reason},
        {reason.name.lower().replace("_", "-"): 100 * reason for reason in Reason},
        4,
        5,
    ),
    rules=Rules(
        {"ipv4": (10, 1000)}, {"ipv4": 262144}, {"forward": 6}, {"limit-upcalls": 8, "limit-flows": 9}
    ),
    flows={"ipv4": 9, "ipv6": 0},
    queue_dropped=11,
    tunnel={"received": (12, 1200), "sent": (13, 1300)},
    handshakes={id_of("alice"): NOW - 30, id_of("bob"): NOW + 5},
    events=Events(14, {"ring-full": 15, 'a "quoted\\\n': 16}, 17, 2, 18.5, 19.5),
    sources={"rules": True, "links": False},
)


def samples(page: bytes) -> dict[tuple[str, ...], float]:
    """Return the samples of a page by their names and the values of their labels, in the order of the catalogue."""
    return {
        (sample.name, *(sample.labels[label] for label in FAMILIES[sample.name].labels)): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


# The page ---------------------------------------------------------------------------------------------------------


def test_every_metric_of_the_catalogue_is_on_a_full_page_and_no_other_one() -> None:
    found = list(text_string_to_metric_families(metrics.page(ALL).decode()))
    names = {sample.name for family in found for sample in family.samples}
    assert names == FAMILIES.keys()
    for family in found:
        for sample in family.samples:
            wanted = FAMILIES[sample.name]
            assert (family.type, set(sample.labels)) == (wanted.kind, set(wanted.labels))
            assert family.documentation == wanted.meaning


@pytest.mark.parametrize("kind", CATALOGUES)
def test_the_page_of_the_documents_is_the_catalogue(kind: str) -> None:
    assert written_metrics(kind) == table_of_metrics(kind), "python tests/doctables.py writes it anew"


EVERY = {**client_metrics.FAMILIES, **FAMILIES}


@pytest.mark.parametrize("name", EVERY)
def test_a_name_follows_the_conventions(name: str) -> None:
    """https://prometheus.io/docs/practices/naming/."""
    family = EVERY[name]
    assert re.fullmatch(r"tidegate(_[a-z]+)+", name)
    assert name.endswith("_total") == (family.kind == "counter")
    assert family.kind in ("counter", "gauge")
    for unit in ("seconds", "bytes"):
        assert name.removesuffix("_total").endswith(f"_{unit}") == (family.unit == unit)
    assert not re.search(r"_(milliseconds|ms|minutes|kilobytes|kb|count|sum|bucket|created)(_|$)", name)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in family.labels)
    assert not {"le", "quantile", "job", "instance"} & set(family.labels)
    assert family.meaning.endswith(".")
    assert "|" not in family.meaning


def test_the_values_are_those_of_the_facts() -> None:
    found = samples(metrics.page(ALL))
    expected = {
        ("tidegate_generation",): 3,
        ("tidegate_authz_mode", "enforce"): 1,
        ("tidegate_authz_mode", "observe"): 0,
        ("tidegate_release_serial",): 7,
        ("tidegate_settings_refused",): 1,
        ("tidegate_release_stale",): 1,
        ("tidegate_release_on_trial",): 0,
        ("tidegate_release_rolled_back",): 1,
        ("tidegate_release_refusals_total", "replayed"): 22,
        ("tidegate_release_rollbacks_total",): 24,
        ("tidegate_drift_found_total", "rules"): 25,
        ("tidegate_drift_repaired_total", "rules"): 26,
        ("tidegate_drift", "rules"): 0,
        ("tidegate_drift", "link"): 1,
        ("tidegate_trouble",): 0,
        ("tidegate_offloads", "tso+uso"): 1,
        ("tidegate_offloads", "none"): 0,
        ("tidegate_swaps_total",): 3,
        ("tidegate_swap_last_seconds",): 0.25,
        ("tidegate_restarts_total", "flusher"): 2,
        ("tidegate_flow_recording",): 1,
        ("tidegate_flow_records_total",): 18,
        ("tidegate_flow_records_dropped_total",): 19,
        ("tidegate_flow_gaps_total",): 20,
        ("tidegate_flow_messages_unreadable_total",): 21,
        ("tidegate_upcall_packets_total", "deny", "no-rule"): Reason.NO_RULE + 1,
        ("tidegate_flow_set_bytes_total", "ipv4"): 1000,
        ("tidegate_limit_dropped_packets_total", "limit-upcalls"): 8,
        ("tidegate_flow_set_refused_packets_total",): 9,
        ("tidegate_events_dropped_total", 'a "quoted\\\n'): 16,
        ("tidegate_source_up", "links"): 0,
        ("tidegate_handshake_age_seconds", id_of("alice")): 30,
        ("tidegate_handshake_age_seconds", id_of("bob")): 0,  # by a clock that was set back meanwhile
    }
    assert {name: found[name] for name in expected} == expected


def test_what_is_not_known_has_no_sample() -> None:
    status = {**STATUS, "release": None}
    found = samples(metrics.page(Facts(Told(status, NOW, 0, 0.0, 0.0), NOW)))
    names = {name[0] for name in found}
    assert "tidegate_generation" in names
    assert not names & {
        *("tidegate_release_serial", "tidegate_swap_last_seconds", "tidegate_upcall_packets_total"),
        *("tidegate_flow_set_flows", "tidegate_handshake_age_seconds", "tidegate_events_pending"),
    }


def test_each_reason_has_the_verdict_that_the_policy_gives_with_it() -> None:
    for reason in Reason:
        assert ("tidegate_upcall_packets_total", "allow" if reason in metrics.ALLOWING else "deny",
                reason.name.lower().replace("_", "-")) in samples(metrics.page(ALL))  # fmt: skip
    rules = [
        {"to": ["10.0.0.1/32"], "ports": ["any"]},
        {"to": ["10.0.0.2/32"], "ports": ["any"], "action": "deny"},
        {"to": ["10.0.0.3/32"], "ports": ["any"], "expires": NOW - 1},
    ]
    judged = [
        PolicyTable(policy(alice=rules)).decide(id_of("alice"), raw(f"10.0.0.{n}"), 6, 80, NOW)
        for n in range(5)
    ]
    judged.append(PolicyTable(None).decide(id_of("alice"), raw("10.0.0.1"), 6, 80, NOW))
    assert {verdict.reason for verdict in judged} >= {Reason.ALLOWED, Reason.DENIED, Reason.OUT_OF_TIME}
    assert all(verdict.allow == (verdict.reason in metrics.ALLOWING) for verdict in judged)


# The facts --------------------------------------------------------------------------------------------------------

NET_DEV = """Inter-|   Receive                             |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs …
    lo: 2198482    3480    0    0    0     0     0     0  2198482    3480    0    0    0     0    0    0
tidegate-tun:       1       2    3    4    5     6     7     8  9    10    11    12    13     14    15    16
"""


def _rule(chain: str, *expressions: dict[str, Any], table: str = "tidegate") -> dict[str, Any]:
    return {
        "rule": {"family": "inet", "table": table, "chain": chain, "handle": 1, "expr": list(expressions)}
    }


def _counter(packets: int) -> dict[str, Any]:
    return {"counter": {"packets": packets, "bytes": packets * 100}}


def _named(name: str, table: str) -> dict[str, Any]:
    return {"counter": {"family": "inet", "name": name, "table": table, "packets": 7, "bytes": 1}}


def test_links_are_read() -> None:
    links = facts.read_links(NET_DEV)
    assert links.keys() == {"lo", "tidegate-tun"}
    assert links["tidegate-tun"] == ((2, 1), (10, 9), 12)


def test_the_counters_of_our_table_are_read_and_nobody_else_s() -> None:
    hit = {"match": {"op": "==", "left": {}, "right": "@flows4"}}
    drop: dict[str, Any] = {"drop": None}
    listing = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "tidegate", "handle": 1}},
        {"set": {"family": "inet", "name": "flows4", "table": "tidegate", "type": "mark", "size": 262144}},
        {"set": {"family": "inet", "name": "live", "table": "tidegate", "type": "mark"}},
        {"set": {"family": "inet", "name": "flows6", "table": "other", "type": "mark", "size": 1}},
        _named("limit_upcalls", "tidegate"),
        _named("limit_flows", "other"),
        _rule(
            "raw",
            {"match": {"op": "in", "left": {}, "right": {"set": [1]}}},
            hit,
            _counter(3),
            {"accept": None},
        ),
        _rule("raw", {"match": {"op": "==", "left": {}, "right": 5}}, _counter(2), drop),
        _rule("raw", {"counter": "limit_upcalls"}, drop),
        _rule("forward", _counter(4), drop),
        _rule("forward", _counter(5), drop),
        _rule("forward", _counter(6), {"accept": None}),
        _rule("forward", _counter(7), drop, table="other"),
    ]
    assert facts.read_rules(json.dumps({"nftables": listing})) == Rules(
        {"ipv4": (3, 300)}, {"ipv4": 262144}, {"raw": 2, "forward": 9}, {"limit-upcalls": 7}
    )


def test_a_dear_source_rests_and_a_failure_is_remembered_as_an_answer_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(facts.time, "monotonic", lambda: now)
    asked = []

    def ask() -> int:
        nonlocal now
        asked.append(now)
        now += 2
        if len(asked) == 2:
            raise OSError("gone")
        return len(asked)

    sparing = facts.Sparing(ask, 20)
    assert [sparing(), sparing()] == [1, 1]
    now = 141.9
    assert sparing() == 1
    now = 142.0
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            sparing()
    now += 40
    assert sparing() == 3
    assert asked == [100, 142, 184]


def test_a_source_that_fails_costs_its_own_samples_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places("gateway", tmp_path, tmp_path, tmp_path)
    places.flusher_status.parent.mkdir(parents=True)
    counted = counters.Counters(places.run / "counters")
    counted.add(Reason.ALLOWED, 3, 300)
    shaken = f"{key('alice')}\t{NOW}\n{key('bob')}\t0\n"
    monkeypatch.setattr(facts.wireguard, "run", lambda *_: shaken)
    monkeypatch.setattr(facts.nft, "listing", lambda: "{")
    monkeypatch.setattr(facts.flowcount, "flows", lambda: {}.popitem())
    events = {"sent": 1, "pending": 1 << 64, "dropped_by_reason": {}, "dropped_ring_full": 0}
    places.flusher_status.write_text(json.dumps(events))
    found = facts.Gatherer(places, "nothing0", "nothing1").gather(TOLD)
    assert found.sources == dict.fromkeys(facts.SOURCES, True) | {
        "rules": False, "flow-set": False, "events": False
    }  # fmt: skip
    assert found.handshakes == {id_of("alice"): NOW}
    assert found.counters is not None
    assert found.counters.packets["allowed"] == 3
    assert (found.events, found.rules, found.flows, found.queue_dropped) == (None, None, {}, None)
    places.flusher_status.unlink()
    assert facts.Gatherer(places, "nothing0", "nothing1").gather(TOLD).sources["events"]
    shaken = "nonsense\n"
    assert not facts.Gatherer(places, "nothing0", "nothing1").gather(TOLD).sources["handshakes"]


def test_the_values_of_a_client_s_page_are_those_of_its_status_and_its_device() -> None:
    gateways = {
        key("fra1"): PeerState(PeerConfig(frozenset()), NOW - 30, 12, 34),
        key("fra2"): PeerState(PeerConfig(frozenset()), 0, 0, 0),
    }
    made = list(client_metrics.samples(STATUS, NOW - 100.0, gateways, NOW))
    page = metricpage.page(client_metrics.FAMILIES, made).decode()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert {name for name, *_ in found} == client_metrics.FAMILIES.keys()
    assert found["tidegate_gateways",] == 2
    assert found["tidegate_gateway_handshake_age_seconds", key("fra1")] == 30
    assert ("tidegate_gateway_handshake_age_seconds", key("fra2")) not in found
    assert found["tidegate_gateway_received_bytes_total", key("fra1")] == 12
    assert found["tidegate_gateway_sent_bytes_total", key("fra1")] == 34
    assert found["tidegate_release_serial",] == 7


# The server -------------------------------------------------------------------------------------------------------


class Served:
    """A server of pages on a socket of its own."""

    def __init__(self, path: Path, page: Callable[[], bytes]) -> None:
        self.path = path
        self.server = metricserver._Server(metricserver._bind_file(path), page)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.path))
        client.settimeout(5)
        return client

    def ask(self, request: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(request)
            return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "s", lambda: b"page\n")
    yield made
    made.server.stop()
    assert not made.server.alive


def test_only_get_metrics_is_answered(served: Served) -> None:
    answer = served.ask(b"GET /metrics HTTP/1.1\r\nhost: x\r\naccept: nonsense\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 200 OK", b"page\n")
    assert b"content-type: text/plain; version=0.0.4; charset=utf-8" in head.split(b"\r\n")
    assert served.ask(b"GET /metrics?x=y HTTP/1.1\r\n\r\n").endswith(b"page\n")
    for request, status in (
        (b"POST /metrics HTTP/1.1\r\ncontent-length: 5\r\n\r\n", b"405"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", b"404"),
        (b"\r\n\r\n", b"404"),
        (b"\xff\x00\r\n\r\n", b"404"),
    ):
        assert served.ask(request).split(b" ")[1] == status
        assert b"page\n" not in served.ask(request)


def test_a_head_without_an_end_is_cut(served: Served) -> None:
    with served.connect() as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sendall(b"x" * 10_000_000)
    assert served.ask(b"GET /metrics HTTP/1.1\r\n\r\n").endswith(b"page\n")


def test_whoever_is_slow_is_cut_at_the_deadline(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metricserver, "_SECONDS", 0.3)
    with served.connect() as client:
        client.sendall(b"GET /met")
        assert client.recv(1) == b""


def test_those_who_only_hold_on_keep_nobody_out(served: Served) -> None:
    held = [served.connect() for _ in range(metricserver._CONNECTIONS_MOST + 5)]
    assert served.ask(b"GET /metrics HTTP/1.1\r\n\r\n").endswith(b"page\n")
    assert held[0].recv(1) == b""  # the one that has been there longest
    for client in held:
        client.close()


def test_those_who_do_not_read_are_cut_and_their_number_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metricserver, "_SECONDS", 3.0)
    large = Served(tmp_path / "s", lambda: b"x" * (2 << 20))
    clients = []
    for _ in range(metricserver._CONNECTIONS_MOST):
        clients.append(large.connect())
        clients[-1].sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    until("all of them are being answered", lambda: large.server._answering == metricserver._CONNECTIONS_MOST)
    with large.connect() as client:
        assert client.recv(1) == b""  # turned away, and at once
    assert large.server._answering == metricserver._CONNECTIONS_MOST
    until("they have been cut", lambda: large.server._answering == 0)
    assert len(large.ask(b"GET /metrics HTTP/1.1\r\n\r\n")) > 2 << 20
    for client in clients:
        client.close()
    large.server.stop()


def test_a_page_that_cannot_be_made_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> bytes:
        raise RuntimeError("no page today")

    broken = Served(tmp_path / "s", fails)
    assert broken.ask(b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 500 ")
    broken.server.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "metrics: no page: RuntimeError: no page today"
    ]
    assert caplog.records[0].exc_info is None


def test_a_page_that_hangs_does_not_hold_up_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metricserver, "_JOIN_SECONDS", 0.1)
    begun, end = threading.Event(), threading.Event()

    def hangs() -> bytes:
        begun.set()
        end.wait(30)
        return b""

    hanging = Served(tmp_path / "s", hangs)
    with hanging.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert begun.wait(5)
        hanging.server.stop()
        assert hanging.server.alive
        end.set()
        until("the thread has ended", lambda: not hanging.server.alive)


def test_what_stands_in_the_way_is_named_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = Places("gateway", tmp_path, tmp_path, tmp_path)
    file = metricserver.socket_file(places)
    file.write_text("somebody's")
    one = exporter.Exporter(places, "nothing0", "nothing1")
    for _ in range(3):
        one.follow("socket", STATUS)
    assert [record.getMessage() for record in caplog.records] == [
        f"no metrics at {file}: something that is no socket is in its place"
    ]
    assert file.read_text() == "somebody's"
    file.unlink()
    one.follow("socket", STATUS)
    assert file.is_socket()
    assert file.stat().st_mode & 0o777 == 0o660
    one.follow("off", STATUS)
    assert not file.exists()
