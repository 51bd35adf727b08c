"""The first page: hosts, latest changes, problems, what the gateways tell; and a page of every problem."""

from __future__ import annotations

from starlette.responses import Response

from tidegate_control.ui.pages.flows import accounts
from tidegate_control.ui.pages.objects import saved
from tidegate_control.ui.visit import Visit

MOST_GATEWAYS = 200


def overview(visit: Visit) -> Response:
    """Show how things stand."""
    problems = visit.snapshot.checked.diagnostics
    compiled = visit.snapshot.compiled
    gateways = visit.snapshot.objects("gateway")
    return visit.page(
        "overview.html",
        errors=sum(problem.is_error for problem in problems),
        warnings=sum(not problem.is_error for problem in problems),
        first=problems[:5],
        digest=compiled.digest if compiled is not None else None,
        gateways=list(gateways.values()) if len(gateways) <= MOST_GATEWAYS else [],
        accounts=accounts(visit),
        entries=visit.services.inventory.history(limit=5),
        released=visit.services.inventory.released(),
        **saved(visit),
    )


def problems(visit: Visit) -> Response:
    """Show the diagnostics of the inventory."""
    return visit.page("problems.html", problems=visit.snapshot.checked.diagnostics)
