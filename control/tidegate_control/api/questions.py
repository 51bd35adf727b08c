"""Questions about the inventory: is it right, who reaches what, what happens to a packet, and why."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from tidegate_compiler import accesstests, fields, pipeline, report
from tidegate_compiler.access.document import document as access_document
from tidegate_compiler.access.survey import survey
from tidegate_compiler.advice import document as advice
from tidegate_compiler.advice.advise import advise
from tidegate_compiler.diagnostics import Diagnostic, did_you_mean, show
from tidegate_compiler.judge import Court, Judgement, Packet, court, judge, packet
from tidegate_compiler.pipeline import Compiled
from tidegate_compiler.reach import Reach
from tidegate_control import problems
from tidegate_control.api import proposal
from tidegate_control.api.operation import Answer, Call, Parameter
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.problems import Problem, named

AT = Parameter(
    "at",
    "The moment that is asked about: a date such as 2027-06-30, which means 00:00 UTC, a UTC time such as "
    "2027-06-30T18:00Z, or now.",
    {"type": "string", "maxLength": 20, "pattern": "^(now|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:]{5,8}Z)?)$"},
)


def moment(call: Call) -> int | None:
    """Return the Unix second of `at`, None when nobody asked for one. Problem 400."""
    text = call.query.get("at")
    if text is None:
        return None
    if text == "now":
        return int(time.time())
    try:
        return fields.instant(text)
    except fields.FieldError as error:
        raise wrong("at", text, error) from None


def wrong(name: str, value: str, error: Exception) -> Problem:
    """Return the problem of a parameter whose value means nothing."""
    detail = f"'{name}': {show(value)}: {error}"
    return named(400, "bad-parameter", "Bad parameter", detail, parameter=name)


def root(call: Call) -> str:
    """Return what places in the inventory are told from: its path in the repository."""
    return call.services.settings.inventory or "."


def validate(call: Call) -> Answer:
    """Answer with every diagnostic of the inventory."""
    snapshot = call.services.inventory.snapshot()
    at = moment(call)
    found = snapshot.checked.diagnostics if at is None else _checked_at(snapshot, at)
    return Answer(_diagnosed(snapshot, found), commit=snapshot.commit if at is None else None)


def validate_proposal(call: Call) -> Answer:
    """Answer with every diagnostic of the inventory as a proposal would make it."""
    after = proposal.propose(call.services.inventory.snapshot(), call.body)
    return Answer(_diagnosed(after, after.checked.diagnostics), commit=after.commit)


def _checked_at(snapshot: Snapshot, at: int) -> tuple[Diagnostic, ...]:
    flaws = list(snapshot.content.problems)
    return pipeline.validate_files(snapshot.files, flaws, at, like=snapshot.documents).diagnostics


def _diagnosed(snapshot: Snapshot, found: Sequence[Diagnostic]) -> dict[str, Any]:
    errors = sum(one.is_error for one in found)
    return {
        "commit": snapshot.commit,
        "errors": errors,
        "warnings": len(found) - errors,
        **problems.diagnostics(found),
    }


def run_tests(call: Call) -> Answer:
    """Answer with the verdict on every access test."""
    snapshot = call.services.inventory.snapshot()
    compiled = proposal.compiled(snapshot)
    at = moment(call)
    now = int(time.time()) if at is None else at
    outcome = accesstests.run(compiled.inventory, Reach(compiled.fleet), now)
    return Answer({"commit": snapshot.commit, **report.test_document(outcome)})


def access(call: Call) -> Answer:
    """Answer with who reaches what: schemas/access.schema.json."""
    snapshot = call.services.inventory.snapshot()
    compiled = proposal.compiled(snapshot)
    at = moment(call)
    clients, resources = call.query.get("client", ()), call.query.get("resource", ())
    _known("client", clients, compiled.inventory.clients)
    _known("resource", resources, compiled.inventory.resources)
    reach = Reach(compiled.fleet) if at is not None else _reach(call, snapshot, compiled)
    found = survey(compiled.inventory, reach, at, clients, resources)
    return Answer(access_document(found, root(call)), commit=snapshot.commit if at is None else None)


def explain(call: Call) -> Answer:
    """Answer with what happens to a packet, why, and what would allow it."""
    snapshot = call.services.inventory.snapshot()
    compiled = proposal.compiled(snapshot)
    asked = _packet(call)
    over: Court = call.made.get(snapshot.commit, "court", lambda: court(compiled.fleet))
    _known("client", [asked.client], over.clients)
    judgement, port = judge(over, asked), call.query["port"]
    told = report.explanation(
        asked, port, judgement, over.clients[asked.client], compiled.inventory, root(call)
    )
    told |= _advice(call, snapshot, compiled, asked, judgement)
    return Answer({"commit": snapshot.commit, **told})


def _packet(call: Call) -> Packet:
    given = call.query
    name = "destination"
    try:
        address = fields.address(given["destination"])
        name = "port"
        fields.one_port(given["port"])
    except fields.FieldError as error:
        raise wrong(name, given[name], error) from None
    at = moment(call)
    return packet(given["client"], address, given["port"], int(time.time()) if at is None else at)


def _advice(
    call: Call, snapshot: Snapshot, compiled: Compiled, asked: Packet, judgement: Judgement
) -> dict[str, Any]:
    """Return the advice on a packet, every place exact: the few files it speaks of are read again, carefully."""
    exact: frozenset[str] = frozenset()
    known = compiled.inventory
    while True:
        places = advice.Places(root(call))
        told = advice.document(advise(known, asked, call.query["port"], judgement, places), places)
        if places.rough <= exact:
            return told
        exact |= places.rough
        again = pipeline.validate_files(snapshot.files, careful=exact, like=snapshot.documents)
        known = again.inventory or known


def _reach(call: Call, snapshot: Snapshot, compiled: Compiled) -> Reach:
    """Return what is kept for a commit. It remembers every moment that it is asked about, so only "always" is asked."""
    return call.made.get(snapshot.commit, "reach", lambda: Reach(compiled.fleet))


def _known(kind: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            detail = f"there is no {kind} {show(name)}{did_you_mean(name, known)}"
            raise named(404, "not-found", "No such thing", detail)
