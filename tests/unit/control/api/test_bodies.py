"""A body is strictly JSON, of the right type, of bounded size and depth; each refusal by its status."""

from __future__ import annotations

from typing import Any

import pytest

from apikit import Api
from tidegate_control.api import bodies

NEW = '{"name": "new", "addresses": ["10.20.9.0/24"]}'


def post(api: Api, raw: bytes, headers: dict[str, str] | None = None) -> Any:
    return api("POST", "/resources?dry_run=true", raw=raw, headers=headers)


def test_what_is_right_is_taken(reading: Api) -> None:
    assert post(reading, NEW.encode()).status_code == 200
    assert post(reading, NEW.encode(), {"Content-Type": "Application/JSON; charset=UTF-8"}).status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff{}",
        NEW.encode("utf-16"),
        b"\xef\xbb\xbf" + NEW.encode(),
        b'{"name": "a", "name": "b", "addresses": ["10.20.9.0/24"]}',
        b'{"name": NaN}',
        b'{"name": -Infinity}',
        b'{"name": 1e999}',
        b'{"name": 90071992547409930}',
        b'{"name": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"[" * 40 + b"]" * 40,
        b'{"name": "\\ud800"}',
        b'{"\\udfff": 1}',
        NEW.encode() + b"{}",
    ],
    ids=lambda raw: ascii(raw[:24]),
)
def test_what_two_readers_may_read_differently_is_refused(reading: Api, raw: bytes) -> None:
    answer = post(reading, raw)
    assert answer.status_code == 400
    assert answer.json()["title"] == "Not JSON"


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json; charset=latin-1",
        "application/json, text/plain",
        "application/yaml",
        "",
    ],
)
def test_another_type_is_refused(reading: Api, media_type: str) -> None:
    answer = post(reading, NEW.encode(), {"Content-Type": media_type})
    assert answer.status_code == 415
    assert answer.headers["accept"] == "application/json"


def test_a_merge_patch_has_a_type_of_its_own(reading: Api) -> None:
    path = "/resources/web?dry_run=true"
    assert reading("PATCH", path, {}).status_code == 200
    assert reading("PATCH", path, {}, headers={"Content-Type": "application/json"}).status_code == 415


def test_a_packed_body_is_refused(reading: Api) -> None:
    assert post(reading, NEW.encode(), {"Content-Encoding": "gzip"}).status_code == 415


def test_a_large_body_is_refused_by_the_door_and_again_by_the_api(reading: Api, api: Api) -> None:
    assert post(reading, b'"' + b"a" * (1 << 20) + b'"').status_code == 413
    wide = Api(
        api.repository.parent / "fleet.git", state=api.repository.parent, body_limit=bodies.MOST_BYTES * 2
    )
    assert post(wide, b'"' + b"a" * bodies.MOST_BYTES + b'"').status_code == 413


def test_a_body_that_nobody_would_read_is_refused(reading: Api) -> None:
    assert reading("GET", "/clients", raw=b"{}").status_code == 400
    assert reading("DELETE", "/clients/bob-laptop?dry_run=true", raw=b"{}").status_code == 400
