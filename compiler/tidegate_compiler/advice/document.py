"""The advice as `explain` prints it, as part of its JSON and as lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate_compiler.advice.advise import Advice
from tidegate_compiler.advice.near import Place
from tidegate_compiler.diagnostics import Where, show_path
from tidegate_compiler.model import Policy


def places(root: str) -> Place:
    """Return what says places in an inventory that the command line named `root`."""
    prefix = show_path(root.rstrip("/")) + "/"
    return lambda where: f"{prefix}{show_path(where.file)}:{where.line}"


def document(advice: Advice, root: str) -> dict[str, Any]:
    """Return the members that `explain --json` has about what would have allowed the packet."""
    return {
        "denied_by": [_named(policy, root) for policy in advice.denied_by],
        "otherwise_allowed_by": [_named(policy, root) for policy in advice.allowed_by],
        "no_route": advice.route,
        "near": [
            {**_named(near.policy, root), "missing": near.missing, "message": near.message}
            for near in advice.near
        ],
        "near_total": advice.near_total,
        "changes": [
            {"change": change.text, **_place(change.where, root), "yaml": change.yaml}
            for change in advice.changes
        ],
    }


def _named(policy: Policy, root: str) -> dict[str, Any]:
    return {"policy": policy.name, **_place(policy.where, root)}


def _place(where: Where | None, root: str) -> dict[str, Any]:
    if where is None:
        return {"file": None, "line": None}
    return {"file": f"{show_path(root.rstrip('/'))}/{show_path(where.file)}", "line": where.line}


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Yield the same for people, from a document that has those members."""
    if told["verdict"] == "allow":
        return
    if told["no_route"]:
        yield f"  route    {told['no_route']}"
    for one in told["denied_by"]:
        yield f"  denied   by {one['policy']} ({one['file']}:{one['line']})"
    for one in told["otherwise_allowed_by"]:
        yield f"  else     {one['policy']} ({one['file']}:{one['line']}) would allow it"
    for one in told["near"]:
        yield f"  nearly   {one['policy']} ({one['file']}:{one['line']}): {one['message']}"
    if told["near_total"] > len(told["near"]):
        yield f"           and {told['near_total'] - len(told['near'])} more policies lack one thing"
    for number, one in enumerate(told["changes"]):
        place = f" ({one['file']}:{one['line']})" if one["file"] else ""
        yield f"  {'to allow' if number == 0 else '      or'} {one['change']}{place}"
        for line in (one["yaml"] or "").splitlines():
            yield f"           {line}"
