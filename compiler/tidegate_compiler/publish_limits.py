"""What publishing would do to a target, against the limits: past one, nothing is signed unless that one is allowed.

    what TARGET holds (held) --plan--> what is to be published -> limits exceeded - limits allowed -> refusal

A host that the target holds and the output lacks counts as removed. The first publish has nothing to compare with.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tidegate_compiler.held import Held, Host
from tidegate_compiler.output import Output
from tidegate_compiler.plan import source
from tidegate_compiler.plan.limits import Exceeded, Limits
from tidegate_compiler.plan.plan import plan

_TOLD = 5


@dataclass(frozen=True)
class Comparison:
    """What is past a limit; hosts of the target that are in no output, and hosts that could not be compared."""

    exceeded: tuple[Exceeded, ...]
    left_behind: tuple[Host, ...]
    unread: tuple[Host, ...]


def compare(held: Held, output: Output, limits: Limits) -> Comparison:
    """Compare what a target holds with what is to be published there."""
    left = tuple(sorted(host for host in (*held.hosts, *held.unread) if host not in output.hosts))
    if not held.hosts:
        return Comparison((), left, held.unread)
    old, new = (
        source.of_hosts(title, hosts) for title, hosts in (("target", held.hosts), ("output", output.hosts))
    )
    return Comparison(plan(old, new, limits).exceeded, left, held.unread)


def refusal(found: Comparison, allowed: Collection[str]) -> str | None:
    """Return why nothing may be published, one line, or None.

    An override that is not needed is refused, too: one that stands in a script for good would protect nobody.
    """
    past = [one for one in found.exceeded if one.name not in allowed]
    if past:
        told = "; ".join(f"{one.name}: {one.message}" for one in past)
        overrides = " ".join(f"--allow {one.name}" for one in past)
        return f"past a limit, nothing is published ({told}); look at 'tidegate plan', and if it is meant: {overrides}"
    idle = sorted(set(allowed) - {one.name for one in found.exceeded})
    if idle:
        return f"--allow {idle[0]} is not needed, this change is within that limit; leave it out, nothing is published"
    return None


def notices(found: Comparison) -> list[str]:
    """Return what an admin has to know about hosts that are not published to, or not compared; one line each."""
    lines = []
    if found.left_behind:
        lines.append(
            f"left behind, in the target and not in the output: {_some(found.left_behind)}; "
            "publish takes nothing away: such a host keeps its last release"
        )
    if found.unread:
        lines.append(
            f"not compared with the limits, since the current release is damaged or not of this key and fleet: "
            f"{_some(found.unread)}"
        )
    return lines


def _some(hosts: tuple[Host, ...]) -> str:
    shown = ", ".join(f"{kind} {name}" for kind, name in hosts[:_TOLD])
    return shown if len(hosts) <= _TOLD else f"{shown} and {len(hosts) - _TOLD} more"
