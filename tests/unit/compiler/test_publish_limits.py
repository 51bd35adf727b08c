"""Publishing past a limit: what the target holds is read back and compared; past one, only its override helps."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from compilerkit import client, compiled, gateway, inventory, key, policy
from tidegate_compiler import held, output, publish_limits
from tidegate_compiler.plan import limits
from tidegate_compiler.plan.limits import DEFAULT, Limits
from tidegate_compiler.publish import publish
from tidegate_schema import release
from tidegate_schema.cli import EXIT_USAGE, run

PRIVATE, PUBLIC = release.generate_key()
SIGNER = release.load_signer(PRIVATE)
NOW, DAY = 1_800_000_000, 86400


def clients(count: int, first: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in range(first, first + count):
        found |= client(f"c{number}", number)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "signing.key").write_bytes(PRIVATE)
    (tmp_path / "signing.key").chmod(0o600)
    return tmp_path


def written(place: Path, **kinds: Any) -> output.Output:
    kinds.setdefault("policies", {"p": policy("all-clients")})
    output.write(place / "out", compiled(inventory(**kinds)).files)
    return output.read(place / "out")


def published(place: Path, **kinds: Any) -> None:
    list(publish(written(place, **kinds), place / "bundles", SIGNER, NOW, 30 * DAY, "abc"))


def command(place: Path, *more: str) -> int:
    return run(
        [
            "publish",
            str(place / "out"),
            "--to",
            str(place / "bundles"),
            "--key",
            str(place / "signing.key"),
            *more,
        ]
    )


def names(place: Path, found: output.Output, over: Limits = DEFAULT) -> list[str]:
    back = held.read(place / "bundles", found.fleet, SIGNER)
    return [one.name for one in publish_limits.compare(back, found, over).exceeded]


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def test_what_was_published_is_read_back_whole(place: Path) -> None:
    found = written(place, clients=clients(3))
    assert held.read(place / "bundles", "default", SIGNER) == held.Held({}, ())
    published(place, clients=clients(3))
    assert held.read(place / "bundles", "default", SIGNER) == held.Held(found.hosts, ())


def test_the_first_publish_has_nothing_to_compare_with(place: Path) -> None:
    written(place, clients=clients(30))
    assert command(place) == 0


def test_past_a_limit_nothing_is_signed_without_the_override_of_that_name(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(place, clients=clients(30))
    written(place, clients=clients(20))
    before = state(place / "bundles")
    for more in ([], ["--allow", "keys-changed"], ["--allow", "clients-removed"]):
        assert command(place, *more) == 1
        (err,) = [line for line in capsys.readouterr().err.splitlines() if "left behind" not in line]
        assert err.startswith(
            "tidegate: past a limit, nothing is published (clients-removed-share: 10 clients removed"
        )
        assert err.endswith("--allow clients-removed-share")
        assert state(place / "bundles") == before
    assert command(place, "--allow", "clients-removed-share") == 0


def test_every_limit_that_is_past_has_to_be_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(place, clients=clients(80))
    written(place, clients=clients(20))
    both = ["--allow", "clients-removed", "--allow", "clients-removed-share"]
    assert command(place, *both[:2]) == 1
    assert command(place, *both[2:]) == 1
    assert "(clients-removed: 60 clients removed; the limit is 50)" in capsys.readouterr().err
    assert command(place, *both) == 0


def test_an_override_that_is_not_needed_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(place, clients=clients(30))
    written(place, clients=clients(29))
    before = state(place / "bundles")
    assert command(place, "--allow", "clients-removed-share") == 1
    assert "--allow clients-removed-share is not needed" in capsys.readouterr().err
    assert state(place / "bundles") == before
    assert command(place, "--allow", "nonsense") == EXIT_USAGE
    assert "gateway-emptied" in capsys.readouterr().err


def test_limits_can_be_moved(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(place, clients=clients(30))
    written(place, clients=clients(20))
    assert command(place, "--limit", "clients-removed-share=40%") == 0
    for wrong in (
        "nonsense=1",
        "clients-removed=-1",
        "clients-removed-share=1.5",
        "keys-changed=20%",
        "keys-changed",
        "\x1b=1",
    ):
        assert command(place, "--limit", wrong) == EXIT_USAGE
        assert "\x1b" not in capsys.readouterr().err


def rekeyed(count: int) -> dict[str, Any]:
    return {name: one | {"public_key": key(f"new {name}")} for name, one in clients(count).items()}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"clients": clients(30) | rekeyed(21)}, "keys-changed"),
        (
            {"policies": {"p": policy("all-clients"), "q": policy("all-clients", "fd20::/48")}},
            "access-widened-share",
        ),
        ({"policies": {}}, "gateway-emptied"),
        ({"clients": clients(30, 101)}, "clients-removed-share"),
    ],
)
def test_each_limit_is_found_in_what_the_target_holds(place: Path, change: dict[str, Any], name: str) -> None:
    published(place, clients=clients(30))
    assert name in names(place, written(place, **{"clients": clients(30), **change}))
    assert names(place, written(place, clients=clients(30))) == []


def test_a_gateways_new_key_counts_by_its_endpoint(place: Path) -> None:
    published(place, clients=clients(5))
    new = gateway("gw") | {}
    new["gw"] = new["gw"] | {"public_key": key("another")}
    assert names(place, written(place, clients=clients(5), gateways=new), Limits(keys_changed=0)) == [
        "keys-changed"
    ]
    moved = gateway("gw", endpoint="203.0.113.77:1")
    assert names(place, written(place, clients=clients(5), gateways=moved), Limits(keys_changed=0)) == []


def test_a_gateway_that_is_left_behind_is_one_that_is_emptied(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = gateway("gw") | gateway("old", "10.30.0.0/16")
    rules = {"p": policy("all-clients", ["10.20.0.0/16", "10.30.0.0/16"])}
    people = client("c1", 1, "gw", "old") | client("c2", 2, "gw", "old")
    published(place, gateways=both, clients=people, policies=rules)
    written(place, clients=clients(1), policies=rules)
    assert command(place) == 1
    told = capsys.readouterr().err
    assert "gateway-emptied: no client is left on old" in told
    assert "left behind, in the target and not in the output: client c2, gateway old;" in told
    before = state(place / "bundles" / "gateway" / "old")
    assert command(place, "--allow", "gateway-emptied", "--json") == 0
    assert json.loads(capsys.readouterr().out)["left_behind"] == [
        {"kind": "client", "host": "c2"}, {"kind": "gateway", "host": "old"},
    ]  # fmt: skip
    assert state(place / "bundles" / "gateway" / "old") == before  # publish takes nothing away


def test_a_dry_run_says_all_and_does_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(place, clients=clients(30))
    assert command(place, "--dry-run") == 0
    told = capsys.readouterr()
    assert told.out.count("published") == 31
    assert told.err == "dry run: this would be done; nothing is signed and nothing written\n"
    assert not (place / "bundles").exists()
    published(place, clients=clients(30))
    written(place, clients=clients(20))
    before = state(place)
    assert command(place, "--dry-run") == 1
    told = capsys.readouterr()
    assert told.out.count("\tunchanged\t") == 20
    assert "gateway\tgw\tpublished\t2" in told.out
    assert "--allow clients-removed-share" in told.err
    assert command(place, "--dry-run", "--json", "--allow", "clients-removed-share") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["dry_run"], [one["name"] for one in said["limits"]]) == (True, ["clients-removed-share"])
    assert state(place) == before


@pytest.mark.parametrize(
    "damage", ["payload", "envelope", "key", "fleet", "host", "fifo", "link", "large", "refused"]
)
def test_what_this_key_did_not_sign_whole_is_not_compared_and_told(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    published(place, clients=clients(3))
    folder = place / "bundles" / "client" / "c3"
    current = folder / "current"
    file = current / "wg0.conf"
    data = file.read_bytes()
    copy = place / "copy"
    copy.write_bytes(data)
    statement = release.open_envelope((current / "release.json").read_bytes(), [SIGNER.public_key])

    def signed(
        files: dict[str, bytes], signer: Any = SIGNER, fleet: str = "default", host: str = "c3"
    ) -> None:
        entries = {name: release.FileEntry.of(content) for name, content in files.items()}
        digest = release.files_digest(entries)
        made = release.Release(fleet, "client", host, statement.serial, statement.not_after, "x", entries)
        (folder / "releases" / digest).mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / "releases" / digest / name).write_bytes(content)
        (folder / "releases" / digest / "release.json").write_bytes(release.sign(made, signer))
        current.unlink()
        current.symlink_to(f"releases/{digest}")

    if damage == "payload":
        file.write_bytes(data + b"\n")
    elif damage == "envelope":
        (current / "release.json").write_bytes(b"{}")
    elif damage == "key":
        signed({"wg0.conf": data}, release.load_signer(release.generate_key()[0]))
    elif damage == "fleet":
        signed({"wg0.conf": data}, fleet="another")
    elif damage == "host":
        signed({"wg0.conf": data}, host="c2")
    elif damage == "refused":
        signed({"wg0.conf": b"[Interface]\nPostUp = id\n"})
    elif damage == "large":
        monkeypatch.setattr(held, "FILE_MAX_BYTES", held.FILE_MAX_BYTES | {"wg0.conf": len(data) - 1})
    else:
        file.unlink()
        os.mkfifo(file) if damage == "fifo" else file.symlink_to(copy)
    found = written(place, clients=clients(2))
    back = held.read(place / "bundles", "default", SIGNER)
    assert ("client", "c3") in back.unread
    if damage != "large":  # which all are then
        assert set(back.hosts) == {("client", "c1"), ("client", "c2"), ("gateway", "gw")}
    assert publish_limits.compare(back, found, DEFAULT).left_behind == (("client", "c3"),)
    command(place)
    assert "not compared with the limits" in capsys.readouterr().err


def test_odd_entries_of_a_target_are_passed_over(place: Path) -> None:
    published(place, clients=clients(1))
    (place / "bundles" / "client" / "Not A Name").mkdir()
    (place / "bundles" / "client" / "empty").mkdir()
    (place / "bundles" / "client" / "file").touch()
    back = held.read(place / "bundles", "default", SIGNER)
    assert (len(back.hosts), back.unread) == (2, ())


def test_it_is_compared_while_no_other_publisher_can_be_at_work(place: Path) -> None:
    """Compared before the lock, another publisher's releases would go unseen."""
    published(place, clients=clients(3))
    found = written(place, clients=clients(3))

    def first() -> None:
        descriptor = os.open(place / "bundles", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)

    assert len(list(publish(found, place / "bundles", SIGNER, NOW, DAY, "x", first=first))) == 4


def test_limits_are_read_from_a_command_line() -> None:
    assert limits.parse([]) == DEFAULT
    assert limits.parse(["clients-removed=0", "access-widened-share=100%", "gateway-emptied=3"]) == Limits(
        clients_removed=0, access_widened_share=1.0, gateways_emptied=3
    )
