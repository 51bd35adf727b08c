"""Questions that compute much: few at once, of one token and of all, and the same one only once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import controlkit
from apikit import Api
from tidegate_control.api import bundles, plans, questions
from tidegate_control.api.spool import Spool
from tidegate_control.costly import Costly
from tidegate_control.problems import Problem
from tidegate_control.ui.pages import access as access_page

SECONDS = 30


@contextmanager
def held(costly: Costly, askers: list[str]) -> Iterator[None]:
    """Let each of them have a question of its own answered until the end of the block."""
    begun, go = threading.Semaphore(0), threading.Event()

    def compute() -> bytes:
        begun.release()
        assert go.wait(SECONDS)
        return b"held"

    with ThreadPoolExecutor(len(askers)) as threads:
        asked = [
            threads.submit(costly.answer, one, (one, number), compute, len)
            for number, one in enumerate(askers)
        ]
        try:
            for _ in askers:
                assert begun.acquire(timeout=SECONDS)
            yield
        finally:
            go.set()
        assert [one.result(SECONDS) for one in asked] == [b"held"] * len(askers)


def test_a_token_has_so_many_at_once_and_others_go_on() -> None:
    costly = Costly(each=2, every=9)
    with held(costly, ["alice", "alice"]):
        with pytest.raises(Problem) as refused:
            costly.answer("alice", "third", lambda: b"", len)
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "2")
        assert costly.answer("bob", "third", lambda: b"his", len) == b"his"
    assert costly.answer("alice", "fourth", lambda: b"hers", len) == b"hers"


def test_all_together_have_so_many_at_once() -> None:
    costly = Costly(each=2, every=3)
    with held(costly, ["alice", "bob", "carol"]):
        with pytest.raises(Problem) as refused:
            costly.answer("dave", "another", lambda: b"", len)
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "2")
    assert costly.answer("dave", "another", lambda: b"his", len) == b"his"


def test_what_is_being_computed_is_waited_for_and_not_computed_again() -> None:
    costly, askers, computed, go = Costly(), ["alice", "bob", "carol"], [], threading.Event()

    def compute() -> bytes:
        computed.append(1)
        assert go.wait(SECONDS)
        return b"told"

    with ThreadPoolExecutor(len(askers)) as threads:
        asked = [threads.submit(costly.answer, one, "the same", compute, len) for one in askers]
        until = time.monotonic() + SECONDS
        while costly._asking.total() < len(askers) and time.monotonic() < until:
            time.sleep(0.001)
        go.set()
        assert [one.result(SECONDS) for one in asked] == [b"told"] * len(askers)
    assert len(computed) == 1


def test_what_is_remembered_takes_no_place_and_no_time() -> None:
    costly = Costly(each=1, every=1)
    costly.answer("alice", "known", lambda: b"told", len)
    with held(costly, ["alice"]):
        assert costly.answer("alice", "known", fail, len) == b"told"


def test_what_fails_is_not_remembered_and_gives_its_place_back() -> None:
    costly = Costly(each=1, every=1)
    for _ in range(2):
        with pytest.raises(AssertionError):
            costly.answer("alice", "q", fail, len)
    assert costly.answer("alice", "q", lambda: b"told", len) == b"told"


def test_memory_has_its_bound_and_the_oldest_goes() -> None:
    costly = Costly(memory=10_000)
    for name in ("a", "b", "a", "c"):
        costly.answer("alice", name, lambda: bytes(3000), len)
    assert costly.answer("alice", "a", fail, len) == bytes(3000)
    assert costly.answer("alice", "b", lambda: b"anew", len) == b"anew"
    costly.answer("alice", "huge", lambda: bytes(20_000), len)
    assert costly.answer("alice", "b", fail, len) == b"anew", "what is too large puts nothing else out"
    assert costly.answer("alice", "huge", lambda: b"anew", len) == b"anew"
    costly.answer("alice", "once", lambda: b"told", lambda _: None)
    assert costly.answer("alice", "once", lambda: b"anew", len) == b"anew"


def fail() -> bytes:
    raise AssertionError("it is computed")


COSTLY = [
    ("GET", "/access", questions, "survey"),
    ("GET", "/access?at=2030-01-01", questions, "survey"),
    ("GET", "/explain?client=alice-laptop&destination=10.20.0.80&port=tcp/8080&at=2030-01-01", questions, "judge"),
    ("GET", "/validate?at=2030-01-01", questions, "_checked_at"),
    ("GET", "/test-run?at=2030-01-01", questions.accesstests, "run"),
    ("GET", "/plan?from={head}", plans, "plan"),
    ("POST", "/plan", plans, "plan"),
    ("POST", "/validate", questions.proposal, "propose"),
    ("GET", "/compile.tar", bundles, "render"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "module", "name"), COSTLY, ids=[one[1][:9] for one in COSTLY])
def test_the_same_question_is_computed_once_for_a_revision(
    api: Api, monkeypatch: pytest.MonkeyPatch, method: str, path: str, module: Any, name: str
) -> None:
    calls = count(monkeypatch, module, name)
    body = {"edits": [{"op": "delete", "kind": "clients", "name": "bob-laptop", "cascade": True}]}
    asked = (method, path.format(head=api.inventory.head()), body if method == "POST" else None)
    first = api(*asked, scope="reader")
    assert first.status_code == 200
    again = api(*asked, scope="editor")
    assert (again.content, again.headers) == (first.content, first.headers)
    assert len(calls) == 1
    assert api("DELETE", "/clients/ci-runner?cascade=true", match="*").status_code == 200
    after = api(*asked, scope="reader")
    assert after.status_code == 200
    assert len(calls) == 2


def test_another_question_is_another_one(api: Api) -> None:
    every, one = api("GET", "/access"), api("GET", "/access?client=alice-laptop")
    assert every.content != one.content


def test_a_question_about_now_is_not_answered_from_then(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count(monkeypatch, questions.accesstests, "run")
    for second in (1_900_000_000, 1_900_000_001):
        monkeypatch.setattr("time.time", lambda now=second: now)
        assert api("GET", "/test-run").status_code == 200
    assert len(calls) == 2


def test_an_answer_about_a_revision_that_came_meanwhile_is_not_kept(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = questions.survey

    def late(*given: Any) -> Any:
        monkeypatch.setattr(questions, "survey", survey)
        api.inventory.delete("client", "ci-runner", author=controlkit.ALICE, cascade=True)
        return survey(*given)

    monkeypatch.setattr(questions, "survey", late)
    assert api("GET", "/access").status_code == 200
    assert not api.services.costly._known


def test_an_answer_about_a_revision_that_came_and_went_is_not_kept(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = api("GET", "/access").content
    api.services.costly._known.clear()
    head, snapshot = api.inventory.head(), api.inventory.snapshot

    def meanwhile(*given: Any) -> Any:
        monkeypatch.setattr(api.inventory, "snapshot", snapshot)
        api.inventory.delete("client", "ci-runner", author=controlkit.ALICE, cascade=True)
        found = snapshot(*given)
        controlkit.git(api.repository, "update-ref", "refs/heads/main", head)
        return found

    monkeypatch.setattr(api.inventory, "snapshot", meanwhile)
    assert api("GET", "/access").content != before
    assert api("GET", "/access").content == before


@pytest.mark.parametrize("path", sorted({one[1].partition("?")[0] for one in COSTLY if one[0] == "GET"}))
def test_one_too_many_is_told_to_come_again(api: Api, path: str) -> None:
    asked = {
        "/explain": "?client=alice-laptop&destination=10.20.0.80&port=tcp/8080",
        "/plan": f"?from={api.inventory.head()}",
    }.get(path, "")
    with held(api.services.costly, ["reader", "reader"]):
        refused = api("GET", path + asked, scope="reader")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert api("GET", path + asked, scope="editor").status_code == 200
    assert api("GET", path + asked, scope="reader").status_code == 200


def test_the_page_of_access_has_the_same_bounds(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count(monkeypatch, access_page, "survey")
    with held(api.services.costly, ["reader", "reader"]):
        refused = api.page("/access", scope="reader")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    first = api.page("/access", scope="reader")
    assert "alice-laptop" in first.text
    api.page("/access", scope="reader")
    assert len(calls) == 1


def test_an_archive_that_finds_no_room_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="cannot be written into the state directory: No such file") as refused:
        Spool(tmp_path / "absent", [b"x"])
    assert (refused.value.status, "Retry-After" in refused.value.headers) == (503, True)
    assert b"".join(Spool(tmp_path, [b"x" * 300_000, b"y"])) == b"x" * 300_000 + b"y"
    assert not list(tmp_path.iterdir()), "it has no name that stays behind"


def count(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[str]:
    """Return a list that grows with every call of a function."""
    calls: list[str] = []
    real: Callable[..., Any] = getattr(module, name)

    def counted(*given: Any, **more: Any) -> Any:
        calls.append(name)
        return real(*given, **more)

    monkeypatch.setattr(module, name, counted)
    return calls


DRY_RUNS = [
    ("POST", "/groups", {"name": "more", "members": ["alice-laptop"]}),
    ("DELETE", "/clients/ci-runner?cascade=true", None),
    ("POST", "/history/{head}/revert", None),
]


@pytest.mark.parametrize(("method", "path", "body"), DRY_RUNS, ids=[one[0] + one[1][:8] for one in DRY_RUNS])
def test_a_dry_run_takes_a_place_and_a_write_does_not(api: Api, method: str, path: str, body: Any) -> None:
    assert api("POST", "/groups", {"name": "first", "members": ["alice-laptop"]}).status_code == 201
    path = path.format(head=api.inventory.head())
    dry = path + ("&" if "?" in path else "?") + "dry_run=true"
    with held(api.services.costly, ["editor", "editor"]):
        refused = api(method, dry, body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert api(method, path, body, match="*").status_code in (200, 201)
    assert not api.services.costly._asking


def test_a_check_of_a_form_and_a_plan_take_a_place(api: Api) -> None:
    form = {"name": "more", "members": "alice-laptop"}
    pages = [
        ("/new/groups", {**form, "step": "check"}),
        ("/new/groups", {**form, "step": "plan"}),
        ("/groups/engineers/edit", {"members": "alice-laptop", "step": "check"}),
        ("/clients/ci-runner/delete", {"step": "plan"}),
    ]
    with held(api.services.costly, ["editor", "editor"]):
        for path, sent in pages:
            refused = api.page(path, sent)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "2"), path
    for path, sent in pages:
        assert api.page(path, sent).status_code in (200, 409), path
    assert not api.services.costly._asking
    assert len(api.services.costly._known) == 2, "the two that were held, and nothing else"
