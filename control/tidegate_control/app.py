"""The one ASGI application: what every request passes, from the outside in, then the rooms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from tidegate_control import problems
from tidegate_control.access import login, pages
from tidegate_control.access.attempts import Attempts
from tidegate_control.access.authentication import Access, Authentication
from tidegate_control.access.csrf import Forgery
from tidegate_control.access.headers import SecurityHeaders
from tidegate_control.access.limits import Limits
from tidegate_control.access.peer import Peers
from tidegate_control.access.refusals import Refusals, RequestLog
from tidegate_control.access.sessions import Sessions
from tidegate_control.access.tokens import Tokens
from tidegate_control.costly import Costly
from tidegate_control.intake.store import EventStore
from tidegate_control.inventory.service import Inventory
from tidegate_control.learn.asking import Turn
from tidegate_control.settings import Settings


@dataclass(frozen=True)
class Services:
    """What the rooms work with; one for the process."""

    settings: Settings
    inventory: Inventory
    events: EventStore
    access: Access
    learning: Turn = field(default_factory=Turn)
    costly: Costly = field(default_factory=Costly)


Room = Callable[[Services], Sequence[BaseRoute]]
"""A room's routes, by what it works with; `rooms.ROOMS` are those there are."""


def make_access(settings: Settings) -> Access:
    """Open the tokens and sessions of the state directory, which is there."""
    return Access(
        tokens=Tokens(settings.state),
        sessions=Sessions(settings.state, idle=settings.session_idle, end=settings.session_end),
        attempts=Attempts(),
        peers=Peers(settings.trusted_proxies),
        is_secure=settings.is_secure,
    )


def make_app(services: Services, rooms: Sequence[Room]) -> Starlette:
    """Return the application; the rooms are asked in their order."""
    settings, access = services.settings, services.access
    app = Starlette(
        routes=[*login.routes(access), *(route for room in rooms for route in room(services))],
        middleware=[
            Middleware(SecurityHeaders, is_secure=settings.is_secure),
            Middleware(RequestLog, peers=access.peers),
            Middleware(Refusals, answer=pages.refuse),
            Middleware(
                Limits,
                names=settings.names,
                body=settings.body_limit,
                intake_body=settings.intake_body_limit,
                requests=settings.requests,
                peers=access.peers,
            ),
            Middleware(Authentication, access=access),
            Middleware(Forgery, origin=settings.origin),
        ],
        exception_handlers={kind: pages.refuse for kind in problems.HANDLERS if kind is not Exception},
    )
    # A path has one spelling; a redirection to another would be made from what the asker says of the host.
    app.router.redirect_slashes = False
    return app
