"""What a start would put in force, found without taking anything up: for dry runs, exports, and whoever only asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tidegate_agents import bundles, host
from tidegate_agents.bundles import Accepted
from tidegate_agents.clock import Clock
from tidegate_agents.hostevents import HostEvents
from tidegate_agents.succession import Succession
from tidegate_schema.release import ReleaseError

Content = TypeVar("Content")


def offered(places: host.Places, bundle_directory: Path) -> Accepted:
    """Return the release that the bundle directory offers, checked as an agent would. HostError, ReleaseError."""
    given, memory = host.load_identity(places), host.load_memory(places)
    directory = bundles.host_directory(bundle_directory, given)
    identity = given.trusting(bundles.read_keys(directory, host.load_trust(places)))
    now = Clock(memory.time).now()
    return bundles.read_current(directory, identity, memory.serial, now, memory.digest)


def in_force(
    places: host.Places,
    bundle_directory: Path,
    read: Callable[[Accepted], Content],
    common: Callable[[Content, Content], Content | None],
) -> tuple[tuple[Content, Accepted] | None, str | None]:
    """Return what a start would put in force, None for nothing, and why that is not what is offered. HostError."""
    given, trust = host.load_identity(places), host.load_trust(places)
    succession = Succession(places, given, lambda: trust, HostEvents(places), read, common)
    try:
        accepted = offered(places, bundle_directory)
        succession.admit(accepted)
        return (read(accepted), accepted), None
    except ReleaseError as error:
        return succession.standing(), str(error)
