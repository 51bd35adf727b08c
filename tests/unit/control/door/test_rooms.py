"""Every route of every room, as it is served: to a stranger, with too small a scope, and forged."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from starlette.routing import BaseRoute, Mount, Route

from tidegate_control import following, rooms, serve
from tidegate_control.access.caller import GATEWAY_INTAKE
from tidegate_control.app import Services, make_app
from tidegate_control.following import Following
from tidegate_control.git.remote import Remote
from tidegate_control.rooms import ROOMS
from tidegate_control.settings import Settings, load
from unit.control.door.doorkit import Client, bearer, ours
from unit.control.door.test_cli import repository

BASE = "http://127.0.0.1:8080"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
OPEN = {("GET", "/login"), ("POST", "/login"), ("POST", "/logout"), ("GET", "/static/x")}
"""What a stranger may ask for: the form, its answer, leaving, and files that are the same for everybody."""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    directory = tmp_path_factory.mktemp("rooms")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        repository(directory)
        path = directory / "control.yaml"
        path.write_text("repository: inventory.git\nstate: state\n")
        with serve.prepared(load(path)) as (_, found):
            yield found


@pytest.fixture
def client(services: Services) -> Client:
    return Client(make_app(services, ROOMS), BASE, "127.0.0.1")


@contextlib.contextmanager
def token(services: Services, *scopes: str, gateway: str | None = None) -> Iterator[str]:
    _, text = services.access.tokens.add("tester", scopes, seconds=600, gateway=gateway)
    try:
        yield text
    finally:
        services.access.tokens.revoke("tester")


def every(services: Services) -> list[tuple[str, str]]:
    """Return method and path of every route there is."""

    def below(prefix: str, routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
        for route in routes:
            if isinstance(route, Mount):
                yield from below(prefix + route.path, route.routes)
            else:
                assert isinstance(route, Route), "a room serves routes, and nothing that asks nobody"
                path = re.sub(r"\{[^}]*\}", "x", prefix + route.path)
                for method in METHODS:  # None: the route itself looks at the method
                    if route.methods is None or method in route.methods:
                        yield method, path

    return list(below("", make_app(services, ROOMS).routes))


def test_there_are_all_rooms(services: Services) -> None:
    paths = {path for _, path in every(services)}
    assert {"/login", "/", "/api/v1/clients", "/v1/events", "/static/x"} <= paths
    assert len(every(services)) > 60


def test_a_stranger_is_answered_nothing(services: Services, client: Client) -> None:
    for method, path in every(services):
        if (method, path) in OPEN:
            continue
        answer = client.request(method, path)
        is_sent_to_log_in = answer.status_code == 303 and answer.headers["location"].startswith("/login")
        # The API tells everybody, as its published document does, which methods there are.
        assert answer.status_code in (401, 405) or is_sent_to_log_in, (method, path, answer.status_code)
        assert "etag" not in answer.headers


def test_a_gateway_is_answered_at_the_intake_alone(services: Services, client: Client) -> None:
    with token(services, GATEWAY_INTAKE, gateway="fra1") as text:
        for method, path in every(services):
            if (method, path) not in OPEN:
                status = client.request(method, path, headers=bearer(text)).status_code
                assert (status in (403, 405)) != path.startswith("/v1/"), (method, path, status)


def test_the_intake_s_other_methods_are_no_pages(services: Services, client: Client) -> None:
    for scopes, gateway in ((GATEWAY_INTAKE, "fra1"), ("reader", None)):
        with token(services, scopes, gateway=gateway) as text:
            for path in ("/v1/events", "/v1/logs"):
                answer = client.get(path, headers=bearer(text))
                assert (answer.status_code, answer.headers["allow"]) == (405, "POST"), (path, scopes)
                assert answer.json()["detail"] == "not with this method; allowed: POST"


def test_a_reader_and_a_publisher_write_nothing(services: Services, client: Client) -> None:
    """Whatever they send and are told, the branch stays where it is."""
    before = services.inventory.head()
    with token(services, "reader", "publisher") as text:
        for method, path in every(services):
            status = client.request(method, path, headers=bearer(text)).status_code
            if method in ("PUT", "PATCH", "DELETE") or path.endswith(("/edit", "/delete", "/revert")):
                assert status in (403, 405), (method, path, status)
    assert services.inventory.head() == before


def test_through_a_cookie_nothing_is_changed_without_the_form_s_token(
    services: Services, client: Client
) -> None:
    with token(services, "editor", "publisher") as text:
        assert client.post("/login", data={"token": text}, headers=ours(BASE)).status_code == 303
        for method, path in every(services):
            if method == "GET" or path == "/login" or path.startswith("/v1/"):
                continue
            for fields in (ours(BASE), {"origin": "https://evil.example"}, {}):
                status = client.request(method, path, headers=fields).status_code
                assert status == 403, (method, path, status)
        assert client.get("/").status_code == 200  # and nobody was logged out


def test_every_answer_has_the_fields(services: Services, client: Client) -> None:
    with token(services, "editor") as text:
        for method, path in every(services):
            if method == "GET":
                answer = client.get(path, headers={**bearer(text), "accept": "text/html"})
                assert answer.status_code < 500, (path, answer.text)
                assert "default-src 'none'" in answer.headers["content-security-policy"]
                assert answer.headers["cache-control"] == "no-store" or path.startswith("/static/")


@pytest.mark.parametrize("write", ["branch", "review"])
def test_the_settings_say_where_a_write_goes(services: Services, write: str) -> None:
    settings = dataclasses.replace(services.settings, remote="origin", write=write)
    with contextlib.ExitStack() as undo:
        repository = rooms.open_inventory(settings, undo)._repository
    assert repository.remote is not None
    assert (repository.remote.name, repository.review) == ("origin", write == "review")


def test_what_others_push_to_the_remote_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_EVERY_SECONDS", 0.02)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    repository(tmp_path)
    git = functools.partial(subprocess.run, check=True, timeout=30, capture_output=True, text=True)
    git(["git", "clone", "-q", "--bare", "inventory.git", "own.git"], cwd=tmp_path)
    settings = Settings(repository=tmp_path / "own.git", remote="origin", state=tmp_path)
    with contextlib.ExitStack() as undo:
        inventory = rooms.open_inventory(settings, undo)
        who = ["-c", "user.name=An Admin", "-c", "user.email=admin@example.net"]
        git(["git", *who, "commit", "-q", "--allow-empty", "-m", "Elsewhere"], cwd=tmp_path / "work")
        git(["git", "push", "-q", "../inventory.git", "main"], cwd=tmp_path / "work")
        new = git(["git", "rev-parse", "main"], cwd=tmp_path / "work").stdout.strip()
        deadline = time.monotonic() + 60
        while inventory.head() != new and time.monotonic() < deadline:
            time.sleep(0.02)
        assert inventory.head() == new


def test_a_remote_that_is_gone_is_told_once_and_keeps_nobody_from_reading(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    chore = Following(rooms.open_inventory(dataclasses.replace(services.settings), contextlib.ExitStack()))
    chore._inventory._repository.remote = Remote(services.settings.repository, "/nowhere")
    for _ in range(3):
        chore.turn()
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "does not follow its remote" in line
    assert chore._inventory.head() == services.inventory.head()


def test_the_state_is_its_user_s_alone(services: Services) -> None:
    state: Path = services.settings.state
    assert state.stat().st_mode & 0o777 == 0o700
