"""Replay and suggest: what recorded flows say of the inventory as it is, and of a change that is planned."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

from starlette.responses import Response

from tidegate_compiler.learn.flows import DAY, TooManyFlowsError, Window
from tidegate_control.inventory.model import Outcome
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.learn import answers, asking
from tidegate_control.learn.asking import BusyError, TooMuchError
from tidegate_control.learn.sources import Asked, SourceError
from tidegate_control.ui import recorded
from tidegate_control.ui.planview import MOST
from tidegate_control.ui.visit import Visit

SPANS = {"1d": ("a day", 1), "7d": ("a week", 7), "30d": ("30 days", 30), "90d": ("90 days", 90)}
DEFAULT = "7d"
DAYS_OF_PLAN = 7
GLANCE_CLIENTS = 5000
"""Of a larger fleet the tables alone take longer than somebody wants to wait who has not asked."""
LONGEST = 64


def replay(visit: Visit) -> Response:
    """Show what would break and pass with the inventory as it is in enforce, and how ready each gateway is."""
    asked = {name: visit.query.get(name, "").strip()[:LONGEST] for name in ("gateway", "client")}
    context: dict[str, Any] = {
        "asked": asked,
        **_spans(visit),
        "told": None,
        "ready": (),
        "has_errors": False,
    }
    if "span" in visit.query:
        context |= _replayed(
            visit, context["span"], answers.Only(asked["gateway"] or None, asked["client"] or None)
        )
    return visit.page("replay.html", **context)


def _replayed(visit: Visit, span: str, only: answers.Only) -> dict[str, Any]:
    snapshot, now = visit.snapshot, int(time.time())
    if snapshot.compiled is None:
        return {"has_errors": True}
    with (
        recorded.refusals(),
        asking.asking(visit.services, _window(SPANS[span][1], now), asking.WHOLE) as reader,
    ):
        subject = _subject(visit, snapshot)
        told, _ = answers.replayed(subject, reader(), now, only=only, most=asking.CHANGES_MOST)
        ready = answers.readied(subject, reader(), now, only)
    return {"told": recorded.replayed(told), "ready": ready["gateways"]}


def suggest(visit: Visit) -> Response:
    """Show the policies that admit what was seen. A click applies none: each leads to a form, and that to its plan."""
    context: dict[str, Any] = {**_spans(visit), "told": None, "has_errors": visit.snapshot.compiled is None}
    if "span" in visit.query and not context["has_errors"]:
        told = _suggested(visit, context["span"])
        context |= {
            "told": told,
            "policies": list(islice(recorded.policies(told), MOST)),
            "groups": list(islice(recorded.groups(told), MOST)),
            "most": MOST,
        }
    return visit.page("suggest.html", **context)


def _suggested(visit: Visit, span: str) -> Mapping[str, Any]:
    now = int(time.time())
    window = _window(SPANS[span][1], now)
    with recorded.refusals(), asking.asking(visit.services, window, asking.SUGGESTION) as reader:
        return answers.suggested(_subject(visit, visit.snapshot), reader(), now)[0]


def of_plan(visit: Visit, outcome: Outcome) -> dict[str, Any]:
    """Return what recorded flows say of a change that is planned.

    Unasked it is a glance; where that takes too long, or another question is being answered, the page offers to ask.
    """
    base: Snapshot = visit.services.inventory.snapshot(outcome.revision)
    found = {"days": DAYS_OF_PLAN, "told": None, "is_glance": True, "problem": ""}
    if base.compiled is None or outcome.snapshot.compiled is None:
        return found
    if visit.form.get("recorded") == "yes":
        try:
            told = _of_change(visit, base, outcome.snapshot, is_glance=False)
        except (BusyError, TooManyFlowsError, SourceError) as error:
            return found | {"problem": str(error)}
        return found | {"told": recorded.replayed(told), "is_glance": False}
    if len(base.compiled.inventory.client_rows) > GLANCE_CLIENTS:
        return found
    try:
        told = _of_change(visit, base, outcome.snapshot, is_glance=True)
    except (BusyError, TooMuchError, TooManyFlowsError):
        return found
    except SourceError as error:
        return found | {"problem": str(error)}
    return found | {"told": recorded.replayed(told)}


def _of_change(visit: Visit, base: Snapshot, after: Snapshot, *, is_glance: bool) -> Mapping[str, Any]:
    now, services = int(time.time()), visit.services
    bounds = asking.GLANCE if is_glance else asking.WHOLE
    titles = base.commit[:12], "this change"
    with asking.asking(services, _window(DAYS_OF_PLAN, now), bounds) as reader:
        if is_glance:
            old, new = (
                asking.unasked(one, base, services.settings.inventory, title)
                for one, title in zip((base, after), titles, strict=True)
            )
        else:
            old, new = (
                asking.subject(services, one, title) for one, title in zip((base, after), titles, strict=True)
            )
        assert old is not None
        assert new is not None
        return answers.replayed(new, reader(), now, old, most=asking.CHANGES_MOST)[0]


def _subject(visit: Visit, snapshot: Snapshot) -> answers.Subject:
    found = asking.subject(visit.services, snapshot, snapshot.commit[:12])
    assert found is not None
    return found


def _window(days: int, now: int) -> Window:
    return asking.window(Asked(last=days * DAY), now)


def _spans(visit: Visit) -> dict[str, Any]:
    span = visit.query.get("span", DEFAULT)
    return {"spans": SPANS, "span": span if span in SPANS else DEFAULT}
