"""How a module that is not installed is told: with the command that installs it for this interpreter."""

from __future__ import annotations

import shlex
import sys


def advice(extra: str) -> str:
    """Return the command for an extra of pyproject.toml; a bare pip may be that of another environment."""
    return f"install it with: {shlex.quote(sys.executable or 'python3')} -m pip install 'tidegate[{extra}]'"
