"""One request to a page: who asks, what the form says, and how a page, a redirection or an error comes of it.

Pages are synchronous functions of a Visit, run in a thread: git and the stores block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tidegate_control import problems
from tidegate_control.access import onward
from tidegate_control.access.caller import EDITOR, READER, Caller
from tidegate_control.access.csrf import csrf_token
from tidegate_control.access.guard import caller_of, require
from tidegate_control.api.made import Made
from tidegate_control.app import Services
from tidegate_control.inventory.errors import InventoryError
from tidegate_control.inventory.model import Author
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.problems import Problem
from tidegate_control.ui import kinds, listing, words

FORM_FIELDS = 100
"""More fields than this no form here has."""
Answer = Callable[["Visit"], Response]
T = TypeVar("T")


@cache
def environment() -> jinja2.Environment:
    """Return the templates: everything is escaped, and a name that nobody set is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("tidegate_control.ui"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "when": words.when,
        "size": words.size,
        "number": words.number,
        "segment": words.segment,
        "visible": words.visible,
        "by": words.by,
        "told": problems.told,
        "one_line": listing.one_line,
    }
    made.globals |= {"kinds": kinds.kinds(), "of_word": kinds.of_word}
    return made


@dataclass
class Visit:
    """A request to a page."""

    request: Request
    services: Services
    made: Made
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def caller(self) -> Caller | None:
        """Return who asks, None for a stranger."""
        return caller_of(self.request)

    @property
    def can_edit(self) -> bool:
        """Tell whether the caller may change the inventory."""
        return self.caller is not None and EDITOR in self.caller.scopes

    @property
    def author(self) -> Author:
        """Return the caller as the author of a commit; Problem 401 or 403 without the scope."""
        caller = require(self.request, EDITOR)
        return Author(caller.name, caller.email)

    def costly(self, compute: Callable[[], T]) -> T:
        """Return what `compute` returns, where the caller has a place for what computes much. Problem 429, 503."""
        return self.services.costly.once(self.author.name, compute)

    @property
    def query(self) -> Mapping[str, str]:
        """Return the query's parameters."""
        return self.request.query_params

    @cached_property
    def snapshot(self) -> Snapshot:
        """Return the inventory as it is now; the same for the whole visit."""
        found: Snapshot = self.services.inventory.snapshot()
        return found

    @property
    def names_by_id(self) -> Mapping[str, str]:
        """Return the clients' names by their IDs; none of an inventory with errors."""
        compiled = self.snapshot.compiled
        if compiled is None:
            return {}
        ids = compiled.fleet.ids
        return self.made.get(
            self.snapshot.commit, "names", lambda: {identifier: name for name, identifier in ids.items()}
        )

    def page(self, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """Return a page in the frame that all share."""
        caller = self.caller
        text = (
            environment()
            .get_template(template)
            .render(
                path=self.request.url.path,
                caller=caller,
                can_edit=self.can_edit,
                forgery_token=csrf_token(self.request),
                frame=self._frame() if caller is not None and READER in caller.scopes else None,
                **context,
            )
        )
        return HTMLResponse(text, status)

    def _frame(self) -> dict[str, Any] | None:
        """Return what the frame says of the inventory; None where it cannot be read."""
        try:
            snapshot = self.snapshot
        except InventoryError:
            return None
        inventory = snapshot.checked.inventory
        return {
            "commit": snapshot.commit,
            "fleet": inventory.overlay.fleet if inventory is not None else "",
            "problems": len(snapshot.checked.diagnostics),
            "counts": {kind.path: len(snapshot.objects(kind.word)) for kind in kinds.kinds().values()},
        }

    def goto(self, path: str) -> Response:
        """Return a redirection that a browser follows with GET, as a whole page also where a script has asked."""
        return onward.redirection(self.request, path)


def endpoint(
    services: Services, made: Made, answer: Answer, scope: str
) -> Callable[[Request], Awaitable[Response]]:
    """Return a route's endpoint: scope first, then the form, then the answer; errors become pages."""

    async def serve(request: Request) -> Response:
        visit = Visit(request, services, made)
        try:
            require(request, scope)
            if request.method == "POST":
                visit.form = read_form(request.headers.get("content-type", ""), await request.body())
            return await run_in_threadpool(answer, visit)
        except Problem as problem:
            if visit.caller is None:
                raise  # a stranger, whom the door shows the form to log in
            return await run_in_threadpool(_refused, visit, problem)
        except InventoryError as error:
            return await run_in_threadpool(_failed, visit, error)

    return serve


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """Read a form as browsers encode it; of a name that comes twice the last counts. Problem 400 or 415."""
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Problem(415, "Not a form", "send application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=FORM_FIELDS, errors="strict"
        )
    except ValueError:
        raise Problem(400, "Not a form", "the form cannot be read") from None
    return dict(pairs)


def _refused(visit: Visit, problem: Problem) -> Response:
    answer = error_page(visit, problem.status, problem.title, problem.detail)
    answer.headers.update(problem.headers)
    return answer


def _failed(visit: Visit, error: InventoryError) -> Response:
    problem = problems.of_inventory(error)
    return error_page(visit, problem.status, problem.title, problem.detail, error.diagnostics)


def error_page(visit: Visit, status: int, title: str, detail: str, diagnostics: Any = ()) -> Response:
    """Return a page that says what went wrong."""
    return visit.page(
        "error.html", status, title=title, code=status, detail=detail, diagnostics=list(diagnostics)
    )
