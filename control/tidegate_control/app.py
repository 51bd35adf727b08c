"""The one ASGI application: what every request passes, then the rooms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from tidegate_control import problems
from tidegate_control.settings import Settings


@dataclass(frozen=True)
class Services:
    """What the rooms work with; one for the process."""

    settings: Settings
    inventory: Any  # inventory.service.Inventory
    events: Any  # intake.store.EventStore


Room = Callable[[Services], Sequence[BaseRoute]]
ROOMS: tuple[Room, ...] = ()
"""Each room's routes, in the order in which they are asked."""


def make_app(services: Services, rooms: Sequence[Room] = ROOMS) -> Starlette:
    """Return the application."""
    app = Starlette(
        routes=[route for room in rooms for route in room(services)],
        exception_handlers={problems.Problem: problems.answer},
    )
    app.state.services = services
    return app
