"""What the API says of itself: who asks, how the server is, its own description."""

from __future__ import annotations

from tidegate_compiler.diagnostics import show_path
from tidegate_control.api import kinds
from tidegate_control.api.operation import Answer, Call
from tidegate_schema import __version__


def me(call: Call) -> Answer:
    """Answer with who asks, and what that one may do."""
    caller = call.caller
    return Answer({"name": caller.name, "email": caller.email, "scopes": sorted(caller.scopes)})


def status(call: Call) -> Answer:
    """Answer with the revision that is served, and how the inventory is."""
    snapshot = call.services.inventory.snapshot()
    settings = call.services.settings
    found = snapshot.checked.diagnostics
    errors = sum(one.is_error for one in found)
    inventory = snapshot.checked.inventory
    released = call.services.inventory.released()
    body = {
        "version": __version__,
        "commit": snapshot.commit,
        "branch": show_path(settings.branch),
        "writes": settings.write,
        "fleet": None if inventory is None else inventory.overlay.fleet,
        "objects": {kind.path: len(snapshot.objects(kind.kind)) for kind in kinds.KINDS},
        "released": None if released is None else released.entry.commit,
        "errors": errors,
        "warnings": len(found) - errors,
    }
    return Answer(body)
