"""Replay, readiness and suggestion as calls: the answers of the commands, on the server's own store and inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import controlkit
from apikit import Api
from compilerkit import inventory, key, policy
from learnkit import NOON, deny, id_of, record, right
from tidegate_control.api import traffic
from tidegate_control.intake.store import Batch, StoreError
from tidegate_schema import jsonfile

WEB = {"web": policy("client:alice", ["10.20.0.80/32"], ports=["tcp/443"])}
WINDOW = "from=2026-11-01&to=2026-12-31&at=2026-11-29"
LINES = [record(), record(port=22), record("bob", at=NOON + 86400), deny("bob", port=22)]


@pytest.fixture
def api(tmp_path: Path) -> Api:
    files = {name: data.decode() for name, data in inventory(policies=WEB).items()}
    made = Api(controlkit.bare(tmp_path, files))
    events = (json.loads(line) | {"event.sequence": number} for number, line in enumerate(LINES))
    text = b"".join(jsonfile.canonical(one).rstrip(b"\n") + b"\n" for one in events)
    made.events.add([Batch("gw", "0" * 16, range(len(LINES)), text)])
    return made


def told(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_replay_says_what_enforce_would_break(api: Api) -> None:
    answer = told(api("GET", f"/replay?{WINDOW}", scope="reader"))
    document = right("replay", answer["replay"])
    assert answer["commit"] == api.inventory.head()
    assert answer["entries"] == {"breaks": 2, "passes": 0}
    found = {(one["clients"][0]["name"], one["ports"][0]) for one in document["breaks"]}
    assert found == {("alice", "tcp/22"), ("bob", "tcp/443")}
    assert document["counts"]["flows"] == 4


def test_a_proposal_is_compared_with_what_is(api: Api) -> None:
    ssh = policy("client:bob", ["10.20.0.80/32"], ports=["tcp/22"]) | {"name": "ssh"}
    body = {
        "edits": [
            {"op": "create", "kind": "policies", "object": ssh},
            {"op": "delete", "kind": "policies", "name": "web"},
        ]
    }
    answer = told(api("POST", f"/replay?{WINDOW}", body, scope="reader"))
    document = right("replay", answer["replay"])
    assert [one["ports"] for one in document["breaks"]] == [["tcp/443"]]
    assert [one["policy"] for one in document["passes"]] == ["ssh"]
    assert document["inventory"] == "the proposal"
    assert api.commits() == 1


def test_against_a_commit_and_with_the_names_of_the_past(api: Api) -> None:
    first = api.inventory.head()
    fields = dict(api.inventory.snapshot().objects("client")["alice"].fields)
    api.inventory.update("client", "alice", fields | {"public_key": key("next")}, author=controlkit.ALICE)
    answer = told(api("GET", f"/replay?{WINDOW}&client=alice"))
    (one,) = answer["replay"]["breaks"]
    assert one["clients"] == [
        {"name": "alice", "client_id": id_of("next"), "was": [f"alice ({id_of('alice')})"]}
    ]
    assert told(api("GET", f"/replay?{WINDOW}&against={first}"))["replay"]["changes"] is False
    assert api("GET", f"/replay?{WINDOW}&against={'0' * 40}").status_code == 404


def test_readiness_and_suggestion(api: Api) -> None:
    (gateway,) = right("readiness", told(api("GET", f"/readiness?{WINDOW}"))["readiness"])["gateways"]
    assert (gateway["gateway"], gateway["days"], gateway["unexplained"]) == ("gw", 0, 3)
    window = "from=2026-11-01&to=2026-12-31"
    document = right("suggest", told(api("GET", f"/suggest?{window}"))["suggestion"])
    assert document["counts"]["admitted"] == 3
    more = told(api("GET", f"/suggest?{window}&with_refused=true"))["suggestion"]
    assert more["counts"]["admitted"] == 4


def test_what_is_wrong_is_told(api: Api) -> None:
    for query in (
        "last=7d&from=2026-11-01",
        "last=0d",
        "from=2026-13-01",
        "from=2026-11-02&to=2026-11-01",
        "at=2026-02-30",
    ):
        answer = api("GET", f"/replay?{query}")
        assert answer.status_code == 400, query
        assert answer.json()["title"] == "Bad parameter"


@pytest.mark.parametrize("scope", ["gateway-intake", ""])
def test_who_may_not_read_is_told_nothing(api: Api, scope: str) -> None:
    for path in ("/replay", "/readiness", "/suggest"):
        assert api("GET", path, scope=scope).status_code == (403 if scope else 401)


def test_a_store_that_does_not_answer_and_a_queue_that_is_full_are_503(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise StoreError("events: it does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(type(api.events._store), "aggregated", broken)
        answer = api("GET", f"/replay?{WINDOW}")
        assert (answer.status_code, answer.json()["detail"]) == (
            503,
            "the intake's store: events: it does not answer",
        )
    assert api("GET", f"/replay?{WINDOW}").status_code == 200  # the turn was given back
    with api.services.learning.taken():
        answer = api("GET", f"/replay?{WINDOW}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


def test_a_long_answer_is_cut_and_says_how_long_it_is(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "ENTRIES_MOST", 1)
    answer = told(api("GET", f"/replay?{WINDOW}"))
    assert (len(answer["replay"]["breaks"]), answer["entries"]["breaks"]) == (1, 2)


def test_more_than_memory_is_meant_to_hold_is_422(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate_control.learn.asking.CHANGES_MOST", 1)
    answer = api("GET", f"/replay?{WINDOW}")
    assert answer.status_code == 422
    assert "ask about fewer days" in answer.json()["detail"]
