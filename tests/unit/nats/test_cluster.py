"""Three servers with TLS between them: the stream's leader is killed during a push, and every host converges."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

import natskit
from natskit import Fleet, until
from tidegate_agents.receive.fetch import Me
from tidegate_agents.receive.receiver import Receiver
from tidegate_agents.receive.store import Store
from tidegate_compiler.publish import Published
from tidegate_compiler.targets import TargetError
from tidegate_schema.jetstream import layout
from tidegate_schema.jetstream.link import Link, LinkError
from unit.nats import kit

HOSTS = [f"host-{number:03}" for number in range(300)]
WATCHED = HOSTS[::15]
pytestmark = pytest.mark.needs_tools("nats-server")


def leader(fleet: Fleet) -> str:
    """Return the name of the stream's leader, "" while there is none."""

    async def work() -> str:
        async with Link(fleet.address, fleet.publisher(), layout.PUBLISHER_INBOX, "test") as link:
            reply = await link.request(f"$JS.API.STREAM.INFO.{layout.stream(fleet.fleet)}")
            found = json.loads(reply.data)
            return str(found.get("cluster", {}).get("leader") or "")

    try:
        return asyncio.run(work())
    except LinkError:
        return ""


def has_formed(fleet: Fleet) -> bool:
    """Tell whether the cluster takes a stream with a copy on each server."""
    try:
        return kit.push(fleet, kit.output({}), replicas=3).is_complete
    except TargetError:
        return False  # "no suitable peers": a server has not joined yet


class Receivers:
    """Receivers of several hosts in one thread."""

    def __init__(self, fleet: Fleet, place: Path) -> None:
        self._fleet, self._place = fleet, place
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._end = threading.Event()

    def __enter__(self) -> Receivers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    async def _all(self) -> None:
        stores = [Store(self._place, "client", host, 3) for host in WATCHED]
        receivers = [
            Receiver(
                Me(self._fleet.fleet, "client", host),
                self._fleet.address,
                self._fleet.host("client", host),
                store.__enter__(),
                lambda *_: None,
                poll=2.0,  # what a minute is in the field: a hint may be lost with its server
            )
            for host, store in zip(WATCHED, stores, strict=True)
        ]
        tasks = [asyncio.ensure_future(receiver.follow()) for receiver in receivers]
        while not self._end.is_set():
            await asyncio.sleep(0.05)
            for task in tasks:
                assert not task.done(), task.exception()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for store in stores:
            store.__exit__()

    def have(self, number: int) -> int:
        """Count those that have release `number` of every host's."""
        return sum(
            kit.accepted(self._place, "client", host).files["wg0.conf"] == kit.wg0(number + HOSTS.index(host))
            for host in WATCHED
            if kit.digest(self._place, "client", host)
        )


@pytest.mark.timeout(240)
def test_the_leader_is_killed_during_a_push_and_every_host_converges(tmp_path: Path) -> None:
    with natskit.cluster(tmp_path, kit.FLEET, [("client", host) for host in HOSTS]) as fleet:
        until(lambda: has_formed(fleet), what="a cluster that has a leader and all of its servers")
        with Receivers(fleet, tmp_path / "bundles") as receivers:
            assert kit.push(fleet, kit.clients(HOSTS), replicas=3).is_complete
            until(lambda: receivers.have(1) == len(WATCHED), 60, what="the first release everywhere")

            done: list[Published] = []
            push = threading.Thread(
                target=lambda: done.append(kit.push(fleet, kit.clients(HOSTS, first=1000), replicas=3))
            )
            push.start()
            until(lambda: 0 < receivers.have(1000) < len(WATCHED), 60, what="the middle of the push")
            (killed,) = (server for server in fleet.servers if server.name == leader(fleet))
            killed.kill()
            push.join(120)
            assert not push.is_alive()
            if not (done and done[0].is_complete):
                done.append(kit.push(fleet, kit.clients(HOSTS, first=1000), replicas=3))
            assert done[-1].is_complete
            until(lambda: receivers.have(1000) == len(WATCHED), 60, what="the second release everywhere")

            killed.start()
            assert kit.push(fleet, kit.clients(HOSTS, first=2000), replicas=3).is_complete
            until(lambda: receivers.have(2000) == len(WATCHED), 60, what="the third release everywhere")
