"""What recorded flows say of the inventory: replay, readiness, suggestion. Nothing is written, nor any gateway told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tidegate_compiler import fields
from tidegate_compiler.learn.flows import TooManyFlowsError
from tidegate_control.api import proposal
from tidegate_control.api.operation import Answer, Call, Parameter
from tidegate_control.api.plans import COMMIT_SCHEMA
from tidegate_control.api.questions import root, wrong
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.learn import answers, asking, sources
from tidegate_control.problems import Problem, named

ENTRIES_MOST = 1000
"""Entries of each kind that an answer holds; the totals are those of all."""
_SHOWN = 12
_TIME = {"type": "string", "maxLength": 20, "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:]{5,8}Z)?$"}
_NAME = {"type": "string", "minLength": 1, "maxLength": 63}
WINDOW = (
    Parameter(
        "last",
        "Only flows of this long until now: 90m, 12h, 7d (the default), 4w.",
        {"type": "string", "pattern": "^[0-9]{1,5}[mhdw]$"},
    ),
    Parameter("from", "Only flows since then: a date or a UTC time.", _TIME),
    Parameter("to", "Only flows from before then.", _TIME),
)
AT = Parameter(
    "at",
    "When verdicts are asked for: now (the default), a date, a UTC time, or recorded: each flow's own time.",
    {
        "type": "string",
        "maxLength": 20,
        "pattern": "^(now|recorded|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:]{5,8}Z)?)$",
    },
)
ONLY = (
    Parameter("gateway", "Only what this gateway recorded.", _NAME),
    Parameter("client", "Only this client, by its name of now or then, or by its ID.", _NAME),
)
COMMIT = Parameter("commit", "The commit that is asked about; without it, the branch's tip.", COMMIT_SCHEMA)
AGAINST = Parameter(
    "against", "Compare with what this commit says of the flows, not with what was recorded.", COMMIT_SCHEMA
)
REFUSED = Parameter(
    "with_refused",
    "Also ask for what was refused when it was recorded.",
    {"type": "boolean", "default": False},
)


def replay(call: Call) -> Answer:
    """Answer with what the inventory would break, and what it would let pass."""
    tip = call.services.inventory.snapshot(call.query.get("commit"))
    against = call.query.get("against")
    before = None if against is None else call.services.inventory.snapshot(against)
    return _replayed(call, _subject(call, tip, tip.commit), before)


def replay_proposal(call: Call) -> Answer:
    """Answer with what a proposal would break that passes now, and the reverse."""
    tip = call.services.inventory.snapshot()
    after = proposal.propose(tip, call.body)
    return _replayed(call, _subject(call, after, tip.commit, "the proposal"), tip)


def readiness(call: Call) -> Answer:
    """Answer with the days without an unexplained denial, by gateway and policy."""
    tip = call.services.inventory.snapshot(call.query.get("commit"))
    with _reading(call) as (reader, now):
        told = answers.readied(_subject(call, tip, tip.commit), reader, _at(call, now), _only(call))
    return Answer({"commit": tip.commit, "readiness": told})


def suggest(call: Call) -> Answer:
    """Answer with the fewest policies that admit the flows."""
    tip = call.services.inventory.snapshot(call.query.get("commit"))
    with _reading(call, asking.SUGGESTION) as (reader, now):
        subject = _subject(call, tip, tip.commit)
        told, _ = answers.suggested(subject, reader, now, with_refused=bool(call.query.get("with_refused")))
    return Answer({"commit": tip.commit, "suggestion": told})


def _replayed(call: Call, new: answers.Subject, before: Snapshot | None) -> Answer:
    with _reading(call) as (reader, now):
        old = None if before is None else _subject(call, before, before.commit)
        told, _ = answers.replayed(new, reader, _at(call, now), old, _only(call), asking.CHANGES_MOST)
    entries = {kind: len(told[kind]) for kind in ("breaks", "passes")}
    cut = {kind: told[kind][:ENTRIES_MOST] for kind in entries}
    return Answer({"commit": new.commit, "entries": entries, "replay": told | cut})


def _subject(call: Call, snapshot: Snapshot, commit: str, title: str | None = None) -> answers.Subject:
    """Return an inventory to judge by, with the names of the past that `commit` knows. Problem 409."""
    proposal.compiled(snapshot)
    found = answers.of_snapshot(
        snapshot, call.services.inventory, title or commit[:_SHOWN], root(call), commit
    )
    assert found is not None
    return found


def _only(call: Call) -> answers.Only:
    return answers.Only(call.query.get("gateway"), call.query.get("client"))


def _at(call: Call, now: int) -> int | None:
    text = call.query.get("at", "now")
    if text in ("now", "recorded"):
        return now if text == "now" else None
    return _instant("at", text)


def _instant(name: str, text: str) -> int:
    try:
        return fields.instant(text)
    except fields.FieldError as error:
        raise wrong(name, text, error) from None


@contextmanager
def _reading(call: Call, bounds: asking.Bounds | None = None) -> Iterator[tuple[sources.Reader, int]]:
    """Let the intake's flows be read within bounds, when it is this request's turn. Problem 400, 422, 503."""
    now = int(time.time())
    begin, end = (
        None if name not in call.query else _instant(name, call.query[name]) for name in ("from", "to")
    )
    last = call.query.get("last")
    try:
        asked = sources.Asked(begin, end, None if last is None else sources.span(last))
        window = asking.window(asked, now)
    except (ValueError, sources.SourceError) as error:
        raise named(400, "bad-parameter", "Bad parameter", str(error)) from None
    again = {"Retry-After": str(asking.AGAIN)}
    try:
        with asking.asking(call.services, window, bounds or asking.WHOLE) as reader:
            yield reader(), now
    except asking.BusyError as error:
        raise Problem(503, "Busy", str(error), headers=again) from None
    except (TooManyFlowsError, asking.TooMuchError) as error:
        raise named(422, "too-many", "Too much at once", str(error)) from None
    except sources.SourceError as error:
        raise Problem(503, "The events are not to be had", str(error), headers=again) from None
