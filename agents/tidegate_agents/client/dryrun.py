"""What `tidegate client run --dry-run` prints: the actions that would be done now. Reads, and changes nothing."""

from __future__ import annotations

import time
from pathlib import Path

from tidegate_agents import host
from tidegate_agents.client import chosen, interface
from tidegate_agents.client.common import without_gateways
from tidegate_agents.client.failover import Failover
from tidegate_agents.client.reconcile import plan
from tidegate_agents.clock import Clock


def actions(places: host.Places, bundle_directory: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Return each action's `verb`, `subject` and `text`, in order, and problems, a line each.

    HostError when nothing could be applied.

    A gateway that carries its group's networks now goes on carrying them, as it would under an agent that runs.
    """
    settings = chosen.local_settings(places)
    config, accepted, problem = chosen.release(places, bundle_directory)
    now = Clock(host.load_memory(places).time).now()
    if now >= accepted.release.not_after and settings["on_stale"] == "deny":
        config = without_gateways(config)
    observed = interface.observe(settings["interface"])
    if observed is not None:
        interface.refuse_strangers(places, settings["interface"], observed.key)
        state = Failover()
        state.follow(config, {key: peer.config.allowed_ips for key, peer in observed.peers.items()})
        config = state.assigned(config)
    # An agent that runs leaves an endpoint to which a gateway has moved; one that starts sets it.
    roaming_at = time.time() if host.read_status(places) else None
    found = plan(interface.wanted(places, config, settings), observed, roaming_at)
    problems = [problem] if problem else []
    return [{"verb": one.verb, "subject": one.subject, "text": one.text} for one in found], problems
