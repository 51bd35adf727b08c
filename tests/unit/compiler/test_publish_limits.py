"""Publishing past a limit: what git says was published last is compared; past one, only its override helps."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from compilerkit import client, compiled, gateway, inventory, key, policy
from tidegate_compiler import baseline, output, publish_limits
from tidegate_compiler.plan import limits
from tidegate_compiler.plan.limits import DEFAULT, Limits
from tidegate_compiler.publish import Terms, publish
from tidegate_compiler.signing import Signing
from tidegate_compiler.targets import open_target
from tidegate_schema import release
from tidegate_schema.cli import EXIT_USAGE, run

PRIVATE, PUBLIC = release.generate_key()
SIGNING = Signing(release.load_signer(PRIVATE))
NOW, DAY = 1_800_000_000, 86400


def clients(count: int, first: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in range(first, first + count):
        found |= client(f"c{number}", number)
    return found


def git(place: Path, *words: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.net")
    done = subprocess.run(["git", *who, *words], cwd=place, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a signing key; the working directory is there."""
    (tmp_path / "signing.key").write_bytes(PRIVATE)
    (tmp_path / "signing.key").chmod(0o600)
    git(tmp_path, "init", "-q", "-b", "main")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(place: Path, **kinds: Any) -> output.Output:
    """Commit an inventory, and compile it."""
    kinds.setdefault("policies", {"p": policy("all-clients")})
    files = inventory(**kinds)
    shutil.rmtree(place / "inventory", ignore_errors=True)
    for path, data in files.items():
        (place / "inventory" / path).parent.mkdir(parents=True, exist_ok=True)
        (place / "inventory" / path).write_bytes(data)
    git(place, "add", "inventory")
    git(place, "commit", "-q", "--allow-empty", "-m", "Change")
    output.write(place / "out", compiled(files).files)
    return output.read(place / "out")


def published(place: Path, **kinds: Any) -> None:
    found = written(place, **kinds)
    with open_target(str(place / "bundles")) as target:
        assert publish(found, target, SIGNING, Terms(NOW, 30 * DAY, "abc")).is_complete
    git(place, "update-ref", baseline.REF, "HEAD")


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


def names(found: output.Output, over: Limits = DEFAULT) -> list[str]:
    sha = baseline.published(baseline.REF)
    side = baseline.read(None, baseline.REF, sha, baseline.commit_of(found, None))
    return [one.name for one in publish_limits.compare(side, found, "out", over).exceeded]


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when anything below a folder does; git's own files are left out."""
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if ".git" not in path.parts
    }


def test_the_first_publish_has_nothing_to_compare_with(place: Path) -> None:
    written(place, clients=clients(30))
    assert command(place, "--first") == 0


