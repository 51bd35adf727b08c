"""History: who changed what and when, each commit as a difference, and a commit undone by a new one."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.responses import Response

from tidegate_control.inventory.errors import NotFound
from tidegate_control.inventory.model import Entry, Outcome
from tidegate_control.ui import review
from tidegate_control.ui.pages.objects import is_commit, saved
from tidegate_control.ui.visit import Visit

PAGE = 50
LINES = 2000
"""More lines of a difference than this no page shows."""


def many(visit: Visit) -> Response:
    """Show the latest commits, or those behind one."""
    before = visit.query.get("before", "")
    entries = visit.services.inventory.history(limit=PAGE + 1, before=before if is_commit(before) else None)
    return visit.page(
        "history.html",
        entries=entries[:PAGE],
        last=entries[PAGE - 1].commit if len(entries) > PAGE else None,
        is_first=not is_commit(before),
        **saved(visit),
    )


def one(visit: Visit) -> Response:
    """Show a commit."""
    entry = _entry(visit)
    lines = visit.services.inventory.diff(entry.commit)
    return visit.page(
        "commit.html", entry=entry, diff=lines[:LINES], more=max(0, len(lines) - LINES), **saved(visit)
    )


def revert(visit: Visit) -> Response:
    """Undo a commit: the plan, then a new commit."""
    entry = _entry(visit)
    base = f"/history/{entry.commit}"
    proposal = review.Proposal(
        f"Revert {entry.commit[:12]}",
        "Revert it by a new commit",
        f"{base}/revert",
        base,
        [("/history", "History"), (base, entry.commit[:12])],
        partial(_revert, visit, entry.commit),
        "/history",
        is_danger=True,
    )
    if visit.request.method == "POST" and visit.form.get("step") == "commit":
        return review.commit(visit, proposal)
    return review.plan(visit, proposal)


def _revert(visit: Visit, commit: str, *, message: str | None, **how: Any) -> Outcome:
    """Revert; the commit says itself what it undoes, so that nobody's `message` is asked for."""
    del message
    outcome: Outcome = visit.services.inventory.revert(commit, author=visit.author, **how)
    return outcome


def _entry(visit: Visit) -> Entry:
    commit = str(visit.request.path_params["commit"])
    if not is_commit(commit):
        raise NotFound("a commit's ID is 40 or 64 hex digits")
    found: Entry = visit.services.inventory.entry(commit)
    return found
