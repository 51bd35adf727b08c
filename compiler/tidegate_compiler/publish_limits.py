"""What a publish would change, against the limits: past one, nothing is signed unless that one is allowed.

    what git says was published last (baseline) --plan--> the output -> limits exceeded - limits allowed -> refusal

The target has no say in it: whoever empties or changes it would otherwise lift the limits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from tidegate_compiler.output import Output
from tidegate_compiler.plan import document, report, source
from tidegate_compiler.plan.limits import Exceeded, Limits
from tidegate_compiler.plan.plan import Plan, plan
from tidegate_compiler.targets import Host

_TOLD = 5
_LINES = 24


def compare(old: source.Side, output: Output, title: str, limits: Limits) -> Plan:
    """Compare what was published last with an output, called `title`."""
    same = old.hosts.keys() == output.hosts.keys() and all(
        old.hosts[host] is files for host, files in output.hosts.items()
    )
    new = replace(old, title=title, hosts=output.hosts) if same else source.of_hosts(title, output.hosts)
    return plan(old, new, limits)


def summary(found: Plan) -> list[str]:
    """Return the plan in a few lines; `tidegate plan` has them all."""
    lines = list(report.lines(document.document(found)))
    if len(lines) <= _LINES:
        return lines
    return [*lines[:_LINES], f"... {len(lines) - _LINES} lines more in 'tidegate plan'"]


def refusal(exceeded: Sequence[Exceeded], allowed: Collection[str], old: str, new: str) -> str | None:
    """Return why nothing may be published, one line, or None; `old` and `new` are what `tidegate plan` shows it by.

    An override that is not needed is refused, too: one that stands in a script for good would protect nobody.
    """
    past = [one for one in exceeded if one.name not in allowed]
    if past:
        told = "; ".join(f"{one.name}: {one.message}" for one in past)
        overrides = " ".join(f"--allow {one.name}" for one in past)
        look = f"look at 'tidegate plan {old} {new}'"
        return f"past a limit, nothing is published ({told}); {look}, and if it is meant: {overrides}"
    idle = sorted(set(allowed) - {one.name for one in exceeded})
    if idle:
        is_one = len(idle) == 1
        named = " ".join(f"--allow {name}" for name in idle)
        verb, limit, what = ("is", "that limit", "it") if is_one else ("are", "those limits", "them")
        return f"{named} {verb} not needed, this change is within {limit}; leave {what} out, nothing is published"
    return None


def notices(left_behind: Sequence[Host]) -> Iterable[str]:
    """Yield what an admin has to know about hosts that are not published to; one line each."""
    if left_behind:
        yield (
            f"left behind, in the target and not in the output: {_some(left_behind)}; "
            "publish takes nothing away: such a host keeps its last release"
        )


def _some(hosts: Sequence[Host]) -> str:
    shown = ", ".join(f"{kind} {name}" for kind, name in hosts[:_TOLD])
    return shown if len(hosts) <= _TOLD else f"{shown} and {len(hosts) - _TOLD} more"
