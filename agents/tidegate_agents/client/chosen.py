"""A client's release and settings as a start would follow them, read without changing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tidegate_agents import bundles, host, offered, settings
from tidegate_agents.client.agent import read_bundle
from tidegate_agents.client.common import common
from tidegate_schema import wgquick


class Chosen(NamedTuple):
    """A release as a start would put it in force, and why that is not the one that is offered."""

    config: wgquick.ClientConfig
    accepted: bundles.Accepted
    problem: str | None


def release(places: host.Places, bundle_directory: Path) -> Chosen:
    """Return what a start would put in force. HostError when there is nothing."""
    found, problem = offered.in_force(places, bundle_directory, read_bundle, common)
    if found is not None:
        return Chosen(*found, problem and f"release refused: {problem}")
    directory = bundles.host_directory(bundle_directory, host.load_identity(places))
    if bundles.fingerprint(directory) is None:
        problem = f"no release in {directory}; publish one, or name another directory with --bundles"
    else:
        problem = f"release refused: {problem}"
    raise host.HostError(problem)


def local_settings(places: host.Places) -> dict[str, Any]:
    """Return the local settings. HostError when they are invalid."""
    try:
        return settings.load(places.kind, places.settings)
    except settings.SettingsError as error:
        raise host.HostError(str(error)) from None
