"""Replay, readiness and suggest: what the commands say of the same flows, of any candidate, within bounds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import controlkit
from apikit import Api, store
from learnkit import deny, record
from tidegate_compiler.learn.flows import DAY
from tidegate_control.api import openapi
from tidegate_control.api.table import operations
from tidegate_control.intake.store import Batch
from tidegate_control.learn import asking
from tidegate_control.learn.asking import Bounds, BusyError, TooMuchError, Turn
from tidegate_control.learn.sources import Asked, SourceError
from tidegate_schema import jsonfile, validation

Command = Callable[..., tuple[int, str, str]]
NOW = int(time.time())
AT = "2026-11-30T12:00Z"
SPAN = f"from={time.strftime('%Y-%m-%d', time.gmtime(NOW - 20 * DAY))}"
EDIT = {"edits": [{"op": "delete", "kind": "groups", "name": "contractors", "cascade": True}]}
QUESTIONS = (
    ("GET", "/replay", None),
    ("POST", "/replay", EDIT),
    ("GET", "/readiness", None),
    ("GET", "/suggest", None),
)


def lines(api: Api) -> list[bytes]:
    """Return flows of the example's clients on three days, one of which no policy admits and one that was refused."""
    ids = {name: str(one.client_id) for name, one in api.inventory.snapshot().objects("client").items()}
    alice, bob, carol = ids["alice-laptop"], ids["bob-laptop"], ids["carol-laptop"]
    return [
        one
        for day in (9, 5, 2)
        for one in (
            record(alice, "10.20.0.80", 8080, at=NOW - day * DAY, gateway="fra1"),
            record(bob, "10.20.0.22", 22, at=NOW - day * DAY + 1, gateway="fra1"),
            record(bob, "10.20.5.3", 5432, at=NOW - day * DAY + 2, gateway="fra1"),
            deny(alice, "10.20.0.22", 22, at=NOW - day * DAY + 3, gateway="fra1"),
            deny(carol, "10.20.5.4", 22, at=NOW - day * DAY + 4, gateway="fra1"),
        )
    ]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API with flows of twenty days."""
    place = tmp_path_factory.mktemp("told")
    with store(place) as events:
        api = Api(controlkit.bare(place), events=events)
        rows = [json.loads(one) | {"event.sequence": number} for number, one in enumerate(lines(api))]
        text = b"".join(jsonfile.canonical(one).rstrip(b"\n") + b"\n" for one in rows)
        events.add([Batch("fra1", "0" * 16, range(len(rows)), text)])
        yield api


@pytest.fixture
def tree(told: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same inventory as files, and the same flows beside it; a command is run there."""
    for path, text in controlkit.example().items():
        (tmp_path / "inventory" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "inventory" / path).write_text(text)
    (tmp_path / "flows.ndjson").write_bytes(b"".join(lines(told)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(one: dict[str, Any]) -> dict[str, Any]:
    """Return a document without what was asked about, which has other names here and there."""
    return {key: value for key, value in one.items() if key not in ("inventory", "flows", "against")}


# --- the command's answer ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", ["", "client=bob-laptop", "gateway=fra1&client=alice-laptop", "gateway=nowhere"]
)
@pytest.mark.usefixtures("tree")
def test_replay_and_readiness_say_what_the_command_says(told: Api, tidegate: Command, more: str) -> None:
    options = [
        word for pair in more.split("&") if pair for word in (f"--{pair.split('=')[0]}", pair.split("=")[1])
    ]
    for path, flags, schema in (("/replay", [], "replay"), ("/readiness", ["--readiness"], "readiness")):
        words = ["--flows", "flows.ndjson", "inventory", "--json", "--at", AT, *flags, *options]
        _, out, err = tidegate("replay", *words)
        assert out, err
        answer = told("GET", f"{path}?{SPAN}&at={AT}&{more}".rstrip("&"), scope="reader")
        assert answer.status_code == 200, answer.text
        assert same(answer.json()) == same(json.loads(out))
        assert not validation.errors(schema, answer.json())
        assert answer.json()["inventory"] == told.inventory.head()


@pytest.mark.usefixtures("tree")
def test_suggest_says_what_the_command_says(told: Api, tidegate: Command) -> None:
    for query, options in (
        ("", ()),
        ("&with_refused=true&strictness=2", ("--with-refused", "--strictness", "2")),
    ):
        _, out, err = tidegate("suggest", "--flows", "flows.ndjson", "inventory", "--json", *options)
        assert out, err
        answer = told("GET", f"/suggest?{SPAN}{query}", scope="reader").json()
        assert not validation.errors("suggest", answer)
        assert answer["policies"]
        mine, theirs = same(answer), same(json.loads(out))
        mine.pop("at")
        theirs.pop("at")
        assert mine == theirs


def test_the_window_is_what_counts(told: Api) -> None:
    for query, flows in (("last=3d", 5), ("last=6d", 10), ("", 10), ("last=4w", 15)):
        answer = told("GET", f"/replay?{query}")
        assert answer.json()["counts"]["flows"] == flows, query


# --- candidates -------------------------------------------------------------------------------------


def test_a_proposal_is_replayed_and_nothing_is_written(told: Api) -> None:
    head = told.inventory.head()
    answer = told("POST", f"/replay?{SPAN}&against={head}&at={AT}", EDIT, scope="reader")
    assert answer.status_code == 200, answer.text
    (one,) = answer.json()["breaks"]
    assert [client["name"] for client in one["clients"]] == ["bob-laptop"]
    assert (one["ports"], one["flows"], one["reason"]) == (["tcp/22"], 3, "no-rule")
    assert answer.json()["passes"] == []
    assert not validation.errors("replay", answer.json())
    assert told.inventory.head() == head


def test_a_commit_is_replayed_against_another(api: Api) -> None:
    first = api.inventory.head()
    assert api("DELETE", "/groups/contractors?cascade=true", match="*").status_code == 200
    answer = api("GET", f"/replay?commit={first}&against={api.inventory.head()}").json()
    assert (answer["inventory"], answer["against"]) == (first, api.inventory.head())


def test_a_candidate_that_cannot_be_judged_by(told: Api, tmp_path: Path) -> None:
    broken = {"files": {"groups/people.yaml": "x: {members: [nobody]}\n"}}
    answer = told("POST", "/replay", broken)
    assert (answer.status_code, answer.json()["title"]) == (422, "The inventory would have errors")
    assert told("POST", "/replay", {"edits": [{"op": "drop"}]}).status_code == 422
    for path in ("/replay", "/readiness", "/suggest"):
        assert told("GET", f"{path}?commit={'0' * 40}").status_code == 404
    assert told("GET", f"/replay?against={'0' * 40}").status_code == 404
    wrong = controlkit.example() | {"groups/people.yaml": "x: {members: [nobody]}\n"}
    api = Api(controlkit.bare(tmp_path, wrong))
    for path in ("/replay", "/readiness", "/suggest"):
        answer = api("GET", path)
        assert (answer.status_code, answer.json()["title"]) == (409, "The inventory has errors")


# --- bounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("last=0d", "'last'"),
        ("last=7", "'last'"),
        ("last=93d", "at most 92 days"),
        ("last=99999w", "at most 92 days"),
        ("last=7d&from=2026-11-01", "either"),
        ("to=2026-11-01", "say from when"),
        ("from=2000-01-01", "at most 92 days"),
        ("from=2026-11-20&to=2026-11-10", "ends before it begins"),
        ("from=9999-12-31", "in the future"),
        ("from=2026-13-01", "'from'"),
        ("from=1960-01-01", "'from'"),
    ],
)
def test_a_window_without_meaning_or_without_bound(told: Api, query: str, why: str) -> None:
    for method, path, body in QUESTIONS:
        answer = told(method, f"{path}?{query}", body)
        assert (answer.status_code, why in answer.json()["detail"]) == (400, True), answer.text


