"""Every page: its path, what it needs, and who answers. docs/ui.md lists the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.routing import BaseRoute, Route

from tidegate_control.access.caller import EDITOR, READER
from tidegate_control.api.made import Made
from tidegate_control.app import Services
from tidegate_control.ui.pages import access, change, enrol, flows, history, learn, objects, overview
from tidegate_control.ui.pages.static import static
from tidegate_control.ui.visit import Answer, endpoint


@dataclass(frozen=True)
class Page:
    """A page, and the scope that it needs. Those with a form also answer POST."""

    path: str
    answer: Answer
    scope: str
    methods: tuple[str, ...] = ("GET",)


_FORM = ("GET", "POST")
PAGES: tuple[Page, ...] = (
    Page("/", overview.overview, READER),
    Page("/problems", overview.problems, READER),
    Page("/access", access.matrix, READER),
    Page("/flows", flows.flows, READER),
    Page("/replay", learn.replay, READER),
    Page("/suggest", learn.suggest, READER),
    Page("/history", history.many, READER),
    Page("/history/{commit}", history.one, READER),
    Page("/history/{commit}/revert", history.revert, EDITOR, _FORM),
    Page("/enrol", enrol.enrol, READER),
    Page("/overlay", objects.one, READER),
    Page("/overlay/edit", change.edit, EDITOR, _FORM),
    Page("/new/{kind}", change.new, EDITOR, _FORM),
    Page("/{kind}", objects.many, READER),
    Page("/{kind}/{name}", objects.one, READER),
    Page("/{kind}/{name}/edit", change.edit, EDITOR, _FORM),
    Page("/{kind}/{name}/delete", change.delete, EDITOR, _FORM),
)


def routes(services: Services) -> Sequence[BaseRoute]:
    """Return the UI's routes, to be asked after all others. The form to log in is the door's."""
    made = Made()
    return [
        Route("/static/{file}", static),
        *(
            Route(page.path, endpoint(services, made, page.answer, page.scope), methods=list(page.methods))
            for page in PAGES
        ),
    ]
