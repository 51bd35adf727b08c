"""`run` and `.ci/run`: plain shell that works from anywhere, and a CI that cannot pass by doing nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = ROOT / "run"
SHELLS = [shell for shell in ("sh", "dash", "bash", "busybox") if shutil.which(shell)]


def argv(shell: str) -> list[str]:
    return ["busybox", "sh"] if shell == "busybox" else [shell]


@pytest.mark.parametrize("shell", SHELLS)
def test_run_is_plain_shell(shell: str) -> None:
    subprocess.run([*argv(shell), "-n", RUN], check=True)
    help_ = subprocess.run([*argv(shell), RUN, "--help"], check=True, capture_output=True, text=True, cwd="/")
    assert help_.stdout.startswith("usage: ./run demo")


def test_run_without_a_session_is_a_usage_error() -> None:
    done = subprocess.run([RUN], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (64, "")
    assert "usage:" in done.stderr


def test_the_help_names_only_sessions_there_are() -> None:
    sessions = set(
        re.findall(r"^@nox.session.*\ndef ([a-z]+)\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    )
    assert {
        "demo",
        "tests",
        "lint",
        "types",
        "netns",
        "kernel",
        "bench",
        "build",
        "release",
        "lock",
    } <= sessions
    help_ = subprocess.run([RUN, "--help"], check=True, capture_output=True, text=True).stdout
    named = set(re.findall(r"^ *(?:usage: )?\./run ([a-z]+)", help_, re.MULTILINE))
    listed = set(re.findall(r"sessions of noxfile.py: ([a-z ]+)", help_)[0].split())
    assert named | listed == sessions


def test_the_style_and_type_checkers_stay_out_of_pytest() -> None:
    """They are sessions of their own, so that a change is told of all three kinds of fault at once."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert not [text for text in groups["test"] if re.match(r"ruff|mypy|pytest-(ruff|mypy)", text)]


# --- run's environment, with an interpreter that only pretends --------------------------------------

FAKE_PYTHON = """#!/bin/sh
# Stands in for python: makes an "environment" whose python is this script, and says what was asked of it.
echo "$*" >>"$TRACE"
case "$*" in
    *"-m venv "*) eval "dir=\\${$#}"; mkdir -p "$dir/bin"; cp "$0" "$dir/bin/python" ;;
    *"-m pip "*) [ -z "${PIP_FAILS-}" ] || exit 1 ;;
    -V) echo "Python 3.11.0" ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone whose path has a space in it, with a pretended python3.13 first on the path."""
    tree = tmp_path / "a clone"
    tree.mkdir()
    for name in ("run", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tree)
    fake = tmp_path / "bin" / "python3.13"
    fake.parent.mkdir()
    fake.write_text(FAKE_PYTHON)
    fake.chmod(0o755)
    for tool in (
        "wg",
        "wireguard-go",
        "ip",
        "nft",
        "ping",
        "unshare",
        "sysctl",
        "qemu-system-x86_64",
        "clickhouse-server",
        "systemd-analyze",
        "chromium",
    ):
        fake.with_name(tool).symlink_to("/bin/true")  # so that nothing is lacking, and nothing gets installed
    (tree / ".nox/kernel").mkdir(parents=True)
    (tree / ".nox/kernel/stamp").touch()  # nor fetched
    return tree


def run_session(clone: Path, *args: str, **env: str) -> list[str]:
    """Run a session of the clone and return what was asked of its Python since the last one."""
    trace = clone.parent / "trace"
    trace.write_text("")
    subprocess.run(
        ["sh", clone / "run", *args],
        check=env.pop("fails", "") == "",
        cwd="/",
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTHON"},
            "PATH": f"{clone.parent / 'bin'}:{os.environ['PATH']}",
            "TRACE": str(trace),
            **env,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return trace.read_text().splitlines()


def makes_environment(asked: list[str]) -> bool:
    return any("-m venv" in line for line in asked)


def test_run_makes_the_environment_once(clone: Path) -> None:
    first = run_session(clone, "lint")
    assert makes_environment(first)
    installs = [line for line in first if "-m pip" in line]
    assert all("--require-hashes" in line for line in installs if "requirements.lock" in line)
    assert first[-1] == f"-m nox --noxfile {clone}/noxfile.py --sessions lint"
    assert [line for line in run_session(clone, "lint") if line != "-c "] == [first[-1]]


def test_run_makes_the_environment_anew_when_it_must(clone: Path) -> None:
    run_session(clone, "lint")
    with (clone / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert makes_environment(run_session(clone, "lint"))

    (clone / ".venv/bin/python").unlink()
    assert makes_environment(run_session(clone, "lint")), "a stale environment"

    moved = clone.rename(clone.with_name("another clone"))
    assert makes_environment(run_session(moved, "lint")), "an environment that was moved"


def test_run_mends_an_environment_left_half_made(clone: Path) -> None:
    assert makes_environment(run_session(clone, "lint", fails="yes", PIP_FAILS="1"))
    assert not (clone / ".venv/lock.stamp").exists()
    assert makes_environment(run_session(clone, "lint"))
    assert not makes_environment(run_session(clone, "lint"))


def test_run_installs_the_project_anew_when_its_metadata_changes(clone: Path) -> None:
    run_session(clone, "lint")
    with (clone / "pyproject.toml").open("a") as pyproject:
        pyproject.write("# changed\n")
    asked = run_session(clone, "lint")
    assert not makes_environment(asked)
    assert any("--editable" in line for line in asked)


@pytest.mark.parametrize(
    ("args", "sessions"),
    [
        (["types", "lint"], "types lint"),
        (["lint", "--", "-x"], "lint -- -x"),
        (["tests"], "lint types tests"),
        (["tests", "-k", "policy"], "tests -- -k policy"),
        (["netns", "--", "-x"], "netns -- -x"),
        (["kernel", "-x"], "kernel -- -x"),
        (["bench", "compiler", "--json", "rows.json"], "bench -- compiler --json rows.json"),
    ],
)
def test_run_passes_on_what_is_asked(clone: Path, args: list[str], sessions: str) -> None:
    assert run_session(clone, *args)[-1].endswith(f"--sessions {sessions}")


# --- .ci/run, with a `run` that only pretends -------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "status", "expected", "last"),
    [
        ("= 3 passed, 1 skipped in 0.50s =", 0, 0, "= 3 passed, 1 skipped in 0.50s ="),
        ("= 1 failed, 3 passed in 0.50s =", 1, 1, "= 1 failed, 3 passed in 0.50s ="),
        ("= 3 passed in 61.00s (0:01:01) =", 1, 1, "= 3 passed in 61.00s (0:01:01) ="),
        ("= no tests ran in 0.01s =", 0, 1, "= no tests ran in 0.01s ="),
        ("= 4 skipped in 0.01s =", 0, 1, "= 4 skipped in 0.01s ="),
        ("nothing at all", 0, 1, "no test ran"),
    ],
)
def test_ci_passes_only_when_tests_did(
    tmp_path: Path, printed: str, status: int, expected: int, last: str
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    run = tmp_path / "run"
    run.write_text(
        f"#!/bin/sh\n[ \"$*\" = tests ] || exit 9\necho '{printed}'\necho 'nox > done'\nexit {status}\n"
    )
    run.chmod(0o755)
    done = subprocess.run(["bash", tmp_path / ".ci/run"], cwd="/", capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (expected, last)
