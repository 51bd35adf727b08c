"""Every operation, with whatever its description allows and with what it forbids, against the server in this process.

schemathesis makes requests from the OpenAPI document and judges the answers by it: no status, media type, header or
member that the document does not have, nothing forbidden accepted, no token forgotten, and never 5xx.
TIDEGATE_FUZZ=long looks for longer, and at every border of every schema.
"""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, urlsplit

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection
from starlette.types import ASGIApp, Receive, Scope, Send

import controlkit
from apikit import BASE, Api
from tidegate_control.api import openapi
from tidegate_control.api.table import operations

IS_LONG = os.environ.get("TIDEGATE_FUZZ") == "long"
EXAMPLES = 500 if IS_LONG else 8
_REFUSED = ["400", "401", "403", "404", "405", "409", "412", "413", "414", "415", "422", "428"]
CONFIG = SchemathesisConfig.from_dict(
    {
        "checks": {
            # What is right by its description may still mean nothing (a cursor, a key, a name), or be too late.
            "positive_data_acceptance": {"expected-statuses": ["2xx", "304", *_REFUSED]},
            # A name that is none may stand where the answer is known beforehand: If-None-Match: *.
            "negative_data_rejection": {"expected-statuses": ["304", *_REFUSED]},
        },
    }
)


class Later:
    """The application that the schema is read for, before there is one."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


LATER = Later()
SCHEMA = schemathesis.openapi.from_dict(openapi.document(operations()), config=CONFIG)
SCHEMA.app = LATER
EVERY = {one.id: one for one in operations()}
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not IS_LONG,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
)


@pytest.fixture(scope="module", autouse=True)
def token(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Serve a repository; return a token that may do everything."""
    place = tmp_path_factory.mktemp("fleet")
    requests = place / "requests"
    requests.mkdir()
    api = Api(controlkit.bare(place), publish_directory=requests)
    LATER.app = api.app
    return api.token("everything", "editor", "publisher")


def call(case: schemathesis.Case, token: str) -> None:
    parameters = EVERY[case.operation.definition.raw["operationId"]].parameters
    # In a query everything is text, so that `true` where a list of texts belongs is a list of one: nothing forbidden.
    has_lists = any(one.schema["type"] == "array" for one in parameters)
    # An unknown parameter that is an empty list is not sent at all.
    known = {one.name for one in parameters}
    sent = {name for name, _ in parse_qsl(urlsplit(case.as_transport_kwargs()["url"]).query, True)}
    is_lost = not known.issuperset(case.query or ()) and known.issuperset(sent)
    case.call_and_validate(
        base_url=f"http://127.0.0.1:8080{BASE}",
        headers={"Authorization": f"Bearer {token}"},
        excluded_checks=[negative_data_rejection] if has_lists or is_lost else [],
    )


@pytest.mark.parametrize("name", EVERY)
def test_operation(name: str, token: str) -> None:
    operation = SCHEMA[EVERY[name].path][EVERY[name].method]
    modes = [schemathesis.GenerationMode.POSITIVE]
    if EVERY[name].parameters or EVERY[name].body or "{" in EVERY[name].path:
        modes.append(schemathesis.GenerationMode.NEGATIVE)

    @SETTINGS
    @hypothesis.given(strategies.one_of([operation.as_strategy(generation_mode=mode) for mode in modes]))
    def run(case: schemathesis.Case) -> None:
        call(case, token)

    run()


if IS_LONG:

    @SCHEMA.parametrize()
    @SETTINGS
    def test_borders(case: schemathesis.Case, token: str) -> None:
        call(case, token)
