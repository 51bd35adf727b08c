"""What the server's permissions keep a host from: another host's releases in any way, and writing anything."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import natskit
import sandbox
from natskit import Fleet
from tidegate_compiler import natsconf
from tidegate_schema.jetstream import layout
from tidegate_schema.jetstream.link import Forbidden, Link, LinkError, Nobody
from unit.nats import kit
from unit.nats.conftest import HOSTS

STREAM = layout.stream(kit.FLEET)
BOB = layout.pointer(kit.FLEET, "client", "bob")
ALICE = layout.pointer(kit.FLEET, "client", "alice")
BY_SUBJECT = json.dumps({"last_by_subj": BOB}).encode()
CONSUMER = json.dumps(
    {"stream_name": STREAM, "config": {"deliver_subject": "_INBOX.client.alice.x", "filter_subject": BOB}}
).encode()

REQUESTS = {
    "direct-get": (layout.direct_get(kit.FLEET, BOB), b""),
    "direct-get-of-a-part": (
        layout.direct_get(kit.FLEET, layout.part(kit.FLEET, "client", "bob", "0" * 64)),
        b"",
    ),
    "direct-get-by-request": (f"$JS.API.DIRECT.GET.{STREAM}", BY_SUBJECT),
    "direct-get-of-the-first": (f"$JS.API.DIRECT.GET.{STREAM}", b'{"seq":1}'),
    "direct-get-of-the-index": (layout.direct_get(kit.FLEET, "tidegate.my-fleet.index.current"), b""),
    "direct-get-by-wildcard": (layout.direct_get(kit.FLEET, "tidegate.my-fleet.client.*.current"), b""),
    "msg-get": (f"$JS.API.STREAM.MSG.GET.{STREAM}", BY_SUBJECT),
    "stream-info": (f"$JS.API.STREAM.INFO.{STREAM}", b'{"subjects_filter":">"}'),
    "stream-names": ("$JS.API.STREAM.NAMES", b""),
    "stream-list": ("$JS.API.STREAM.LIST", b""),
    "account-info": ("$JS.API.INFO", b""),
    "consumer-create": (f"$JS.API.CONSUMER.CREATE.{STREAM}", CONSUMER),
    "consumer-create-filtered": (f"$JS.API.CONSUMER.CREATE.{STREAM}.x.{BOB}", CONSUMER),
    "consumer-durable": (f"$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.x", CONSUMER),
    "consumer-names": (f"$JS.API.CONSUMER.NAMES.{STREAM}", b""),
    "consumer-next": (f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.x", b""),
    "snapshot": (f"$JS.API.STREAM.SNAPSHOT.{STREAM}", b'{"deliver_subject":"_INBOX.client.alice.x"}'),
    "mirror": (
        "$JS.API.STREAM.CREATE.mine",
        b'{"name":"mine","mirror":{"name":"tidegate-my-fleet"},"retention":"limits","storage":"memory"}',
    ),
}
WRITES = {
    "own-pointer": (ALICE, b"forged"),
    "another-s-pointer": (BOB, b"forged"),
    "a-part": (layout.part(kit.FLEET, "client", "bob", "1" * 64), b"forged"),
    "index": ("tidegate.my-fleet.index.current", b"forged"),
    "purge": (f"$JS.API.STREAM.PURGE.{STREAM}", b""),
    "delete": (f"$JS.API.STREAM.DELETE.{STREAM}", b""),
    "delete-message": (f"$JS.API.STREAM.MSG.DELETE.{STREAM}", b'{"seq":1}'),
    "update": (f"$JS.API.STREAM.UPDATE.{STREAM}", b'{"name":"tidegate-my-fleet","subjects":["x"]}'),
    "another-s-answers": ("_INBOX.client.bob.abc.def", b"forged"),
}
SUBJECTS = (
    BOB,
    layout.part(kit.FLEET, "client", "bob", "0" * 64),
    "tidegate.my-fleet.client.*.current",
    "tidegate.>",
    "*.my-fleet.client.bob.current",
    ">",
    "_INBOX.>",
    "_INBOX.*.*.>",
    "_INBOX.client.bob.>",
    "$JS.>",
    "$JS.API.DIRECT.GET.>",
    "$SYS.>",
    "_R_.>",
    "$KV.>",
)


@pytest.fixture(scope="module", autouse=True)
def published(fleet: Fleet) -> None:
    kit.push(fleet, kit.clients(["alice", "bob"]))


def as_alice(fleet: Fleet, inbox: str = "_INBOX.client.alice") -> Link:
    return Link(fleet.address, fleet.host("client", "alice"), inbox, "test")


def ask(fleet: Fleet, subject: str, data: bytes = b"") -> bytes:
    async def work() -> bytes:
        async with as_alice(fleet) as link:
            return (await link.request(subject, data, seconds=2)).data

    return asyncio.run(work())


def everything(fleet: Fleet) -> object:
    """All that the stream says of itself, as its publisher may see it."""

    async def work() -> object:
        async with Link(fleet.address, fleet.publisher(), layout.PUBLISHER_INBOX, "test") as link:
            reply = await link.request(f"$JS.API.STREAM.INFO.{STREAM}", b'{"subjects_filter":">"}')
            return json.loads(reply.data)["state"]

    return asyncio.run(work())


def test_a_host_reads_its_own(fleet: Fleet) -> None:
    (entry, *_) = layout.read_pointer("client", ask(fleet, layout.direct_get(kit.FLEET, ALICE)))
    (part,) = entry.files["wg0.conf"].parts
    subject = layout.direct_get(kit.FLEET, layout.part(kit.FLEET, "client", "alice", part))
    assert ask(fleet, subject).startswith(b"[Interface]")


@pytest.mark.parametrize("name", REQUESTS)
def test_no_request_brings_another_host_s_release(fleet: Fleet, name: str) -> None:
    with pytest.raises((Forbidden, Nobody)) as refused:
        ask(fleet, *REQUESTS[name])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", WRITES)
def test_a_host_writes_nothing(fleet: Fleet, name: str) -> None:
    before = everything(fleet)
    with pytest.raises((Forbidden, Nobody)):
        ask(fleet, *WRITES[name])
    assert everything(fleet) == before


@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_subscription_hears_of_another_host(fleet: Fleet, subject: str) -> None:
    heard: list[bytes] = []

    async def work() -> LinkError:
        async with as_alice(fleet) as link:
            await link.subscribe(subject, heard.append)
            return await asyncio.wait_for(link.lost(), 5)

    assert isinstance(asyncio.run(work()), Forbidden)
    assert heard == []


def led_into_the_stream(fleet: Fleet) -> bool:
    """Whether alice can have the answer to her own request stored as another host's pointer."""
    before = everything(fleet)
    carol = layout.pointer(kit.FLEET, "client", "carol")

    async def work() -> None:
        async with as_alice(fleet) as link:
            client = link._client
            assert client is not None
            for reply in (BOB, carol):
                await client.publish(layout.direct_get(kit.FLEET, ALICE), b"", reply=reply)
            for _ in range(20):  # answered after those before
                await link.request(layout.direct_get(kit.FLEET, ALICE))

    asyncio.run(work())
    return everything(fleet) != before


