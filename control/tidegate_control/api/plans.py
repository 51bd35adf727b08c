"""Plans: what a change does to access, hosts and objects, before or after it is made. schemas/plan.schema.json."""

from __future__ import annotations

from tidegate_compiler.edit.change import new_errors
from tidegate_compiler.plan.document import document
from tidegate_compiler.plan.plan import plan
from tidegate_compiler.plan.source import Side
from tidegate_control import problems
from tidegate_control.api import proposal
from tidegate_control.api.operation import Answer, Call, Parameter
from tidegate_control.api.questions import root
from tidegate_control.inventory.errors import Invalid
from tidegate_control.inventory.snapshot import Snapshot

COMMIT_SCHEMA = {"type": "string", "pattern": "^([0-9a-f]{40}|[0-9a-f]{64})$"}
BETWEEN = (
    Parameter("from", "The commit before.", COMMIT_SCHEMA, required=True),
    Parameter("to", "The commit after; without it, the branch's tip.", COMMIT_SCHEMA),
)
_SHOWN = 12


def between(call: Call) -> Answer:
    """Answer with what differs between two commits."""
    inventory = call.services.inventory
    old, new = inventory.snapshot(call.query["from"]), inventory.snapshot(call.query.get("to"))
    told = plan(_side(call, old, old.commit[:_SHOWN]), _side(call, new, new.commit[:_SHOWN]))
    return Answer({"from": old.commit, "to": new.commit, "plan": document(told)})


def proposed(call: Call) -> Answer:
    """Answer with what a proposal would do."""
    base = call.services.inventory.snapshot()
    old = _side(call, base, base.commit[:_SHOWN])
    after = proposal.propose(base, call.body)
    errors = new_errors(base.checked, after.checked)
    if errors:
        raise Invalid("the proposal would make errors", errors)
    told = plan(old, _side(call, after, "the proposal"))
    known = set(base.checked.diagnostics)
    warnings = [one for one in after.checked.diagnostics if one not in known]
    body = {"commit": base.commit, "plan": document(told), **problems.diagnostics(warnings, "warnings")}
    return Answer(body, commit=base.commit)


def _side(call: Call, snapshot: Snapshot, title: str) -> Side:
    proposal.compiled(snapshot)
    found = snapshot.side(title, root(call))
    assert found is not None
    return found
