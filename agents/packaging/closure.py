"""What of requirements.lock a host needs: the lines of every package that `tidegate[client,gateway,control]` brings.

The lock also holds what the work on Tidegate needs. Which package needs which others is read from the metadata of the
environment that was made from the lock; which files may be taken is the lock's own word, a hash for each.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
_ENTRY = re.compile(r"^([a-z0-9-]+)==([^ \n]+)(.*?)(?=^[a-z0-9-]+==|\Z)", re.MULTILINE | re.DOTALL)


def entries(lock: str) -> dict[str, str]:
    """Return the entry of each package of a lock, without its comments, by the package's name."""
    found = {}
    for match in _ENTRY.finditer(lock):
        lines = [line for line in match[0].splitlines() if line.strip() and not line.lstrip().startswith("#")]
        found[match[1]] = "\n".join(lines) + "\n"
    return found


def version(entry: str) -> str:
    """Return the version that an entry locks."""
    found = re.match(r"[a-z0-9-]+==([^ \n]+)", entry)
    assert found is not None
    return found[1]


def needed(python: str, machine: str) -> list[str]:
    """Return the names of all packages that a host with this Python ("3.11") and machine ("aarch64") needs, sorted."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(text for name in extras for text in extras[name])]
    environment = {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "extra": "",
    }
    found: set[tuple[str, str]] = set()
    _follow((Requirement(text) for text in wanted), environment, found)
    return sorted({name for name, _ in found})


def _follow(wanted: Iterable[Requirement], environment: dict[str, str], found: set[tuple[str, str]]) -> None:
    for one in wanted:
        for extra in ("", *sorted(one.extras)):
            name = canonicalize_name(one.name)
            if (name, extra) in found:
                continue
            found.add((name, extra))
            more = (Requirement(text) for text in distribution(name).requires or ())
            here = {**environment, "extra": extra}
            _follow(
                (each for each in more if each.marker is None or each.marker.evaluate(here)),
                environment,
                found,
            )


def lock_of(python: str, machine: str) -> dict[str, str]:
    """Return the lock's entries that a host needs, by package; KeyError names one that is not locked."""
    every = entries((ROOT / "requirements.lock").read_text())
    return {name: every[name] for name in needed(python, machine)}
