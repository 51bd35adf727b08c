"""A JetStream as a target of `publish`, on a real nats-server."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import natskit
from natskit import Fleet
from tidegate_compiler.output import Output
from tidegate_compiler.publish import Published, Terms, publish
from tidegate_compiler.targets import Conflict, NatsOptions, Options, TargetError, open_target
from tidegate_compiler.targets.nats import Nats
from tidegate_schema.jetstream import layout
from tidegate_schema.jetstream.link import Address, Link, Papers
from unit.nats import kit

STREAM = layout.stream(kit.FLEET)
pytestmark = pytest.mark.needs_tools("nats-server")


def pushed(address: Address, out: Output, **terms: Any) -> Published:
    """Publish to a server without users."""
    options = Options(write=not terms.get("dry_run", False), fleet=kit.FLEET)
    with open_target(str(address), options) as target:
        return publish(out, target, kit.SIGNING, Terms(int(time.time()), 30 * kit.DAY, "test", **terms))


def asked(address: Address, subject: str, body: Mapping[str, Any] | None = None) -> Any:
    async def work() -> Any:
        async with Link(address, Papers(), "_INBOX.test", "test") as link:
            return json.loads((await link.request(subject, json.dumps(body or {}).encode())).data)

    return asyncio.run(work())


def subjects(address: Address) -> set[str]:
    found = asked(address, f"$JS.API.STREAM.INFO.{STREAM}", {"subjects_filter": ">"})
    return set(found["state"].get("subjects") or {})


def named(address: Address, host: str) -> list[layout.Entry]:
    body = {"last_by_subj": layout.pointer(kit.FLEET, "client", host)}
    data = base64.b64decode(asked(address, f"$JS.API.STREAM.MSG.GET.{STREAM}", body)["message"]["data"])
    return list(layout.read_pointer("client", data))


@pytest.fixture
def server(tmp_path: Path) -> Any:
    with natskit.plain(tmp_path, kit.FLEET) as found:
        yield found


def test_only_what_changed_is_pushed_and_the_last_releases_are_kept(server: Fleet) -> None:
    address = server.address
    assert {row.action for row in pushed(address, kit.clients(["a", "b"])).rows} == {"published"}
    assert {row.action for row in pushed(address, kit.clients(["a", "b"])).rows} == {"unchanged"}
    for number in range(2, 8):
        out = kit.output(
            {("client", "a"): {"wg0.conf": kit.wg0(number)}, ("client", "b"): {"wg0.conf": kit.wg0(2)}}
        )
        done = pushed(address, out, keep=3)
        assert kit.serials(done)[0] == ("a", "published", number)
    assert [kit.wg0(7), kit.wg0(6), kit.wg0(5)] == [
        _payload(address, "a", entry) for entry in named(address, "a")
    ]
    held = {subject for subject in subjects(address) if ".client.a." in subject}
    parts = {part for entry in named(address, "a") for part in entry.parts()}
    assert {subject.rpartition(".")[2] for subject in held} == parts | {"current"}
    assert pushed(address, kit.clients(["b"], first=2)).left_behind == (("client", "a"),)


def _payload(address: Address, host: str, entry: layout.Entry) -> bytes:
    (part,) = entry.files["wg0.conf"].parts
    body = {"last_by_subj": layout.part(kit.FLEET, "client", host, part)}
    return base64.b64decode(asked(address, f"$JS.API.STREAM.MSG.GET.{STREAM}", body)["message"]["data"])


def test_the_index_saves_reading_and_cannot_make_a_host_miss_a_change(server: Fleet) -> None:
    address, out = server.address, kit.clients(["a", "b"])
    pushed(address, out)
    read = []
    real = Nats.find

    def counted(self: Nats, kind: str, host: str) -> Any:
        read.append(host)
        return real(self, kind, host)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Nats, "find", counted)
        pushed(address, out)
        assert read == []
        asked(address, f"{layout.index(kit.FLEET)}.current", {"size": -1})
        assert {row.action for row in pushed(address, out).rows} == {"unchanged"}
        assert sorted(read) == ["a", "b"]


def test_a_dry_run_makes_nothing(server: Fleet) -> None:
    done = pushed(server.address, kit.clients(["a"]), dry_run=True)
    assert kit.serials(done) == [("a", "published", 1)]
    assert asked(server.address, f"$JS.API.STREAM.INFO.{STREAM}")["error"]["err_code"] == 10059


def test_of_two_publishers_at_once_one_is_told(server: Fleet) -> None:
    address = server.address
    pushed(address, kit.clients(["a"]))
    with open_target(str(address), Options(fleet=kit.FLEET)) as slow:
        found = slow.find("client", "a")
        pushed(address, kit.clients(["a"], first=2))
        entry = named(address, "a")[0]
        files = {"wg0.conf": kit.wg0(3), "release.json": b"x"}
        with pytest.raises(Conflict, match="at the same time"):
            slow.put("client", "a", "0" * 64, files, found, 1)
    assert named(address, "a")[0] == entry
    assert _payload(address, "a", entry) == kit.wg0(2)


def test_a_publisher_that_purges_takes_nothing_that_another_relies_on(server: Fleet) -> None:
    """The other takes up files again that the first has just dropped."""
    address = server.address
    pushed(address, kit.clients(["a"]))
    old = named(address, "a")[0]
    with open_target(str(address), Options(fleet=kit.FLEET)) as slow:
        assert isinstance(slow, Nats)
        purge, purged = slow._purge, []

        async def late(prefix: str, parts: Any, before: int) -> None:
            purged.append((prefix, sorted(parts), before))

        slow._purge = late  # type: ignore[method-assign]
        found = slow.find("client", "a")
        slow.put("client", "a", "0" * 64, {"wg0.conf": kit.wg0(2), "release.json": b"{}"}, found, 1)
        pushed(address, kit.clients(["a"]), keep=1)  # the old files, and so the old parts, again
        ((prefix, parts, before),) = purged
        assert set(old.files["wg0.conf"].parts) <= set(parts)
        slow._do(purge(prefix, parts, before))
    assert _payload(address, "a", named(address, "a")[0]) == kit.wg0(1)


def test_what_a_killed_publish_has_left_is_purged_by_the_next(server: Fleet) -> None:
    address = server.address
    pushed(address, kit.clients(["a"]))
    orphan = layout.part(kit.FLEET, "client", "a", "f" * 64)
    asked(address, orphan)
    pushed(address, kit.clients(["a"], first=2))  # only what is older than the pointer may go
    assert orphan in subjects(address)
    pushed(address, kit.clients(["a"], first=2))
    assert orphan not in subjects(address)


def test_a_stream_of_another_layout_is_refused_and_left_as_it_is(server: Fleet) -> None:
    right = {
        "name": STREAM,
        "subjects": [layout.of_fleet(kit.FLEET)],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "allow_direct": True,
    }
    for name, change in {
        "discard": {"discard": "old"},
        "max_msgs_per_subject": {"max_msgs_per_subject": 5},
        "max_age": {"max_age": 3600 * 10**9},
        "allow_direct": {"allow_direct": False},
        "storage": {"storage": "memory"},
        "subjects": {"subjects": ["tidegate.>"]},
        "max_msgs": {"max_msgs": 10},
        "deny_purge": {"deny_purge": True},
    }.items():
        made = asked(server.address, f"$JS.API.STREAM.CREATE.{STREAM}", {**right, **change})
        assert "error" not in made, made
        with pytest.raises(TargetError, match=f"of another layout.*{name}"):
            pushed(server.address, kit.clients(["a"]))
        asked(server.address, f"$JS.API.STREAM.DELETE.{STREAM}")


def test_a_full_store_fails_its_hosts_in_a_line_and_takes_nothing_from_others(tmp_path: Path) -> None:
    with natskit.plain(tmp_path, kit.FLEET, "max_mem: 1M, max_file: 3M") as full:
        pushed(full.address, kit.clients(["a"]))
        big = {("gateway", f"gw{number}"): {"peers.json": kit.peers(700_000)} for number in range(6)}
        done = pushed(full.address, kit.output({**kit.clients(["a"]).hosts, **big}), jobs=1)
        actions = [row.action for row in done.rows]
        assert actions[0] == "unchanged"
        assert "published" in actions
        failed = [row for row in done.rows if row.action == "failed"]
        assert failed
        assert all("the store is full" in row.reason and "\n" not in row.reason for row in failed)
        assert _payload(full.address, "a", named(full.address, "a")[0]) == kit.wg0(1)


def test_a_stream_that_may_not_grow_any_more_drops_no_other_host_s_release(server: Fleet) -> None:
    address = server.address
    pushed(address, kit.clients(["a"]))
    config = asked(address, f"$JS.API.STREAM.INFO.{STREAM}")["config"]
    assert "error" not in asked(address, f"$JS.API.STREAM.UPDATE.{STREAM}", {**config, "max_bytes": 1 << 20})
    big = {("gateway", f"gw{number}"): {"peers.json": kit.peers(400_000)} for number in range(6)}
    failed = [row for row in pushed(address, kit.output(big), jobs=1).rows if row.action == "failed"]
    assert failed
    assert all("the store is full" in row.reason for row in failed)
    assert _payload(address, "a", named(address, "a")[0]) == kit.wg0(1)


def test_a_server_without_jetstream_is_named(tmp_path: Path) -> None:
    with natskit.plain(tmp_path, kit.FLEET, "") as without, pytest.raises(TargetError, match="not enabled"):
        pushed(without.address, kit.clients(["a"]))


def test_nobody_there_is_told_in_a_line() -> None:
    with pytest.raises(TargetError, match="connection refused") as refused:
        pushed(Address((f"127.0.0.1:{natskit.free_port()}",), False), kit.clients(["a"]))
    assert "\n" not in str(refused.value)


def test_a_host_s_certificate_publishes_nothing(fleet: Fleet) -> None:
    with (
        pytest.raises(TargetError, match=r"does not permit|no answer of JetStream"),
        kit.target(fleet, papers=fleet.host("client", "alice")),
    ):
        pass


def test_a_server_that_nobody_vouches_for_gets_nothing(fleet: Fleet, tmp_path: Path) -> None:
    other = natskit.Authority(tmp_path / "pki")
    papers = Papers(other.file, *fleet.authority.issue("publisher.my-fleet"))
    with (
        pytest.raises(TargetError, match="certificate is not trusted") as refused,
        kit.target(fleet, papers=papers),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_a_key_that_others_may_read_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    papers = natskit.Authority(tmp_path / "pki").papers("publisher.my-fleet")
    assert papers.key is not None
    papers.key.chmod(0o644)
    with pytest.raises(TargetError, match="others may read"), kit.target(fleet, papers=papers):
        pass


@pytest.mark.parametrize("name", ["nats://", "nats://user:secret@a", "tls://a/path"])
def test_what_is_no_url_is_refused_in_a_line_without_its_secret(name: str) -> None:
    with pytest.raises(TargetError) as refused:
        open_target(name, Options(fleet=kit.FLEET, nats=NatsOptions()))
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_server_that_is_killed_and_starts_again_has_kept_all_and_receivers_come_back(
    tmp_path: Path,
) -> None:
    hosts = [("client", "alice")]
    with natskit.one(tmp_path, kit.FLEET, hosts) as fleet:
        (server,) = fleet.servers
        kit.push(fleet, kit.clients(["alice"]))
        with kit.receiving(fleet, tmp_path, "client", "alice") as receiver:
            natskit.until(lambda: "received" in receiver.said(), what="the first release")
            server.kill(signal.SIGKILL)
            natskit.until(
                lambda: "connection" in kit.status(tmp_path, "client", "alice")["problem"], what="told"
            )
            server.start()
            kit.push(fleet, kit.clients(["alice"], first=2))
            natskit.until(lambda: receiver.said().count("received") == 2, what="the second release")
            natskit.until(lambda: kit.status(tmp_path, "client", "alice")["problem"] == "", what="mended")
            assert receiver.kill(signal.SIGTERM) == 0
    assert kit.accepted(tmp_path / "bundles", "client", "alice").files["wg0.conf"] == kit.wg0(2)


def test_another_fleet_s_stream_is_another(server: Fleet, tmp_path: Path) -> None:
    pushed(server.address, kit.clients(["a"]))
    with open_target(str(server.address), Options(fleet="their-fleet")) as other:
        assert other.hosts() == {}


def test_a_receiver_may_start_before_anything_was_ever_published(tmp_path: Path) -> None:
    with (
        natskit.one(tmp_path, kit.FLEET, [("client", "alice")]) as fleet,
        kit.receiving(fleet, tmp_path, "client", "alice") as receiver,
    ):
        natskit.until(lambda: "nothing was ever published" in receiver.said(), what="told")
        kit.push(fleet, kit.clients(["alice"]))
        natskit.until(lambda: "received" in receiver.said(), 60, "received")
        assert receiver.kill(signal.SIGTERM) == 0
