"""The host side's command line: one line on stderr, the right status, and never a traceback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from tidegate_agents.cli import print_problems
from tidegate_schema import cli
from unit.agents.kit import PUBLIC

KINDS = ("client", "gateway")
VERBS = [
    ("client", "init"),
    ("client", "run"),
    *(("client", v) for v in ("status", "rotate", "export")),
    *(("gateway", v) for v in ("init", "run", "status", "set", "events")),
]


@pytest.fixture
def where(tmp_path: Path) -> list[str]:
    places = {"--etc": "etc", "--state-dir": "state", "--run-dir": "run"}
    return [word for option, name in places.items() for word in (option, str(tmp_path / name))]


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capfd.readouterr()
    code = cli.run(list(arguments))
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


@pytest.mark.parametrize("words", [("client",), ("gateway",), *VERBS])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(capfd: pytest.CaptureFixture[str], words: tuple[str, ...], option: str) -> None:
    code, out, err = run(capfd, *words, option)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: tidegate " + " ".join(words))
    if len(words) == 2:
        assert "Example" in out
        assert all(place in out for place in ("--etc", "--state-dir", "--run-dir"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("client", "nonsense"),
        ("client", "init"),
        ("client", "init", "--name"),
        ("client", "init", "--name", "a"),
        ("client", "init", "--name", "a", "--trust", "/nowhere"),
        ("client", "init", "--name", "a", "--trust", "/"),
        ("client", "run"),
        ("client", "run", "--bundles", "/proc/version"),
        ("client", "status", "more"),
        ("gateway", "set"),
        ("gateway", "set", "authz_mode"),
        ("gateway", "set", "--nonsense"),
        ("gateway", "run"),
        ("gateway", "status", "--json=1"),
        ("gateway", "events", "--to", "10.20.0.1/16"),
        ("gateway", "events", "--to", "web"),
        ("gateway", "events", "--verdict", "maybe"),
        ("gateway", "events", "--port", "65536"),
        ("gateway", "events", "--last", "-1"),
    ],
)
def test_a_usage_error_is_64(
    capfd: pytest.CaptureFixture[str], where: list[str], arguments: tuple[str, ...]
) -> None:
    code, out, err = run(capfd, *arguments, *(where if arguments[1] == "set" else []))
    assert (code, out) == (64, "")
    assert "Error: " in err


@pytest.mark.parametrize("words", [("client", "status"), ("gateway", "status"), ("gateway", "events")])
@pytest.mark.parametrize("as_json", [True, False])
def test_status_without_an_agent_is_one_line_and_1(
    capfd: pytest.CaptureFixture[str], where: list[str], words: tuple[str, ...], as_json: bool
) -> None:
    code, out, err = run(capfd, *words, *where, *(["--json"] if as_json else []))
    assert (code, out) == (1, "")
    assert err.startswith("tidegate: no agent runs here")
    assert err.count("\n") == 1


def init(kind: str, where: list[str], trust: Path) -> list[str]:
    return [kind, "init", "--name", "host-1", "--fleet", "example", "--trust", str(trust), *where, "--json"]


@pytest.mark.needs_tools("wg")
@pytest.mark.parametrize("kind", KINDS)
def test_init_prints_the_public_key(
    capfd: pytest.CaptureFixture[str], where: list[str], kind: str, tmp_path: Path
) -> None:
    (tmp_path / "pub").write_bytes(PUBLIC)
    code, out, err = run(capfd, *init(kind, where, tmp_path / "pub"))
    assert (code, err) == (0, "")
    assert set(json.loads(out)) == {"host", "public_key", "client_id"}
    assert run(capfd, *init(kind, where, tmp_path / "pub"))[1] == out


GARBAGE = [
    b"",
    b"\x00",
    b"\xff\xfe",
    b"{}",
    b"[]",
    b"null",
    b"[" * 50_000,
    b"x: &a [*a]",
    b"-----BEGIN PUBLIC KEY-----\n",
    b"\n",
]


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("kind", KINDS)
def test_garbage_as_a_trusted_key(
    capfd: pytest.CaptureFixture[str], where: list[str], kind: str, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "pub").write_bytes(content)
    code, out, err = run(capfd, *init(kind, where, tmp_path / "pub"))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("kind", KINDS)
def test_garbage_as_an_identity(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    where: list[str],
    kind: str,
    tmp_path: Path,
    content: bytes,
) -> None:
    monkeypatch.setattr("tidegate_agents.cli.shutil.which", lambda tool: tool)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "identity.json").write_bytes(content)
    code, out, err = run(capfd, kind, "run", "--bundles", str(tmp_path / "bundles"), *where)
    assert (code, out) == (1, "")
    assert err.startswith("tidegate: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "content", [g for g in GARBAGE if g not in (b"", b"\n", b"null", b"{}")], ids=range(6)
)
def test_garbage_as_settings(
    capfd: pytest.CaptureFixture[str], where: list[str], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "gateway.yaml").write_bytes(content)
    code, out, err = run(capfd, "gateway", "set", "authz_mode=observe", *where)
    assert (code, out) == (1, "")
    assert err.startswith("tidegate: ")
    assert err.count("\n") == 1
    assert (tmp_path / "etc" / "gateway.yaml").read_bytes() == content


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("kind", KINDS)
def test_garbage_as_a_status(
    capfd: pytest.CaptureFixture[str], where: list[str], kind: str, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "run" / kind).mkdir(parents=True)
    (tmp_path / "run" / kind / "status.json").write_bytes(content)
    code, out, err = run(capfd, kind, "status", *where)
    assert (code, out, err.count("\n")) == (1, "", 1)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(max_size=12), st.text(max_size=20) | st.sampled_from(["[" * 3000, "&a x", "!!int x", "\udcff"])
)
def test_any_assignment_is_set_or_refused_in_a_line(
    capfd: pytest.CaptureFixture[str], where: list[str], name: str, value: str
) -> None:
    for assignment in (f"{name}={value}", f"interface={value}", f"mtu={value}"):
        if "\0" in assignment or assignment.startswith("-"):
            continue
        code, out, err = run(capfd, "gateway", "set", assignment, *where)
        assert code in (0, 1, 64)
        assert out == ""
        assert code == 64 or err.count("\n") <= 2


def test_set_writes_the_file_and_says_when_it_counts(
    capfd: pytest.CaptureFixture[str], where: list[str], tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    code, out, err = run(capfd, "gateway", "set", "authz_mode=observe", "logging_enabled=on", *where)
    assert (code, out) == (0, "")
    assert "from the next start" in err
    assert (tmp_path / "etc" / "gateway.yaml").read_text() == "authz_mode: observe\nlogging_enabled: true\n"


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_a_shell_would_read_otherwise_is_refused(
    capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    code, out, err = run(capfd, kind, "status", "--etc", "/etc/a;id")
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_the_command_as_a_process(where: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tidegate_schema", "gateway", "set", "mtu=\udcff", *where]
    done = subprocess.run([os.fsencode(word) for word in command], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    command = [sys.executable, "-m", "tidegate_schema", "client", "status", *where]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_status_says_what_is_wrong_with_releases_and_the_kernel() -> None:
    console = Console(file=io.StringIO(), width=200)
    status: dict[str, Any] = {"settings_problem": None, "trouble": None, "refusal": None}
    print_problems(console, status)  # of an agent that does not know of trials
    status |= {
        "kind": "gateway",
        "refusal": {"name": "replayed", "reason": "replayed: serial 4 is older than 5"},
        "trial": {"serial": 7, "digest": "x"},
        "rolled_back": {"serial": 6, "digest": "y", "reason": "not at work within 30 s: no [room]"},
        "stale": True,
        "drift": {"link": "tidegate0 is down"},
    }
    print_problems(console, status)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "replayed: serial 4 is older than 5",
        "release 6 was taken back: not at work within 30 s: no [room]",
        "the release in force is past its end; publish again",
        "drift, link: tidegate0 is down",
        "release 7 is on trial",
    ]
