"""Publishing: the commit that somebody has looked at is handed over; what is done with it is the signer's to decide."""

from __future__ import annotations

import time

from tidegate_control.api import handover, proposal, shape
from tidegate_control.api.operation import Answer, Call, Schema
from tidegate_control.api.plans import COMMIT_SCHEMA
from tidegate_control.inventory.errors import Stale
from tidegate_control.problems import Problem, named

SCHEMA: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["commit"],
    "properties": {
        "commit": {**COMMIT_SCHEMA, "description": "The branch's tip, as its publisher has seen it."}
    },
}


def publish(call: Call) -> Answer:
    """Hand the tip over to the command or the directory of the settings."""
    settings = call.services.settings
    if not settings.publish_command and settings.publish_directory is None:
        detail = "nobody to hand over to: set publish_command or publish_directory in the server's settings"
        raise named(409, "no-publisher", "Publishing is not set up", detail)
    shape.check(SCHEMA, call.body)
    # What others took back at the remote a moment ago is not published.
    call.services.inventory.refresh()
    snapshot = call.services.inventory.snapshot()
    if call.body["commit"] != snapshot.commit:
        raise Stale(
            "that commit is not the branch's tip: look at what is, or revert to what was, and publish that"
        )
    proposal.compiled(snapshot)
    request = handover.Request(
        snapshot.commit, settings.branch, call.caller.name, call.caller.email, int(time.time())
    )
    try:
        if settings.publish_command:
            handover.run(settings.publish_command, request)
            return Answer({"commit": snapshot.commit, "handed_to": "command", "file": None})
        assert settings.publish_directory is not None
        file = handover.write(settings.publish_directory, request)
    except handover.HandoverError as error:
        raise _problem(error) from None
    return Answer({"commit": snapshot.commit, "handed_to": "directory", "file": file}, 202)


def _problem(error: handover.HandoverError) -> Problem:
    return named(error.status, "not-published", "Not published", str(error))
