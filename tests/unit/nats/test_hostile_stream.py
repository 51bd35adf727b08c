"""Whatever the stream holds, a receiver takes a whole release of its host, or changes nothing and says so in a line."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from natskit import Fleet
from tidegate_agents.receive import claims
from tidegate_agents.receive.fetch import Damaged, Incomplete, Refused
from tidegate_schema import jsonfile
from tidegate_schema.jetstream import layout
from tidegate_schema.jetstream.layout import Entry, Stored
from tidegate_schema.jetstream.link import Link
from tidegate_schema.release import (
    FileEntry,
    Release,
    ReleaseError,
    files_digest,
    generate_key,
    load_signer,
    sign,
)
from unit.nats import killed, kit

ME = ("client", "alice")
PREFIX = layout.of_host(kit.FLEET, *ME)
WG0 = kit.wg0(9)


def store(fleet: Fleet, messages: Mapping[str, bytes]) -> None:
    async def work() -> None:
        async with Link(fleet.address, fleet.publisher(), layout.PUBLISHER_INBOX, "test") as link:
            for subject, data in messages.items():
                reply = await link.request(subject, data)
                assert b"error" not in reply.data, reply

    asyncio.run(work())


def envelope(**changes: Any) -> bytes:
    """A well signed release of alice's, or of somebody else."""
    fields: dict[str, Any] = {
        "fleet": kit.FLEET,
        "kind": "client",
        "host": "alice",
        "serial": 50,
        "not_after": 4_000_000_000,
        "source": "test",
        "files": {"wg0.conf": FileEntry.of(WG0)},
    }
    return kit.SIGNING.sign(Release(**{**fields, **changes}))


def offered(files: Mapping[str, bytes], digest: str | None = None) -> dict[str, bytes]:
    """Return the messages of a release, whatever its files are."""
    entries = {"wg0.conf": FileEntry.of(files.get("wg0.conf", b""))}
    entry = Entry(digest or files_digest(entries), {name: Stored.of(data) for name, data in files.items()})
    parts = {layout.sha256(part): part for data in files.values() for part in layout.cut(data)}
    messages = {f"{PREFIX}.part.{name}": part for name, part in parts.items()}
    return {**messages, f"{PREFIX}.current": layout.pointer_bytes([entry])}


