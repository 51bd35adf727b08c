"""What recorded flows say: replay, readiness and suggest, as the commands have them. schemas/replay.schema.json."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tidegate_compiler import fields
from tidegate_compiler.diagnostics import show
from tidegate_compiler.edit.change import new_errors
from tidegate_compiler.learn.flows import TooManyFlowsError, Window
from tidegate_compiler.learn.suggest import STRICTNESS
from tidegate_control.api import proposal
from tidegate_control.api.operation import Answer, Call, Parameter, Schema
from tidegate_control.api.plans import COMMIT_SCHEMA
from tidegate_control.api.questions import wrong
from tidegate_control.inventory.errors import Invalid
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.learn import answers, asking, sources
from tidegate_control.learn.asking import AGAIN, BusyError, TooMuchError
from tidegate_control.learn.sources import Asked, Reader, SourceError
from tidegate_control.problems import TYPES, Problem, named

_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 63}
_INSTANT = "[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:]{5,8}Z)?"
_MOMENT: Schema = {"type": "string", "maxLength": 20, "pattern": f"^{_INSTANT}$"}
COMMIT = Parameter("commit", "The commit that is asked about; without it, the branch's tip.", COMMIT_SCHEMA)
AGAINST = Parameter(
    "against", "Compare with what this commit says, not with what was recorded.", COMMIT_SCHEMA
)
WINDOW = (
    Parameter(
        "last",
        "How long until now is looked at: 90m, 12h, 7d or 4w. Without it, and without `from`, seven days.",
        {"type": "string", "maxLength": 6, "pattern": "^[1-9][0-9]{0,4}[mhdw]$"},
    ),
    Parameter("from", "From when on; a date means 00:00 UTC.", _MOMENT),
    Parameter("to", "Until when; without it, until now.", _MOMENT),
)
AT = Parameter(
    "at",
    "Judge as of then: now, a date or a UTC time, or recorded: each flow at its own time.",
    {"type": "string", "maxLength": 20, "pattern": f"^(now|recorded|{_INSTANT})$", "default": "now"},
)
ONLY = (
    Parameter("gateway", "Only what this gateway recorded.", _NAME),
    Parameter("client", "Only this client: its name of now or then, or its ID.", _NAME),
)
WITH_REFUSED = Parameter(
    "with_refused",
    "Also ask for what was refused when it was recorded.",
    {"type": "boolean", "default": False},
)
STRICT = Parameter(
    "strictness",
    "How many clients in a list are as bad as one client that is admitted where it was not seen; 0.01 to 100.",
    {"type": "string", "maxLength": 6, "pattern": r"^[0-9]{1,3}(\.[0-9]{1,2})?$", "default": str(STRICTNESS)},
)


def replay(call: Call) -> Answer:
    """Answer with what would break, and what was refused and would pass, by a commit's inventory."""
    snapshot = call.services.inventory.snapshot(call.query.get("commit"))
    return _replayed(call, snapshot, snapshot.commit)


def replay_proposal(call: Call) -> Answer:
    """Answer with the same by the inventory as a proposal would make it."""
    base = call.services.inventory.snapshot()
    after = proposal.propose(base, call.body)
    errors = new_errors(base.checked, after.checked)
    if errors:
        raise Invalid("the proposal would make errors", errors)
    return _replayed(call, after, f"the proposal on {base.commit}")


def _replayed(call: Call, snapshot: Snapshot, title: str) -> Answer:
    against = call.query.get("against")
    before = call.services.inventory.snapshot(against) if against is not None else None
    at, only = _at(call), _only(call)
    with _reading(call, asking.WHOLE) as reader:
        new = _subject(call, snapshot, title)
        old = None if before is None else _subject(call, before, before.commit)
        return Answer(answers.replayed(new, reader(), at, old, only, asking.CHANGES_MOST)[0])


def readiness(call: Call) -> Answer:
    """Answer with the days without an unexplained denial, by gateway and policy."""
    snapshot = call.services.inventory.snapshot(call.query.get("commit"))
    at, only = _at(call), _only(call)
    with _reading(call, asking.WHOLE) as reader:
        return Answer(answers.readied(_subject(call, snapshot, snapshot.commit), reader(), at, only))


def suggest(call: Call) -> Answer:
    """Answer with the fewest readable policies that admit what was seen."""
    snapshot = call.services.inventory.snapshot(call.query.get("commit"))
    strictness = _strictness(call)
    with _reading(call, asking.SUGGESTION) as reader:
        told, _ = answers.suggested(
            _subject(call, snapshot, snapshot.commit),
            reader(),
            int(time.time()),
            with_refused=call.query["with_refused"],
            strictness=strictness,
        )
        return Answer(told)


@contextmanager
def _reading(call: Call, bounds: asking.Bounds) -> Iterator[Callable[[], Reader]]:
    """Hold the turn of questions; what goes wrong is a Problem: 400, 422, 503."""
    window = _window(call)
    try:
        with asking.asking(call.services, window, bounds) as reader:
            yield reader
    except BusyError as error:
        raise _later("busy", "Another question is being answered", str(error)) from None
    except (TooMuchError, TooManyFlowsError) as error:
        raise named(422, "too-much", "More than the server answers at once", str(error)) from None
    except SourceError as error:
        raise _later("no-events", "The events are not to be had", str(error)) from None


def _later(name: str, title: str, detail: str) -> Problem:
    return Problem(503, title, detail, type=TYPES + name, headers={"Retry-After": str(AGAIN)})


def _subject(call: Call, snapshot: Snapshot, title: str) -> answers.Subject:
    proposal.compiled(snapshot)
    found = asking.subject(call.services, snapshot, title)
    assert found is not None
    return found


def _window(call: Call) -> Window:
    said: dict[str, Any] = {}
    for name, member in (("last", "last"), ("from", "begin"), ("to", "end")):
        if name in call.query:
            said[member] = _read(name, call.query[name], sources.span if name == "last" else fields.instant)
    try:
        return asking.window(Asked(**said), int(time.time()))
    except SourceError as error:
        name = next((name for name in ("last", "from", "to") if name in call.query), "last")
        raise named(400, "bad-parameter", "Bad parameter", f"{show(name)}: {error}", parameter=name) from None


def _at(call: Call) -> int | None:
    text = call.query["at"]
    if text == "recorded":
        return None
    return int(time.time()) if text == "now" else _read("at", text, fields.instant)


def _strictness(call: Call) -> float:
    value = float(call.query["strictness"])
    if not 0.01 <= value <= 100:
        raise wrong("strictness", call.query["strictness"], ValueError("is a number from 0.01 to 100"))
    return value


def _read(name: str, text: str, reader: Callable[[str], int]) -> int:
    try:
        return reader(text)
    except ValueError as error:
        raise wrong(name, text, error) from None


def _only(call: Call) -> answers.Only:
    return answers.Only(call.query.get("gateway"), call.query.get("client"))
