"""Shell completion: the Tab key answers from the table of commands, and imports one only to complete inside it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate_schema.cli import COMMANDS

REPORT = "import sys; from tidegate_schema.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"


def complete(shell: str, *words: str) -> tuple[list[str], set[str]]:
    """Ask as the shell's script does; the answer's lines, and the modules that it took."""
    line = {"COMP_WORDS": shlex.join(["tidegate", *words]), "COMP_CWORD": str(len(words))}
    if shell == "zsh" and words and not words[-1]:
        line["COMP_WORDS"] = shlex.join(["tidegate", *words[:-1]]) + " "
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        env={**os.environ, **line, "_TIDEGATE_COMPLETE": f"{shell}_complete"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines(), set(done.stderr.split())


def test_bash_completes_commands_without_importing_them() -> None:
    lines, modules = complete("bash", "")
    assert lines == [f"plain,{name}" for name in COMMANDS]
    assert not [name for name in modules if name.startswith(("tidegate_compiler", "tidegate_agents", "rich"))]
    assert complete("bash", "va")[0] == ["plain,validate"]
    assert "".join(complete("bash", "nonsense")[0]) == ""


def test_zsh_completes_commands_with_their_help() -> None:
    lines, modules = complete("zsh", "val")
    assert lines == ["plain", "validate", COMMANDS["validate"][2]]
    assert not [name for name in modules if name.startswith(("tidegate_compiler", "tidegate_agents"))]


def test_options_and_their_values_are_completed() -> None:
    lines, modules = complete("bash", "validate", "--form")
    assert lines == ["plain,--format"]
    assert "tidegate_agents" not in modules
    lines, _ = complete("bash", "validate", "--format", "")
    assert {f"plain,{form}" for form in ("text", "json", "sarif", "github")} == set(lines)


def test_a_target_is_completed_as_a_directory() -> None:
    assert complete("bash", "publish", "out", "--to", "bu")[0] == ["dir,bu"]


def test_a_part_that_is_not_installed_is_silent() -> None:
    """A client's host has no gateway: Tab must not write an error into the line."""
    program = (
        "from tidegate_schema import cli\n"
        "cli.COMMANDS['gateway'] = ('missing_extra:x', 'gateway', '')\n"
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "COMP_WORDS": "tidegate gateway ",
            "COMP_CWORD": "2",
            "_TIDEGATE_COMPLETE": "bash_complete",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidegate_schema"],
        env={**os.environ, "_TIDEGATE_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"_TIDEGATE_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_itself_completes(tmp_path: Path) -> None:
    program = tmp_path / "tidegate"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tidegate_schema "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(_TIDEGATE_COMPLETE=bash_source tidegate)"; complete -p tidegate; '
        'COMP_WORDS=(tidegate exp); COMP_CWORD=1; _tidegate_completion tidegate; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "_tidegate_completion tidegate" in done.stdout
    assert done.stdout.splitlines()[-1] == "explain"
