"""A host takes a release only if everything holds; each refusal has its name and changes nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tidegate_agents import bundles
from tidegate_agents.bundles import Accepted, Identity, fingerprint, read_current
from tidegate_schema import release
from tidegate_schema.bundle import FILE_MAX_BYTES
from tidegate_schema.release import ENVELOPE_MAX_BYTES, ReleaseError
from unit.agents.kit import CLIENT, CONF, GATEWAY, NOW, PEERS, descriptors, link, publish, statement


@pytest.fixture
def host(tmp_path: Path) -> Path:
    directory = tmp_path / "client" / "alice-laptop"
    directory.mkdir(parents=True)
    return directory


def take(host: Path, identity: Identity = CLIENT, serial: int = 0, now: float = NOW) -> Accepted:
    return read_current(host, identity, serial, now)


def refusal(host: Path, identity: Identity = CLIENT, serial: int = 0, now: float = NOW) -> str:
    before = descriptors()
    with pytest.raises(ReleaseError) as caught:
        take(host, identity, serial, now)
    assert "\n" not in str(caught.value)
    assert descriptors() == before  # a refusal every two seconds must not use descriptors up
    return caught.value.name


def test_a_good_release_is_accepted_with_its_bytes(host: Path) -> None:
    folder = publish(host, CLIENT)
    accepted = take(host)
    assert accepted.files == {"wg0.conf": CONF}
    assert (accepted.digest, accepted.release.serial) == (folder.name, 5)
    assert bundles.summary(accepted) == {
        "digest": folder.name, "serial": 5, "not_after": NOW + 1000, "source": "test",
    }  # fmt: skip


def test_a_gateway_s_release_has_peers_and_perhaps_a_policy(host: Path) -> None:
    publish(host, GATEWAY)
    assert set(take(host, GATEWAY).files) == {"peers.json"}
    publish(host, GATEWAY, {"peers.json": PEERS, "policy.json": b"{}"})
    assert set(take(host, GATEWAY).files) == {"peers.json", "policy.json"}


def test_the_directory_of_a_host() -> None:
    assert bundles.host_directory(Path("/b"), CLIENT) == Path("/b/client/alice-laptop")


# The link -----------------------------------------------------------------------------------------------------


def test_nothing_published_is_no_release(host: Path) -> None:
    assert refusal(host) == "bad-link"
    assert refusal(host / "nowhere") == "bad-link"


DIGEST = "0" * 64


@pytest.mark.parametrize(
    "target",
    [
        "/etc", "..", ".", "releases", "releases/", "releases/..", f"releases/{DIGEST}/..",
        f"../alice-laptop/releases/{DIGEST}", f"RELEASES/{DIGEST}",
        f"releases/{DIGEST[1:]}", f"releases/{DIGEST}0", f"releases/{'A' * 64}", f"releases/{DIGEST}\n",
        f"other/releases/{DIGEST}", "releases/" + "\u0660" * 64,
    ],
)  # fmt: skip
def test_current_points_to_a_release_below_and_nowhere_else(host: Path, target: str) -> None:
    publish(host, CLIENT)
    link(host, target)
    assert refusal(host) == "bad-link"


def test_an_absolute_link_is_refused_even_to_the_right_place(host: Path) -> None:
    folder = publish(host, CLIENT)
    link(host, str(folder))
    assert refusal(host) == "bad-link"


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_current_is_a_link(host: Path, kind: str) -> None:
    folder = publish(host, CLIENT)
    (host / "current").unlink()
    if kind == "file":
        (host / "current").write_text(f"releases/{folder.name}")
    else:
        (host / "current").mkdir()
    assert refusal(host) == "bad-link"


def test_a_release_that_is_a_file_is_refused(host: Path) -> None:
    (host / "releases").mkdir()
    (host / "releases" / DIGEST).write_bytes(CONF)
    link(host, f"releases/{DIGEST}")
    assert refusal(host) == "half-written"


@pytest.mark.parametrize("which", ["release", "releases", "host"])
def test_no_directory_on_the_way_is_a_link(host: Path, which: str, tmp_path: Path) -> None:
    folder = publish(host, CLIENT)
    place = {"release": folder, "releases": host / "releases", "host": host}[which]
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert refusal(host) == "half-written"


def test_a_release_that_is_not_there_yet(host: Path) -> None:
    folder = publish(host, CLIENT)
    folder.rename(host / "aside")
    assert refusal(host) == "half-written"


# The files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["release.json", "wg0.conf"])
def test_a_missing_file(host: Path, name: str) -> None:
    (publish(host, CLIENT) / name).unlink()
    assert refusal(host) == "half-written"


@pytest.mark.parametrize("name", ["release.json", "wg0.conf"])
def test_a_file_that_is_a_link_is_refused_even_to_the_right_bytes(
    host: Path, name: str, tmp_path: Path
) -> None:
    file = publish(host, CLIENT) / name
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert refusal(host) == "bad-file"


@pytest.mark.parametrize("name", ["release.json", "wg0.conf"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
def test_what_is_no_regular_file_is_refused_without_waiting(
    host: Path, name: str, make: Callable[[Path], None]
) -> None:
    file = publish(host, CLIENT) / name
    file.unlink()
    make(file)
    began = time.monotonic()
    assert refusal(host) == "bad-file"
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda data: data[:-1], "mixed-files"),
        (lambda data: b"", "mixed-files"),
        (lambda data: data + b"\n", "bad-file"),
        (lambda data: data.replace(b"10.20", b"10.21"), "mixed-files"),
        (lambda data: data[:5] + b"\0" + data[6:], "mixed-files"),
    ],
    ids=["cut", "empty", "padded", "changed", "one byte"],
)
def test_a_changed_payload(host: Path, change: Callable[[bytes], bytes], name: str) -> None:
    file = publish(host, CLIENT) / "wg0.conf"
    file.write_bytes(change(file.read_bytes()))
    assert refusal(host) == name


@pytest.mark.parametrize("name", ["release.json", "wg0.conf"])
def test_an_oversized_file_is_not_read(host: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = publish(host, CLIENT) / name
    os.truncate(file, 1 << 40)  # a sparse terabyte
    assert refusal(host) == "bad-file"


def test_a_statement_cannot_ask_for_more_than_a_file_may_have(host: Path) -> None:
    size = FILE_MAX_BYTES["wg0.conf"] + 1
    publish(host, CLIENT, {"wg0.conf": b" " * size})
    assert refusal(host) == "bad-file"


def test_the_envelope_is_bounded(host: Path) -> None:
    file = publish(host, CLIENT) / "release.json"
    file.write_bytes(file.read_bytes().ljust(ENVELOPE_MAX_BYTES + 1))
    assert refusal(host) == "bad-file"


def test_files_of_another_release_do_not_mix(host: Path) -> None:
    old = publish(host, CLIENT)
    new = publish(host, CLIENT, {"wg0.conf": CONF + b"\n"}, serial=6)
    (new / "release.json").write_bytes((old / "release.json").read_bytes())
    assert refusal(host) == "mixed-files"  # the envelope is authentic, the directory is not its own
    publish(host, CLIENT, {"wg0.conf": CONF + b"\n"}, serial=6)
    (new / "wg0.conf").write_bytes(CONF)
    assert refusal(host) == "mixed-files"


def test_files_that_nobody_signed_are_ignored(host: Path) -> None:
    folder = publish(host, CLIENT)
    (folder / "policy.json").write_bytes(b"{}")
    (folder / "run.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "sub").mkdir()
    (host / "releases" / "leftover").mkdir()
    assert take(host).files == {"wg0.conf": CONF}


@pytest.mark.parametrize(
    ("identity", "names"),
    [
        (CLIENT, ["peers.json"]),
        (CLIENT, ["wg0.conf", "policy.json"]),
        (CLIENT, ["wg0.conf", "peers.json", "policy.json"]),
        (GATEWAY, ["wg0.conf"]),
        (GATEWAY, ["policy.json"]),
        (GATEWAY, ["peers.json", "wg0.conf"]),
    ],
)
def test_a_release_holds_the_files_of_its_kind_only(host: Path, identity: Identity, names: list[str]) -> None:
    publish(host, identity, dict.fromkeys(names, b"x"))
    assert refusal(host, identity) == "wrong-files"


# The statement ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("other-fleet", {"fleet": "another"}),
        ("other-host", {"host": "bob-laptop"}),
        ("other-kind", {"kind": "gateway"}),
        ("expired", {"not_after": NOW}),
        ("expired", {"not_after": 0}),
        ("replayed", {"serial": 1}),
    ],
)
def test_a_release_for_another_place_or_time_is_refused_by_name(
    host: Path, name: str, changes: dict[str, Any]
) -> None:
    publish(host, CLIENT, **changes)
    assert refusal(host, serial=2) == name


def test_a_gateway_and_a_client_of_one_name_are_two_hosts(host: Path) -> None:
    publish(host, GATEWAY)
    assert refusal(host, replace(CLIENT, host="fra1")) == "other-kind"


def test_expiry_is_exclusive(host: Path) -> None:
    publish(host, CLIENT, not_after=NOW + 10)
    assert take(host, now=NOW + 9.999)
    assert refusal(host, now=NOW + 10) == "expired"


def test_an_older_serial_is_a_replay_and_the_same_one_is_not(host: Path) -> None:
    publish(host, CLIENT, serial=5)
    assert take(host, serial=5)
    assert take(host, serial=4)
    assert refusal(host, serial=6) == "replayed"


def test_an_unsigned_or_foreign_envelope_is_refused(host: Path) -> None:
    publish(host, CLIENT, signer=release.load_signer(release.generate_key()[0]))
    assert refusal(host) == "wrong-key"
    publish(host, CLIENT)
    assert refusal(host, replace(CLIENT, trusted=[])) == "wrong-key"
    folder = publish(host, CLIENT)
    (folder / "release.json").write_bytes(statement(CLIENT, {"wg0.conf": CONF}).payload())
    assert refusal(host) == "malformed-envelope"


def test_no_payload_is_opened_before_the_statement_holds(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = bundles.read_bounded

    def noting(name: str, limit: int, *, dir_fd: int | None = None) -> bytes:
        opened.append(name)
        return read(name, limit, dir_fd=dir_fd)

    monkeypatch.setattr(bundles, "read_bounded", noting)
    publish(host, CLIENT, host="bob-laptop")
    assert refusal(host) == "other-host"
    assert opened == ["release.json"]


def test_exchanging_the_directory_while_it_is_read_mixes_nothing(host: Path) -> None:
    """Whatever a writer does meanwhile, what is accepted is one release, whole."""
    contents = [CONF + b"\n" * n for n in range(4)]
    stop = threading.Event()

    def writer() -> None:
        serial = 5
        while not stop.is_set():
            serial += 1
            publish(host, CLIENT, {"wg0.conf": contents[serial % 4]}, serial=serial)

    publish(host, CLIENT)
    thread = threading.Thread(target=writer)
    thread.start()
    try:
        taken = 0
        for _ in range(300):
            try:
                accepted = take(host)
            except ReleaseError:
                continue
            taken += 1
            assert release.FileEntry.of(accepted.files["wg0.conf"]) == accepted.release.files["wg0.conf"]
            assert release.files_digest(accepted.release.files) == accepted.digest
        assert taken
    finally:
        stop.set()
        thread.join()


# The fingerprint ----------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_every_publication(host: Path) -> None:
    assert fingerprint(host) is None
    publish(host, CLIENT)
    first = fingerprint(host)
    assert first is not None
    assert fingerprint(host) == first
    publish(host, CLIENT, not_after=NOW + 5000, serial=6)  # a renewal: the same files
    second = fingerprint(host)
    assert second != first
    publish(host, CLIENT, {"wg0.conf": CONF + b"\n"}, serial=7)
    assert fingerprint(host) not in (first, second)


def test_the_fingerprint_changes_when_a_release_is_replaced_aside(host: Path) -> None:
    folder = publish(host, CLIENT)
    first = fingerprint(host)
    aside = folder / "aside"
    aside.write_bytes((folder / "release.json").read_bytes())
    aside.replace(folder / "release.json")
    assert fingerprint(host) != first


def test_a_link_to_nothing_has_a_fingerprint_too(host: Path) -> None:
    link(host, f"releases/{DIGEST}")
    assert fingerprint(host) == (f"releases/{DIGEST}",)