def test_no_answer_can_be_led_into_the_stream(fleet: Fleet) -> None:
    assert not led_into_the_stream(fleet)


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A server with one account for all, and hosts' permissions in it: as one may write it, not thinking of replies."""
    if sandbox.missing_tools("nats-server"):
        pytest.skip("needs nats-server (not installed)")
    place = tmp_path_factory.mktemp("careless")
    with natskit.one(place, kit.FLEET, HOSTS) as found:
        text = natsconf.accounts(kit.FLEET, HOSTS)
        users = re.findall(r"^ +(\{ user: .*)$", text, re.MULTILINE)
        one_account = f'accounts {{ "all": {{ jetstream: enabled, users: [ {", ".join(users)} ] }} }}\n'
        (server,) = found.servers
        server.kill()
        (server.place / "accounts.conf").write_text(one_account)
        server.start()
        kit.push(found, kit.clients(["alice", "bob"]))
        yield found


def test_in_one_account_it_can_which_is_why_there_are_two(careless: Fleet) -> None:
    """Checks the check: without the second account the test above fails."""
    assert led_into_the_stream(careless)


def test_without_its_permissions_a_host_reads_everything(fleet: Fleet, tmp_path: Path) -> None:
    """Checks the checks: what refuses above are these permissions and nothing else."""
    with natskit.one(tmp_path, kit.FLEET, HOSTS) as found:
        text = natsconf.accounts(kit.FLEET, HOSTS)
        (server,) = found.servers
        server.kill()
        (server.place / "accounts.conf").write_text(re.sub(r", permissions: .*?\] \}", "", text))
        server.start()
        kit.push(found, kit.clients(["alice", "bob"]))
        assert layout.read_pointer("client", ask(found, layout.direct_get(kit.FLEET, BOB)))


@pytest.mark.parametrize("kind", ["nobody", "stranger", "another-fleet"])
def test_who_is_not_known_gets_no_further_than_the_handshake(fleet: Fleet, kind: str, tmp_path: Path) -> None:
    own, other = fleet.authority, natskit.Authority(tmp_path / "pki")
    papers = {
        "nobody": natskit.Papers(own.file),
        "stranger": natskit.Papers(own.file, *other.issue("alice.client.my-fleet")),
        "another-fleet": own.papers("alice.client.their-fleet"),
    }[kind]

    async def work() -> None:
        async with Link(fleet.address, papers, "_INBOX.client.alice", "test"):
            pass

    with pytest.raises(LinkError) as refused:
        asyncio.run(work())
    assert "\n" not in str(refused.value)


def test_a_server_that_nobody_vouches_for_is_left_in_one_line(fleet: Fleet, tmp_path: Path) -> None:
    other = natskit.Authority(tmp_path / "pki")
    papers = natskit.Papers(other.file, *fleet.authority.issue("alice.client.my-fleet"))
    done = kit.once(fleet, tmp_path, "client", "alice", papers=papers)
    assert done.returncode == 1
    assert "certificate is not trusted" in done.stderr
    assert done.stderr.count("\n") == 1
