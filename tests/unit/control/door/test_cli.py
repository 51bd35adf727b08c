"""`tidegate control token …` and `check`: what they print, and what they never do."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import gitkit
from tidegate_control.access.tokens import PATTERN, Tokens

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "control.yaml"
    found.write_text("repository: inventory.git\nstate: state\n")
    return found


def token(tidegate: Call, path: Path, *words: str) -> tuple[int, str, str]:
    return tidegate("control", "token", *words, "--settings", path)


def test_a_token_is_printed_once_and_works(tidegate: Call, path: Path) -> None:
    status, out, err = token(
        tidegate, path, "add", "alice", "--scope", "editor", "--email", "alice@example.net"
    )
    assert status == 0
    assert PATTERN.fullmatch(out.rstrip("\n"))
    assert err.startswith("alice (editor) ends 20")
    assert out.strip() not in err
    found = Tokens(path.parent / "state").find(out.strip())
    assert found is not None
    assert (found.name, found.email) == ("alice", "alice@example.net")
    assert found.expires - found.created == 90 * 86400
    assert stat.S_IMODE((path.parent / "state").stat().st_mode) == 0o700


def test_a_list_tells_everything_but_the_text(tidegate: Call, path: Path) -> None:
    assert "there are no tokens" in token(tidegate, path, "list")[2]
    texts = [
        token(tidegate, path, "add", "alice", "--scope", "editor", "--scope", "publisher")[1].strip(),
        token(tidegate, path, "add", "gw1", "--scope", "gateway-intake", "--gateway", "fra1")[1].strip(),
    ]
    token(tidegate, path, "revoke", "alice")
    listed, as_json = token(tidegate, path, "list")[1], token(tidegate, path, "list", "--json")[1]
    document = json.loads(as_json)
    assert [(one["name"], one["scopes"], one["state"], one["gateway"]) for one in document] == [
        ("alice", ["editor", "publisher"], "revoked", None),
        ("gw1", ["gateway-intake"], "live", "fra1"),
    ]
    assert re.search(r"^[0-9a-f]{8}  revoked  \S+  alice  editor,publisher  alice@", listed, re.MULTILINE)
    for text in texts:
        assert text[13:] not in listed + as_json
        assert "sha256" not in as_json


def test_a_revoked_token_is_told_and_ends(tidegate: Call, path: Path) -> None:
    text = token(tidegate, path, "add", "alice", "--scope", "reader")[1].strip()
    assert token(tidegate, path, "revoke", "alice")[:2] == (0, f"alice ({text[4:12]}) is revoked\n")
    assert Tokens(path.parent / "state").find(text) is None
    assert token(tidegate, path, "revoke", "alice") == (
        *(1, ""),
        "tidegate: there is no live token 'alice' any more; tidegate control token list has them\n",
    )


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["add", "alice"], 64, "Missing option '--scope'"),
        (["add", "alice", "--scope", "root"], 64, "is not one of"),
        (["add", "a b", "--scope", "reader"], 1, "a token's name is"),
        (["add", "gw", "--scope", "gateway-intake"], 1, "--gateway NAME"),
        (
            ["add", "gw", "--scope", "gateway-intake", "--scope", "editor", "--gateway", "gw"],
            1,
            "stands alone",
        ),
        (["add", "alice", "--scope", "reader", "--gateway", "gw"], 1, "only gateway-intake"),
        (["add", "alice", "--scope", "reader", "--expires", "0d"], 64, "write 12h, 90d, 8w"),
        (["add", "alice", "--scope", "reader", "--expires", "never"], 64, "write 12h, 90d, 8w"),
        (["add", "alice", "--scope", "reader", "--expires", "999d"], 64, "within 366 days"),
        (["add", "alice", "--scope", "reader", "--expires", "2020-01-01"], 64, "not in the past"),
        (["add", "alice", "--scope", "reader", "--email", "x\ny"], 1, "not an email address"),
        (["revoke", "nobody"], 1, "there is no live token 'nobody'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tidegate: Call, path: Path, words: list[str], status: int, said: str
) -> None:
    found, out, err = token(tidegate, path, *words)
    assert (found, out) == (status, "")
    assert said in err


@pytest.mark.parametrize("expires", ["12h", "8w"])
def test_how_long_it_lives(tidegate: Call, path: Path, expires: str) -> None:
    text = token(tidegate, path, "add", "alice", "--scope", "reader", "--expires", expires)[1].strip()
    found = Tokens(path.parent / "state").find(text)
    assert found is not None
    assert found.expires - found.created == {"12h": 12 * 3600, "8w": 56 * 86400}[expires]


def test_a_state_that_others_may_look_into_is_refused(tidegate: Call, path: Path) -> None:
    (path.parent / "state").mkdir(mode=0o755)
    status, out, err = token(tidegate, path, "add", "alice", "--scope", "reader")
    assert (status, out) == (1, "")
    assert f"chmod 700 {path.parent / 'state'}" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root (to own a directory as somebody else)")
def test_what_root_makes_belongs_to_whom_the_server_runs_as(tidegate: Call, path: Path) -> None:
    state = path.parent / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 12345, 12345)
    assert token(tidegate, path, "add", "alice", "--scope", "reader")[0] == 0
    assert {(file.name, file.stat().st_uid) for file in state.iterdir()} == {
        *(("tokens.json", 12345), ("tokens.lock", 12345)),
    }


def test_settings_that_are_wrong_are_told_with_their_place(tidegate: Call, path: Path) -> None:
    path.write_text("repository: r\nlisten: 0.0.0.0:80\n")
    for command in (("token", "list"), ("check",), ("serve",)):
        status, out, err = tidegate("control", *command, "--settings", path)
        assert (status, out) == (1, "")
        assert err.startswith(f"tidegate: {path}:2:1: listen: ")
        assert err.count("\n") == 1


def test_check_says_whether_the_server_could_start(tidegate: Call, path: Path, tmp_path: Path) -> None:
    status, out, err = tidegate("control", "check", "--settings", path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "inventory.git" in err
    repository(tmp_path)
    status, out, err = tidegate("control", "check", "--settings", path)
    assert (status, out, err) == (
        0,
        f"{path}: the server can start, and would listen on 127.0.0.1:8080\n",
        "",
    )


def repository(directory: Path) -> None:
    """Make directory/inventory.git, a bare repository with the smallest inventory."""
    environment = gitkit.environment(directory, directory, "An Admin", os.environ)
    (directory / "work/inventory").mkdir(parents=True)
    (directory / "work/inventory/overlay.yaml").write_text(
        "overlay: {fleet: example, prefixes: [10.64.0.0/16]}\n"
    )
    for command in (
        *("git init -q -b main", "git add inventory", "git commit -q -m Start"),
        "git clone -q --bare . ../inventory.git",
    ):
        subprocess.run(command.split(), cwd=directory / "work", env=environment, check=True, timeout=30)
