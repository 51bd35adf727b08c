"""Bounds of questions about recorded flows: one at a time, of so many days, rows and seconds, and no more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

import controlkit
from apikit import Api
from learnkit import record
from tidegate_compiler.learn.flows import DAY
from tidegate_control.intake.store import Batch
from tidegate_control.learn import asking
from tidegate_control.learn.asking import Bounds, BusyError, TooMuchError, Turn
from tidegate_control.learn.sources import Asked, SourceError
from tidegate_schema import jsonfile

NOW = int(time.time())
EDIT = {"edits": [{"op": "delete", "kind": "groups", "name": "contractors", "cascade": True}]}
QUESTIONS = (
    ("GET", "/replay", None),
    ("POST", "/replay", EDIT),
    ("GET", "/readiness", None),
    ("GET", "/suggest", None),
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Api:
    """The API with five flows of one client, the latest of them refused by a deletion of its group."""
    made = Api(controlkit.bare(tmp_path_factory.mktemp("asked")))
    bob = str(made.inventory.snapshot().objects("client")["bob-laptop"].client_id)
    rows = [
        json.loads(record(bob, "10.20.0.22", port, at=NOW - DAY, gateway="fra1")) | {"event.sequence": number}
        for number, port in enumerate((22, 80, 443, 5432, 8080))
    ]
    text = b"".join(jsonfile.canonical(one).rstrip(b"\n") + b"\n" for one in rows)
    made.events.add([Batch("fra1", "0" * 16, range(len(rows)), text)])
    return made


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("last=0d", "write a span of time"),
        ("last=7", "'last'"),
        ("last=93d", "at most 92 days"),
        ("last=99999w", "at most 92 days"),
        ("last=7d&from=2026-11-01", "either"),
        ("to=2026-11-01", "say from when"),
        ("from=2000-01-01", "at most 92 days"),
        ("from=2026-11-20&to=2026-11-10", "ends before it begins"),
        ("from=9999-12-31", "in the future"),
        ("from=9999-12-30&to=9999-12-31", "later than any event"),
        ("from=2026-13-01", "'from'"),
        ("from=1960-01-01", "'from'"),
    ],
)
def test_a_window_without_meaning_or_without_bound(api: Api, query: str, why: str) -> None:
    for method, path, body in QUESTIONS:
        answer = api(method, f"{path}?{query}", body)
        assert (answer.status_code, why in answer.json()["detail"]) == (400, True), answer.text


@pytest.mark.parametrize(
    "query", ["at=soon", "at=2026-02-30", "strictness=0", "strictness=101", "strictness=-1"]
)
def test_a_parameter_without_meaning(api: Api, query: str) -> None:
    path = "/suggest" if query.startswith("strictness") else "/replay"
    answer = api("GET", f"{path}?{query}")
    assert (answer.status_code, answer.json()["parameter"]) == (400, query.split("=")[0])


def test_one_question_at_a_time(api: Api) -> None:
    with api.services.learning.taken():
        for method, path, body in QUESTIONS:
            answer = api(method, path, body, scope="reader")
            assert answer.status_code == 503, path
            assert answer.headers["retry-after"] == str(asking.AGAIN)
            assert answer.json()["title"] == "Busy"
    for method, path, body in QUESTIONS:
        assert api(method, path, body, scope="reader").status_code == 200  # what was refused holds nothing


def test_a_question_larger_than_its_bounds_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for bounds, why in (
        (Bounds(60, 3), "more than 3 different flows"),
        (Bounds(-1, 1000), "takes longer than"),
    ):
        monkeypatch.setattr(asking, "WHOLE", bounds)
        monkeypatch.setattr(asking, "SUGGESTION", bounds)
        for method, path, body in QUESTIONS:
            answer = api(method, path, body)
            assert (answer.status_code, answer.json()["title"]) == (
                422,
                "Too much at once",
            )
            assert why in answer.json()["detail"]


def test_more_changes_than_memory_is_meant_for_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "CHANGES_MOST", 0)
    for method, body in (("GET", None), ("POST", EDIT)):
        answer = api(method, "/replay", body)
        assert (answer.status_code, answer.json()["type"].rsplit("/")[-1]) == (422, "too-many")
        assert "more than 0 different flows" in answer.json()["detail"]


def test_a_store_that_does_not_answer_is_told_of(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise asking.intake.StoreError("no answer")

    monkeypatch.setattr(api.services.events, "aggregated", broken)
    for method, path, body in QUESTIONS:
        answer = api(method, path, body)
        assert (answer.status_code, answer.json()["detail"]) == (503, "the intake's store: no answer")
        assert "retry-after" in answer.headers


def test_the_turn_is_given_back_whatever_happens() -> None:
    turn = Turn()

    def fail() -> None:
        with turn.taken():
            with pytest.raises(BusyError), turn.taken():
                pass
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()


def test_a_long_question_without_a_row_ends_too() -> None:
    """Each part of the window is a question to the store, so time is looked at even where nothing is recorded."""
    moments = iter(range(100))

    class Empty:
        def aggregated(self, _: Any) -> Iterator[Any]:
            return iter(())

    metered = asking.Metered(Empty(), Bounds(3, 10), 3, lambda: next(moments))
    window = asking.intake.Window(0, 1)
    for _ in range(4):
        assert list(metered.aggregated(window)) == []
    with pytest.raises(TooMuchError, match="longer than 3 s"):
        list(metered.aggregated(window))


def test_a_window_is_one_that_a_store_can_count() -> None:
    assert asking.window(Asked(begin=100), 200) == asking.Window(100, 201)
    with pytest.raises(SourceError, match="later than any event"):
        asking.window(Asked(begin=10**11, end=10**11 + 1), 200)
    with pytest.raises(SourceError, match="future"):
        asking.window(Asked(begin=300), 200)
