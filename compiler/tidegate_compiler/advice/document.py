"""The advice as `explain` prints it, as part of its JSON and as lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate_compiler.advice.advise import Advice
from tidegate_compiler.diagnostics import Rough, Where, show_path
from tidegate_compiler.model import Policy


class Places:
    """Says places in an inventory that the command line named `root`.

    `rough` are the files of those said that are not exact, since their file was read the fast way.
    """

    def __init__(self, root: str) -> None:
        self._prefix = show_path(root.rstrip("/")) + "/"
        self.rough: set[str] = set()

    def __call__(self, where: Where) -> str:
        """Return `file:line`."""
        return "{file}:{line}".format(**self.members(where))

    def members(self, where: Where | None) -> dict[str, Any]:
        """Return the same as members of a document."""
        if where is None:
            return {"file": None, "line": None}
        if isinstance(where, Rough):
            self.rough.add(where.file)
        return {"file": self._prefix + show_path(where.file), "line": where.line}


def document(advice: Advice, places: Places) -> dict[str, Any]:
    """Return the members that `explain --json` has about what would have allowed the packet."""
    return {
        "denied_by": [_named(policy, places) for policy in advice.denied_by],
        "otherwise_allowed_by": [_named(policy, places) for policy in advice.allowed_by],
        "no_route": advice.route,
        "near": [
            {**_named(near.policy, places), "missing": near.missing, "message": near.message}
            for near in advice.near
        ],
        "near_total": advice.near_total,
        "changes": [
            {"change": change.text, **places.members(change.where), "yaml": change.yaml}
            for change in advice.changes
        ],
    }


def _named(policy: Policy, places: Places) -> dict[str, Any]:
    return {"policy": policy.name, **places.members(policy.where)}


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
