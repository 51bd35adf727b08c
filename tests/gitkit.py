"""Git and `tidegate` for tests that run whole commands, without anything of the machine's own settings."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path


def environment(home: Path, programs: Path, author: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of commands that find `programs` first and commit as `author`."""
    who = {"NAME": author, "EMAIL": "admin@example.net"}
    return {
        **inherited,
        **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "HOME": str(home),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }


def program(programs: Path, name: str, body: str) -> None:
    """Write a shell script that commands find by its name."""
    path = programs / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def tidegate(programs: Path) -> None:
    """Let commands find the `tidegate` of this checkout; -P, so that no directory they run in is imported from."""
    program(programs, "tidegate", f'exec {shlex.quote(sys.executable)} -P -m tidegate_schema "$@"')
