"""Who is let in by a bearer token: nobody without one, nobody with a wrong one, and nobody past its scope."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate_control.access.attempts import PER_ADDRESS, SECONDS
from tidegate_control.access.caller import EDITOR, GATEWAY_INTAKE, PUBLISHER, READER
from unit.control.door.doorkit import DAY, Door, bearer

WRONG = "tgc_00000000_" + "A" * 43
READ, EDIT, PUBLISH, INTAKE = "/api/v1/reader", "/api/v1/editor", "/api/v1/publisher", "/v1/events"


def test_a_stranger_is_asked_who_he_is(door: Door) -> None:
    client = door.client()
    for path in (READ, EDIT, PUBLISH, INTAKE):
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["title"] == "Who are you?"


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [(READER, [READ]), (EDITOR, [READ, EDIT]), (PUBLISHER, [READ, PUBLISH]), (GATEWAY_INTAKE, [INTAKE])],
)
def test_a_scope_opens_what_it_names_and_nothing_else(door: Door, scope: str, allowed: list[str]) -> None:
    more = {"gateway": "gw1"} if scope == GATEWAY_INTAKE else {}
    token = door.token("alice", scope, **more)
    for path in (READ, EDIT, PUBLISH, INTAKE):
        answer = door.client().get(path, headers=bearer(token))
        assert answer.status_code == (200 if path in allowed else 403), path
        if path not in allowed:
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
            assert token not in answer.text


@pytest.mark.parametrize(
    "value",
    [
        *(f"Bearer {WRONG}", "Bearer", "Bearer ", "Bearer x", f"Basic {WRONG}", f"bearer:{WRONG}", WRONG, ""),
        *(f"Bearer {WRONG} {WRONG}", "Bearer " + "A" * 7000, "Bearer \u00e9"),
    ],
)
def test_a_wrong_authorization_is_refused_everywhere_and_not_repeated(door: Door, value: str) -> None:
    for path in (READ, INTAKE, "/static/app.css", "/nowhere"):
        answer = door.client().get(path, headers={"authorization": value.encode("latin-1")})
        assert answer.status_code == 401
        assert WRONG not in answer.text + str(answer.headers)


def test_two_authorizations_are_refused_even_if_one_is_right(door: Door) -> None:
    token = door.token()
    fields = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {WRONG}")]
    assert door.client().get(READ, headers=fields).status_code == 401


def test_the_scheme_s_letters_may_be_small(door: Door) -> None:
    assert door.client().get(READ, headers={"authorization": f"bearer {door.token()}"}).status_code == 200


def test_an_expired_and_a_revoked_token_are_refused(door: Door) -> None:
    expired, revoked = door.token("expired"), door.token("revoked")
    assert door.client().get(READ, headers=bearer(revoked)).status_code == 200
    door.access.tokens.revoke("revoked")
    assert door.client().get(READ, headers=bearer(revoked)).status_code == 401
    assert door.client().get(READ, headers=bearer(expired)).status_code == 200
    door.clock.now += 90 * DAY
    assert door.client().get(READ, headers=bearer(expired)).status_code == 401


def test_a_token_in_the_query_counts_for_nothing(door: Door) -> None:
    token = door.token()
    for name in ("token", "access_token", "authorization"):
        assert door.client().get(f"{READ}?{name}={token}").status_code == 401


def test_guessing_has_to_wait_and_locks_out_nobody_elsewhere(door: Door) -> None:
    token = door.token()
    guesser, other = door.client(address="192.0.2.1"), door.client(address="192.0.2.2")
    for n in range(PER_ADDRESS):
        assert guesser.get(READ, headers=bearer(f"{WRONG[:-2]}{n:02}")).status_code == 401
    answer = guesser.get(READ, headers=bearer(f"{WRONG[:-2]}99"))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == str(int(SECONDS))
    assert guesser.get(READ, headers=bearer(token)).status_code == 429  # or guessing on would still pay
    assert other.get(READ, headers=bearer(token)).status_code == 200
    assert other.get(READ, headers=bearer(WRONG)).status_code == 401
    door.clock.now += SECONDS
    assert guesser.get(READ, headers=bearer(token)).status_code == 200


def test_the_form_to_log_in_is_no_way_around_it(door: Door) -> None:
    client = door.client(address="192.0.2.1")
    fields = {"origin": "http://127.0.0.1:8080"}
    told = [
        client.post("/login", data={"token": f"{WRONG[:-2]}{n:02}"}, headers=fields).status_code
        for n in range(PER_ADDRESS + 1)
    ]
    assert told == [401] * PER_ADDRESS + [429]


def test_a_stuck_gateway_locks_out_nobody_at_its_address(door: Door) -> None:
    token, client = door.token(), door.client(address="192.0.2.1")
    for _ in range(3 * PER_ADDRESS):
        assert client.get(INTAKE, headers=bearer(WRONG)).status_code == 401
    assert client.get(READ, headers=bearer(token)).status_code == 200


@pytest.mark.parametrize(
    ("proxies", "peer", "told", "guessed_by"),
    [
        ((), "192.0.2.9", "198.51.100.7", "192.0.2.9"),  # nobody's word counts
        (("10.0.0.0/8",), "10.0.0.1", "198.51.100.7", "198.51.100.7"),
        (("10.0.0.0/8",), "10.0.0.1", "1.2.3.4, 198.51.100.7", "198.51.100.7"),  # the first one is made up
        (("10.0.0.0/8",), "10.0.0.1", "198.51.100.7, 10.0.0.2", "198.51.100.7"),
        (("10.0.0.0/8",), "10.0.0.1", "nonsense", "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", "", "10.0.0.1"),
        (("10.0.0.0/8",), "192.0.2.9", "198.51.100.7", "192.0.2.9"),  # that is no proxy
    ],
)
def test_an_address_is_a_trusted_proxy_s_word_or_the_connection_s(
    tmp_path: Path, proxies: tuple[str, ...], peer: str, told: str, guessed_by: str
) -> None:
    door = Door(tmp_path / "state", {"trusted_proxies": proxies})
    client = door.client(address=peer)
    for n in range(PER_ADDRESS):
        fields = {**bearer(f"{WRONG[:-2]}{n:02}"), "x-forwarded-for": told}
        assert client.get(READ, headers=fields).status_code == 401
    assert door.access.attempts.wait(guessed_by) > 0
    assert len(door.access.attempts._by_place) == 1
