"""Every operation, with whatever its description allows and with what it forbids, against the server in this process.

schemathesis makes requests from the OpenAPI document and judges the answers by it: no status, media type, header or
member that the document does not have, nothing forbidden accepted, no token forgotten, no method but those there are,
and never 5xx. TIDEGATE_FUZZ=long looks for longer.
"""

from __future__ import annotations

import os

import hypothesis
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig

import controlkit
from apikit import BASE, Api
from tidegate_control.api import openapi
from tidegate_control.api.table import operations

IS_LONG = os.environ.get("TIDEGATE_FUZZ") == "long"
EXAMPLES = 1000 if IS_LONG else 8
# What is right by its description may still mean nothing (a cursor, a key, a name), or meet another revision.
_MEANT_NOTHING = ["400", "412", "422", "428"]
CONFIG = SchemathesisConfig.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {
                "expected-statuses": ["2xx", "304", "401", "403", "404", "409", *_MEANT_NOTHING]
            },
            "negative_data_rejection": {
                "expected-statuses": [
                    "304",
                    "400",
                    "401",
                    "403",
                    "404",
                    "405",
                    "409",
                    "412",
                    "413",
                    "415",
                    "422",
                    "428",
                ]
            },
        },
    }
)
SCHEMA = schemathesis.openapi.from_dict(openapi.document(operations()), config=CONFIG)


@pytest.fixture(scope="module", autouse=True)
def token(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Serve a repository; return a token that may do everything."""
    place = tmp_path_factory.mktemp("fleet")
    requests = place / "requests"
    requests.mkdir()
    api = Api(controlkit.bare(place), publish_directory=requests)
    SCHEMA.app = api.app
    return api.token("everything", "editor", "publisher")


@SCHEMA.parametrize()
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not IS_LONG,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_operation(case: schemathesis.Case, token: str) -> None:
    case.call_and_validate(
        base_url=f"http://127.0.0.1:8080{BASE}", headers={"Authorization": f"Bearer {token}"}
    )