@pytest.mark.parametrize("what", ["emptied", "poisoned", "gone"])
def test_whatever_the_target_holds_changes_nothing_of_it(
    place: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """An emptied target looks like a first publish, and a poisoned one like a small change."""
    published(place, clients=clients(30))
    new = written(place, clients=clients(20))
    if what == "poisoned":  # the new bundles are there already, by the same key
        with open_target(str(place / "bundles")) as target:
            publish(new, target, SIGNING, Terms(NOW, 30 * DAY, "abc"))
    else:
        shutil.rmtree(place / "bundles")
    if what == "emptied":
        (place / "bundles").mkdir()
    before = state(place / "bundles")
    assert command(place) == 1
    assert "(clients-removed-share: 10 clients removed" in capsys.readouterr().err
    assert state(place / "bundles") == before
    assert command(place, "--first") == 1
    assert "--first is not needed" in capsys.readouterr().err
    assert state(place / "bundles") == before


def test_past_a_limit_nothing_is_signed_without_the_override_of_that_name(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(place, clients=clients(30))
    written(place, clients=clients(20))
    before = state(place / "bundles")
    for more in ([], ["--allow", "keys-changed"], ["--allow", "clients-removed"]):
        assert command(place, *more) == 1
        err = capsys.readouterr().err.splitlines()[-1]
        assert err.startswith(
            "tidegate: past a limit, nothing is published (clients-removed-share: 10 clients removed"
        )
        assert err.endswith("--allow clients-removed-share")
        assert f"look at 'tidegate plan {baseline.REF} {place / 'out'}'" in err
        assert state(place / "bundles") == before
    assert run(["plan", baseline.REF, str(place / "out")]) == 2
    assert "clients-removed-share" in capsys.readouterr().out
    assert command(place, "--since", "HEAD~1:inventory") == 1
    assert "look at 'tidegate plan HEAD~1:inventory " in capsys.readouterr().err
    assert command(place, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["hosts"], [one["name"] for one in said["limits"]]) == ([], ["clients-removed-share"])
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
    assert command(place, "--allow", "keys-changed", "--allow", "clients-removed") == 1
    assert "--allow clients-removed --allow keys-changed are not needed" in capsys.readouterr().err
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
def test_each_limit_is_found_in_what_was_published(place: Path, change: dict[str, Any], name: str) -> None:
    published(place, clients=clients(30))
    assert name in names(written(place, **{"clients": clients(30), **change}))
    assert names(written(place, clients=clients(30))) == []


def test_a_gateways_new_key_counts_by_its_endpoint(place: Path) -> None:
    published(place, clients=clients(5))
    new = gateway("gw") | {}
    new["gw"] = new["gw"] | {"public_key": key("another")}
    assert names(written(place, clients=clients(5), gateways=new), Limits(keys_changed=0)) == ["keys-changed"]
    moved = gateway("gw", endpoint="203.0.113.77:1")
    assert names(written(place, clients=clients(5), gateways=moved), Limits(keys_changed=0)) == []


def test_a_gateway_that_is_left_behind_is_one_that_is_emptied(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = gateway("gw") | gateway("old", "10.30.0.0/16")
    rules = {"p": policy("all-clients", ["10.20.0.0/16", "10.30.0.0/16"])}
    people = client("c1", 1, "gw", "old") | client("c2", 2, "gw", "old")
    published(place, gateways=both, clients=people, policies=rules)
    written(place, clients=clients(1), policies=rules)
    assert command(place) == 1
    assert "gateway-emptied: no client is left on old" in capsys.readouterr().err
    before = state(place / "bundles" / "gateway" / "old")
    assert command(place, "--allow", "gateway-emptied", "--json") == 0
    told = capsys.readouterr()
    assert "left behind, in the target and not in the output: client c2, gateway old;" in told.err
    assert json.loads(told.out)["left_behind"] == [
        {"kind": "client", "host": "c2"}, {"kind": "gateway", "host": "old"},
    ]  # fmt: skip
    assert state(place / "bundles" / "gateway" / "old") == before  # publish takes nothing away


def test_a_dry_run_says_all_and_does_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(place, clients=clients(30))
    assert command(place, "--dry-run", "--first") == 0
    told = capsys.readouterr()
    assert told.out.count("published") == 31
    assert told.err.splitlines()[1:] == [
        "no key set, signed by 1 key",
        "31 published",
        "dry run: this would be done; nothing is signed and nothing written",
    ]
    assert not (place / "bundles").exists()
    published(place, clients=clients(30))
    written(place, clients=clients(20))
    before = state(place)
    assert command(place, "--dry-run") == 1
    told = capsys.readouterr()
    assert "20 unchanged" in told.err
    assert "gateway\tgw\tpublished\t2" in told.out
    assert "--allow clients-removed-share" in told.err
    assert command(place, "--dry-run", "--json", "--allow", "clients-removed-share") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["dry_run"], [one["name"] for one in said["limits"]]) == (True, ["clients-removed-share"])
    assert state(place) == before


def test_limits_are_read_from_a_command_line() -> None:
    assert limits.parse([]) == DEFAULT
    assert limits.parse(["clients-removed=0", "access-widened-share=100%", "gateway-emptied=3"]) == Limits(
        clients_removed=0, access_widened_share=1.0, gateways_emptied=3
    )
