"""The API: `/api/v1`, over the inventory service. docs/api.md.

table        every operation, with its scope       openapi, pages   the same as a document, and as a page
endpoint     request -> checks -> handler -> answer
bodies       strict JSON                           parameters, paths, preconditions   the rest of a request
kinds, shape what objects look like                lists, listing   pages of them
objects, proposal, plans, questions, bundles, publish (handover), history, meta       the handlers
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Mount, Router

from tidegate_control.api.endpoint import route
from tidegate_control.api.made import Made
from tidegate_control.api.operation import PREFIX
from tidegate_control.api.table import operations

if TYPE_CHECKING:
    from tidegate_control.app import Services


def routes(services: Services) -> Sequence[BaseRoute]:
    """Return the API's routes."""
    every = operations()
    made = Made(every)
    by_path = groupby(sorted(every, key=lambda one: one.path), key=lambda one: one.path)
    found = [route(services, made, list(group)) for _, group in by_path]
    # An address with a slash too many is another address: no redirect, which would lose a method and a body.
    return [Mount(PREFIX, Router(found, redirect_slashes=False))]
