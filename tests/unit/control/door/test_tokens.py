"""Tokens: made with 256 random bits, kept as hashes, ended by time or by hand, and never shown again."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from tidegate_control.access import tokens as module
from tidegate_control.access.caller import EDITOR, GATEWAY_INTAKE, PUBLISHER, READER, closure
from tidegate_control.access.privatefiles import StateError
from tidegate_control.access.tokens import MAX_SECONDS, PATTERN, TokenError, Tokens
from unit.control.door.doorkit import DAY, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def tokens(state: Path, clock: Clock) -> Tokens:
    return Tokens(state, clock)


def add(tokens: Tokens, name: str = "alice", *scopes: str, **more: Any) -> str:
    return tokens.add(name, scopes or (READER,), **{"seconds": 90 * DAY, **more})[1]


def test_a_token_is_found_by_its_text_and_by_nothing_else(tokens: Tokens) -> None:
    text = add(tokens)
    assert PATTERN.fullmatch(text)
    found = tokens.find(text)
    assert found is not None
    assert (found.name, found.email, found.scopes) == ("alice", "alice@tidegate.invalid", (READER,))
    changed = text[:-1] + ("A" if text[-1] != "A" else "B")
    for wrong in (
        "",
        changed,
        text + "\n",
        f" {text}",
        text[:-1],
        text.upper(),
        "tgc_",
        found.id,
        found.sha256,
        "é",
    ):
        assert tokens.find(wrong) is None, wrong


def test_the_id_of_one_does_not_go_with_the_secret_of_another(tokens: Tokens) -> None:
    one, other = add(tokens, "one"), add(tokens, "other")
    assert tokens.find(one[:13] + other[13:]) is None


def test_only_the_hash_is_kept_in_a_file_of_its_user(tokens: Tokens, state: Path) -> None:
    text = add(tokens)
    file = state / "tokens.json"
    assert text[13:] not in file.read_text()
    assert hashlib.sha256(text.encode()).hexdigest() in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in state.iterdir()) == ["tokens.json", "tokens.lock"]


def test_two_tokens_share_nothing(tokens: Tokens) -> None:
    texts = {add(tokens, f"t{n}")[13:] for n in range(50)}
    assert len(texts) == 50


def test_a_token_ends_at_its_second(tokens: Tokens, clock: Clock) -> None:
    text = add(tokens, seconds=100)
    clock.now += 99
    assert tokens.find(text) is not None
    clock.now += 1
    assert tokens.find(text) is None
    assert [one.state(clock.now) for one in tokens.all()] == ["expired"]


def test_a_clock_that_was_set_back_revives_none_from_the_future(tokens: Tokens, clock: Clock) -> None:
    text = add(tokens)
    clock.now -= DAY
    assert tokens.find(text) is None


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_token_that_is_revoked_elsewhere_ends_at_once(
    tokens: Tokens, state: Path, clock: Clock, by: str
) -> None:
    text = add(tokens)
    found = tokens.find(text)
    assert found is not None
    Tokens(state, clock).revoke(getattr(found, by))
    assert tokens.find(text) is None
    assert tokens.live(found.id) is None
    with pytest.raises(TokenError, match="no live token"):
        tokens.revoke("alice")


def test_a_name_is_free_again_when_its_token_has_ended(tokens: Tokens) -> None:
    add(tokens)
    with pytest.raises(TokenError, match="there is a token alice"):
        add(tokens)
    tokens.revoke("alice")
    assert tokens.find(add(tokens)) is not None
    assert len(tokens.all()) == 2


def test_what_has_long_ended_is_forgotten(tokens: Tokens, clock: Clock) -> None:
    add(tokens, "old", seconds=10)
    clock.now += 91 * DAY
    add(tokens, "new")
    assert [one.name for one in tokens.all()] == ["new"]


@pytest.mark.parametrize(
    ("name", "scopes", "more", "said"),
    [
        ("a b", [READER], {}, "a token's name is"),
        ("alice\n", [READER], {}, "a token's name is"),
        ("", [READER], {}, "a token's name is"),
        ("alice", [], {}, "scopes are"),
        ("alice", ["root"], {}, "scopes are"),
        ("gw1", [GATEWAY_INTAKE], {}, "needs the gateway's name"),
        ("gw1", [GATEWAY_INTAKE], {"gateway": "../x"}, "needs the gateway's name"),
        ("gw1", [GATEWAY_INTAKE, READER], {"gateway": "gw1"}, "stands alone"),
        ("alice", [READER], {"gateway": "gw1"}, "only gateway-intake"),
        ("alice", [READER], {"seconds": 0}, "ends within"),
        ("alice", [READER], {"seconds": MAX_SECONDS + 1}, "ends within"),
        ("alice", [READER], {"email": "a@b\nx: y"}, "not an email address"),
        ("alice", [READER], {"email": "a <a@b>"}, "not an email address"),
        ("alice", [READER], {"email": "alice"}, "not an email address"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    tokens: Tokens, name: str, scopes: list[str], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(TokenError, match=said) as caught:
        tokens.add(name, scopes, **{"seconds": DAY, **more})
    assert "\n" not in str(caught.value)
    assert tokens.all() == []


def test_scopes_imply_what_they_should_and_no_more() -> None:
    assert closure([EDITOR]) == {EDITOR, READER}
    assert closure([PUBLISHER]) == {PUBLISHER, READER}
    assert closure([READER]) == {READER}
    assert closure([GATEWAY_INTAKE]) == {GATEWAY_INTAKE}


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", "null", '{"format": 2, "tokens": []}', '{"format": 1, "tokens": {}}', "\x00"),
        '{"format": 1, "tokens": [{"id": "00000000"}]}',
        '{"format": 1, "tokens": [7]}',
        '{"format": 1, "format": 1, "tokens": []}',
    ],
)
def test_a_file_that_is_damaged_lets_nobody_in_and_is_not_overwritten(
    tokens: Tokens, state: Path, content: str
) -> None:
    text = add(tokens)
    (state / "tokens.json").write_text(content)
    assert tokens.find(text) is None
    with pytest.raises(StateError, match="not a list of tokens"):
        add(tokens, "bob")
    assert (state / "tokens.json").read_text() == content


def test_a_scope_that_somebody_wrote_into_the_file_counts_for_nothing(tokens: Tokens, state: Path) -> None:
    text = add(tokens)
    document = json.loads((state / "tokens.json").read_text())
    document["tokens"][0]["scopes"] = ["root"]
    (state / "tokens.json").write_text(json.dumps(document))
    assert tokens.find(text) is None


def test_a_file_that_others_may_read_lets_nobody_in(tokens: Tokens, state: Path) -> None:
    text = add(tokens)
    data = (state / "tokens.json").read_bytes()
    (state / "tokens.json").write_bytes(data + b"\n")
    (state / "tokens.json").chmod(0o640)
    assert tokens.find(text) is None
    with pytest.raises(StateError, match="chmod 600"):
        tokens.all()
    (state / "tokens.json").chmod(0o600)
    assert tokens.find(text) is not None


def test_a_link_in_place_of_the_file_lets_nobody_in(tokens: Tokens, state: Path) -> None:
    text = add(tokens)
    (state / "tokens.json").rename(state / "elsewhere")
    (state / "tokens.json").symlink_to(state / "elsewhere")
    assert tokens.find(text) is None


def test_a_file_that_is_gone_lets_nobody_in(tokens: Tokens, state: Path) -> None:
    text = add(tokens)
    assert tokens.find(text) is not None
    (state / "tokens.json").unlink()
    assert tokens.find(text) is None


def test_tokens_made_at_the_same_time_are_all_there(state: Path, clock: Clock) -> None:
    threads = [threading.Thread(target=add, args=(Tokens(state, clock), f"t{n}")) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.name for one in Tokens(state, clock).all()) == sorted(f"t{n}" for n in range(12))


def test_a_write_that_fails_leaves_the_old_file(
    tokens: Tokens, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = add(tokens)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            add(tokens, "bob")
    assert tokens.find(text) is not None
    assert sorted(path.name for path in state.iterdir()) == ["tokens.json", "tokens.lock"]


def test_a_comparison_takes_place_where_there_is_nothing_to_compare_with(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []
    real = module.hmac.compare_digest
    monkeypatch.setattr(
        module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or bool(real(a, b))
    )
    text = add(tokens)
    tokens.find(text)
    tokens.find("tgc_00000000_" + "A" * 43)
    assert [len(a) == len(b) == 64 for a, b in compared] == [True, True]
