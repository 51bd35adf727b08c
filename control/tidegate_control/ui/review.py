"""The way of every change: its plan first, then one commit, made only on what the plan was made of.

    POST step=plan    -> dry run  -> the plan, with the commit that it was made of
    POST step=commit  -> the write, which expects that commit; where it has moved on, the plan anew

So nobody confirms a plan and gets another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.responses import Response

from tidegate_control import problems
from tidegate_control.inventory.errors import Refused, Stale
from tidegate_control.inventory.model import Outcome
from tidegate_control.ui import planview
from tidegate_control.ui.pages import learn
from tidegate_control.ui.visit import Visit
from tidegate_control.ui.words import segment

MOVED = "The inventory has changed since this plan was made. This is the plan anew; nothing is saved yet."
LONGEST_MESSAGE = 200


class Run(Protocol):
    """A write of the inventory's service, with all but these said."""

    def __call__(self, *, expected: str | None, dry_run: bool, message: str | None) -> Outcome:
        """Do it, or with `dry_run` only say what it would do."""


@dataclass(frozen=True)
class Proposal:
    """A change that somebody thinks of. `carried` are the fields that the plan's form sends on."""

    title: str
    verb: str
    action: str
    back: str
    crumbs: Sequence[tuple[str, str]]
    run: Run
    after: str
    carried: Mapping[str, str] = field(default_factory=dict)
    is_danger: bool = False
    can_go_back: bool = False
    asks_cascade: bool = False


def plan(visit: Visit, proposal: Proposal, changed: str = "") -> Response:
    """Show what a change would do. Raises InventoryError for one that cannot be made.

    What is refused is told here where no form has led here.
    """
    shown = {
        "title": proposal.title,
        "verb": proposal.verb,
        "action": proposal.action,
        "back": proposal.back,
        "crumbs": proposal.crumbs,
        "carried": proposal.carried,
        "is_danger": proposal.is_danger,
        "can_go_back": proposal.can_go_back,
        "changed": changed,
        "message": visit.form.get("message", "")[:LONGEST_MESSAGE],
        "revision": visit.snapshot.commit,
        "ask_cascade": False,
        "refusal": "",
        "diff": (),
        "losses": (),
        "problems": (),
        "recorded": None,
    }
    try:
        outcome = visit.costly(lambda: proposal.run(expected=None, dry_run=True, message=None))
    except Refused as error:
        if proposal.can_go_back:
            raise  # the form says it
        more = {
            "refusal": str(error),
            "losses": error.losses,
            "problems": error.diagnostics,
            "ask_cascade": proposal.asks_cascade and bool(error.losses),
        }
        return visit.page("plan.html", problems.of_inventory(error).status, **shown | more)
    found: dict[str, Any] = {
        "revision": outcome.revision,
        "view": None if outcome.plan is None else planview.view(outcome.plan),
        "losses": outcome.losses[1:],
        "warnings": outcome.warnings,
        "diff": outcome.diff,
    }
    if outcome.plan is not None and outcome.diff:
        found["recorded"] = learn.of_plan(visit, outcome)
    return visit.page("plan.html", 409 if changed else 200, **shown | found)


def commit(visit: Visit, proposal: Proposal) -> Response:
    """Make the change that was planned, or where the inventory has moved on show the plan anew."""
    message = visit.form.get("message", "")[:LONGEST_MESSAGE].strip() or None
    try:
        # An empty expectation would be none at all, and this form has always seen a plan.
        planned = visit.form.get("planned", "") or "none"
        outcome = proposal.run(expected=planned, dry_run=False, message=message)
    except Stale:
        return plan(visit, proposal, MOVED)
    return visit.goto(landing(proposal.after, outcome))


def landing(path: str, outcome: Outcome) -> str:
    """Return where a browser goes after a change."""
    if outcome.branch is not None:
        return f"{path}?waiting={segment(outcome.branch)}"
    return path if outcome.commit is None else f"{path}?saved={outcome.commit}"
