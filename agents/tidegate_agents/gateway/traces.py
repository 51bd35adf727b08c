"""What an agent notes of its own start, so that the next one can clean up after a kill -9.

RUN/gateway/traces.json    {"fixed": the settings of FIXED then in force, "forwarding": [what was off before],
                            "accounting": {what of the connection table's was not on before: its value}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tidegate_agents import wireguard
from tidegate_agents.files import FileRefused, read_bounded, write_atomic
from tidegate_agents.gateway import network
from tidegate_schema import jsonfile

_MAX_BYTES = 16 * 1024


def _file(run: Path) -> Path:
    return run / "traces.json"


def read(run: Path) -> dict[str, Any]:
    """Return what an earlier agent noted and did not forget; empty when it stopped in order."""
    try:
        found = jsonfile.parse(read_bounded(_file(run), _MAX_BYTES))
    except (FileNotFoundError, FileRefused, jsonfile.JsonError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("fixed"), dict) else {}


def write(
    run: Path, fixed: Mapping[str, Any], forwarding: Iterable[str], accounting: Mapping[str, str]
) -> None:
    """Note the settings of this start, and how the kernel's switches were, for `Forwarding` and `Accounting`."""
    noted = {"fixed": dict(fixed), "forwarding": sorted(forwarding), "accounting": dict(accounting)}
    write_atomic(_file(run), jsonfile.canonical(noted))


def forget(run: Path) -> None:
    """Forget: everything has been put back."""
    _file(run).unlink(missing_ok=True)


def sweep(before: Mapping[str, Any], fixed: Mapping[str, Any], public_key: str) -> None:
    """Take away what an earlier agent made under other settings; its WireGuard interface would have no rule now."""
    old = before.get("fixed")
    if not old or old == fixed:
        return
    name = old.get("interface")
    if name != fixed["interface"] and network.index(str(name)) is not None and _is_ours(name, public_key):
        network.take_down(name)
        network.delete(name)
    network.lead_nowhere({**fixed, **old})


def _is_ours(name: str, public_key: str) -> bool:
    try:
        return wireguard.run("show", name, "public-key").strip() == public_key
    except wireguard.WireGuardError:
        return False
