"""docs/api.md: its examples are sent as they stand, one after the other, and its table is the API's own."""

from __future__ import annotations

import json
import re

import pytest

from apikit import BASE, Api
from docskit import ROOT
from tidegate_control.api.table import operations

PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")


def test_the_examples_get_the_answers(api: Api) -> None:
    fences = re.findall(r"```http\n(.*?)```", PAGE, re.DOTALL)
    assert len(fences) >= 8
    for fence in fences:
        sent, _, answered = fence.partition("HTTP/1.1 ")
        head, _, body = sent.strip().partition("\n\n")
        line, *headers = head.split("\n")
        method, path = line.split(" ")
        given = dict(header.split(": ", 1) for header in headers)
        if "If-Match" in given:
            given["If-Match"] = given["If-Match"].replace("…", api.inventory.head())
        answer = api(method, path, json.loads(body) if body else None, headers=given)
        status, *shown = answered.strip().split("\n")
        assert answer.status_code == int(status.split(" ")[0]), (line, answer.text)
        for name, value in (header.split(": ", 1) for header in shown):
            assert re.fullmatch(re.escape(value).replace("…", ".+"), answer.headers[name]), (line, name)


def test_the_table_has_every_operation() -> None:
    told = re.findall(r"^\| `([A-Z]+ /\S*)` \| (\S+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert told == [(f"{one.method} {one.path}", one.scope, one.summary) for one in operations()]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 428])
def test_the_table_has_every_status(status: int) -> None:
    assert re.search(rf"^\| [\d, ]*{status}[\d, ]* \|", PAGE, re.MULTILINE)
    assert BASE in PAGE