def pointer(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a right pointer with a change."""
    messages = offered({"wg0.conf": WG0, "release.json": envelope()})
    document = json.loads(messages[f"{PREFIX}.current"])
    changed = change(document)
    return jsonfile.canonical(changed if isinstance(changed, (list, int)) else document)


def release(document: dict[str, Any]) -> dict[str, Any]:
    return document["releases"][0]  # type: ignore[no-any-return]


def wg0(document: dict[str, Any]) -> dict[str, Any]:
    return release(document)["files"]["wg0.conf"]  # type: ignore[no-any-return]


POINTERS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "no-json": lambda: b"\x00\xff" * 10,
    "cut-json": lambda: b'{"format":1,',
    "deep": lambda: b"[" * 100_000,
    "twice": lambda: b'{"format":1,"format":1,"releases":[]}',
    "list": lambda: pointer(lambda d: [d]),
    "huge": lambda: pointer(lambda d: None) + b" " * layout.POINTER_MAX_BYTES,
    "format": lambda: pointer(lambda d: d.update(format=2)),
    "format-true": lambda: pointer(lambda d: d.update(format=True)),
    "member": lambda: pointer(lambda d: d.update(run="rm -rf /")),
    "no-release": lambda: pointer(lambda d: d["releases"].clear()),
    "many-releases": lambda: pointer(lambda d: d.update(releases=d["releases"] * 7)),
    "releases-object": lambda: pointer(lambda d: d.update(releases={"0": release(d)})),
    "cycle": lambda: pointer(lambda d: release(d).update(digest="../" * 10)),
    "digest-path": lambda: pointer(lambda d: release(d).update(digest="../../../etc/x")),
    "digest-newline": lambda: pointer(lambda d: release(d).update(digest="0" * 64 + "\n")),
    "digest-number": lambda: pointer(lambda d: release(d).update(digest=7)),
    "file-path": lambda: pointer(lambda d: release(d)["files"].update({"../../../x": wg0(d)})),
    "file-absolute": lambda: pointer(lambda d: release(d)["files"].update({"/etc/cron.d/x": wg0(d)})),
    "file-hidden": lambda: pointer(lambda d: release(d)["files"].update({".new": wg0(d)})),
    "file-of-a-gateway": lambda: pointer(lambda d: release(d)["files"].update({"peers.json": wg0(d)})),
    "no-envelope": lambda: pointer(lambda d: release(d)["files"].pop("release.json")),
    "no-payload": lambda: pointer(lambda d: release(d)["files"].pop("wg0.conf")),
    "files-list": lambda: pointer(lambda d: release(d).update(files=["wg0.conf"])),
    "size-negative": lambda: pointer(lambda d: wg0(d).update(size=-1)),
    "size-huge": lambda: pointer(lambda d: wg0(d).update(size=1 << 62)),
    "size-past-the-limit": lambda: pointer(lambda d: wg0(d).update(size=(1 << 20) + 1, parts=["0" * 64] * 3)),
    "size-true": lambda: pointer(lambda d: wg0(d).update(size=True)),
    "size-text": lambda: pointer(lambda d: wg0(d).update(size="1")),
    "size-fraction": lambda: pointer(lambda d: wg0(d).update(size=1.0)),
    "parts-many": lambda: pointer(lambda d: wg0(d).update(parts=["0" * 64] * 3000)),
    "parts-none": lambda: pointer(lambda d: wg0(d).update(parts=[])),
    "parts-text": lambda: pointer(lambda d: wg0(d).update(parts="0" * 64)),
    "part-wildcard": lambda: pointer(lambda d: wg0(d).update(parts=[">"])),
    "part-of-another": lambda: pointer(lambda d: wg0(d).update(parts=["0" * 64 + ".tidegate"])),
    "part-line": lambda: pointer(lambda d: wg0(d).update(parts=["0" * 62 + "\r\n"])),
    "part-absent": lambda: pointer(lambda d: wg0(d).update(parts=["0" * 64])),
    "size-other": lambda: pointer(lambda d: wg0(d).update(size=len(WG0) - 1)),
}

WHOLE: dict[str, Callable[[], dict[str, bytes]]] = {
    "other-host": lambda: offered({"wg0.conf": WG0, "release.json": envelope(host="bob")}),
    "other-fleet": lambda: offered({"wg0.conf": WG0, "release.json": envelope(fleet="theirs")}),
    "other-kind": lambda: offered({"wg0.conf": WG0, "release.json": envelope(kind="gateway")}),
    "other-files": lambda: offered({"wg0.conf": kit.wg0(8), "release.json": envelope()}),
    "other-digest": lambda: offered({"wg0.conf": WG0, "release.json": envelope()}, "1" * 64),
    "envelope-junk": lambda: offered({"wg0.conf": WG0, "release.json": b"junk"}),
    "envelope-empty": lambda: offered({"wg0.conf": WG0, "release.json": b""}),
    "envelope-list": lambda: offered({"wg0.conf": WG0, "release.json": b"[]"}),
    "payload-junk": lambda: offered({"wg0.conf": WG0, "release.json": _payload(b"junk")}),
    "payload-types": lambda: offered(
        {"wg0.conf": WG0, "release.json": _payload(b'{"files":{"wg0.conf":7}}')}
    ),
}


def _payload(data: bytes) -> bytes:
    return jsonfile.canonical(
        {"payload": base64.b64encode(data).decode(), "payloadType": "x", "signatures": []}
    )


@pytest.fixture
def received(fleet: Fleet, tmp_path: Path) -> Path:
    """A place with a release."""
    kit.push(fleet, kit.clients(["alice"]))
    killed.receive(fleet, tmp_path, *ME)
    return tmp_path


def everything(place: Path) -> dict[str, object]:
    return {
        str(path.relative_to(place)): path.readlink()
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in sorted(place.rglob("*"))
    }


def refused(fleet: Fleet, place: Path, messages: Mapping[str, bytes]) -> Refused:
    store(fleet, messages)
    before = everything(place)
    with pytest.raises(Refused) as error:
        killed.receive(fleet, place, *ME)
    assert everything(place) == before
    assert "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize("name", POINTERS)
def test_a_hostile_pointer_is_refused_in_a_line_and_nothing_changes(
    fleet: Fleet, received: Path, name: str
) -> None:
    error = refused(fleet, received, {f"{PREFIX}.current": POINTERS[name]()})
    # All but two are refused before any part is asked for.
    assert isinstance(error, (Incomplete, Damaged)) == (name in ("part-absent", "size-other"))


@pytest.mark.parametrize("name", WHOLE)
def test_a_release_that_is_not_this_host_s_or_not_whole_is_refused(
    fleet: Fleet, received: Path, name: str
) -> None:
    assert refused(fleet, received, WHOLE[name]())


def test_the_command_says_it_in_a_line_and_ends_with_1(fleet: Fleet, received: Path) -> None:
    store(fleet, {f"{PREFIX}.current": POINTERS["digest-path"]()})
    done = kit.once(fleet, received, *ME)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "connected" not in line] == [
        "tidegate: a release's digest is none"
    ]


def test_a_part_that_is_not_what_its_name_says_is_refused(fleet: Fleet, received: Path) -> None:
    messages = offered({"wg0.conf": WG0, "release.json": envelope()})
    forged = {
        subject: data.replace(b"10.64", b"10.65") if data == WG0 else data
        for subject, data in messages.items()
    }
    assert "is not what its name says" in str(refused(fleet, received, forged))
    store(fleet, messages)
    killed.receive(fleet, received, *ME)  # and it is taken when it is mended
    assert kit.accepted(received / "bundles", *ME).files["wg0.conf"] == WG0


def test_a_publish_mends_whatever_the_stream_holds(fleet: Fleet, received: Path) -> None:
    store(fleet, {f"{PREFIX}.current": b"junk"})
    (row,) = kit.push(fleet, kit.clients(["alice"], first=30)).rows
    assert row.action == "published"
    killed.receive(fleet, received, *ME)
    assert kit.accepted(received / "bundles", *ME).files["wg0.conf"] == kit.wg0(30)


def test_a_publish_mends_a_pointer_that_names_another_digest(fleet: Fleet, received: Path) -> None:
    """All else is as it was, and no host takes it."""
    store(fleet, offered({"wg0.conf": WG0, "release.json": envelope()}, digest="0" * 64))
    (row,) = kit.push(fleet, kit.clients(["alice"], first=9)).rows
    assert (row.action, row.serial) == ("published", 51)
    killed.receive(fleet, received, *ME)
    assert kit.accepted(received / "bundles", *ME).release.serial == 51


def test_a_release_that_nobody_trusts_is_passed_on_for_the_agent_to_refuse(
    fleet: Fleet, received: Path
) -> None:
    """Who signed is the agent's business; that is where trust is."""
    statement = Release(kit.FLEET, *ME, 99, 4_000_000_000, "test", {"wg0.conf": FileEntry.of(WG0)})
    store(fleet, offered({"wg0.conf": WG0, "release.json": sign(statement, load_signer(generate_key()[0]))}))
    killed.receive(fleet, received, *ME)
    with pytest.raises(ReleaseError, match="wrong-key"):
        kit.accepted(received / "bundles", *ME)


def test_claims_are_read_of_any_format(fleet: Fleet) -> None:
    """An agent may know a format that its receiver does not."""
    payload = {
        "format": 9,
        "fleet": "f",
        "kind": "client",
        "host": "h",
        "serial": 1,
        "not_after": 2,
        "new": 3,
    }
    data = _payload(jsonfile.canonical({**payload, "files": {"wg0.conf": {"sha256": "0" * 64, "size": 1}}}))
    assert claims.read(data) == claims.Claims("f", "client", "h", 1, 2, {"wg0.conf": FileEntry("0" * 64, 1)})