@pytest.mark.parametrize(
    "query", ["at=soon", "at=2026-02-30", "strictness=0", "strictness=101", "strictness=-1"]
)
def test_a_parameter_without_meaning(told: Api, query: str) -> None:
    path = "/suggest" if query.startswith("strictness") else "/replay"
    answer = told("GET", f"{path}?{query}")
    assert (answer.status_code, answer.json()["parameter"]) == (400, query.split("=")[0])


def test_one_question_at_a_time(told: Api) -> None:
    with told.services.learning.taken():
        for method, path, body in QUESTIONS:
            answer = told(method, path, body, scope="reader")
            assert answer.status_code == 503, path
            assert answer.headers["retry-after"] == str(asking.AGAIN)
            assert answer.json()["type"].endswith("/busy")
    for method, path, body in QUESTIONS:
        assert told(method, path, body, scope="reader").status_code == 200  # what was refused holds nothing


def test_a_question_larger_than_its_bounds_is_refused(told: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for bounds, why in (
        (Bounds(60, 3), "more than 3 different flows"),
        (Bounds(-1, 1000), "takes longer than"),
    ):
        monkeypatch.setattr(asking, "WHOLE", bounds)
        monkeypatch.setattr(asking, "SUGGESTION", bounds)
        for method, path, body in QUESTIONS:
            answer = told(method, path, body)
            assert (answer.status_code, answer.json()["title"]) == (
                422,
                "More than the server answers at once",
            )
            assert why in answer.json()["detail"]


def test_more_changes_than_memory_is_meant_for_are_refused(
    told: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "CHANGES_MOST", 0)
    for method, body in (("GET", None), ("POST", EDIT)):
        answer = told(method, "/replay", body)
        assert (answer.status_code, answer.json()["type"].rsplit("/")[-1]) == (422, "too-much")
        assert "more than 0 different flows" in answer.json()["detail"]


def test_a_store_that_does_not_answer_is_told_of(told: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise asking.intake.StoreError("no answer")

    monkeypatch.setattr(told.services.events, "aggregated", broken)
    for method, path, body in QUESTIONS:
        answer = told(method, path, body)
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


def test_a_window_ends_now_at_the_latest() -> None:
    assert asking.window(Asked(begin=100, end=10**12), 200) == asking.Window(100, 201)
    with pytest.raises(SourceError, match="future"):
        asking.window(Asked(begin=300), 200)


# --- the description --------------------------------------------------------------------------------


def test_the_answers_are_described_by_the_schema_files() -> None:
    document = openapi.document(operations())
    for path, name, file in (
        ("/replay", "Replay", "replay"),
        ("/readiness", "Readiness", "readiness"),
        ("/suggest", "Suggestion", "suggest"),
    ):
        answer = document["paths"][path]["get"]["responses"]
        assert answer["200"]["content"]["application/json"]["schema"] == {
            "$ref": f"#/components/schemas/{name}"
        }
        assert "503" in answer
        component = document["components"]["schemas"][name]
        assert set(component["properties"]) == set(validation.schema(file)["properties"])
