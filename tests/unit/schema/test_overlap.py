"""What two policies both allow is exactly that, judged by `decide` of each; and a stale release widens nothing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_schema import overlap, validation
from tidegate_schema.overlap import both, kept_within
from tidegate_schema.policy import PolicyTable
from unit.schema.test_policy import ADDRESSES, ALICE, TIMES, WIRE, documents, packets, rules


def allows(document: Any, client: str, address: bytes, wire: tuple[int, int], now: float) -> bool:
    return PolicyTable(document).decide(client, address, *wire, now).allow


PROBES = list(itertools.product(ADDRESSES, WIRE, (99, 100, 200, 300)))


def allowed(document: Any) -> set[int]:
    """Return which of PROBES alice may send."""
    table = PolicyTable(document)
    return {
        number
        for number, (address, wire, now) in enumerate(PROBES)
        if table.decide(ALICE, address, *wire, now).allow
    }


def of_alice(every: list[dict[str, Any]]) -> dict[str, Any]:
    return {"format": 1, "rules": every, "sets": [list(range(len(every)))], "clients": {ALICE: 0}}


@settings(deadline=None, max_examples=120)
@given(*[st.lists(rules(), max_size=4)] * 3)
def test_it_allows_what_both_allow_and_nothing_else(shared: Any, one: Any, other: Any) -> None:
    old, new = of_alice(shared + one), of_alice(other + shared)
    made = both(old, new)
    assert validation.is_valid("policy", made)
    assert allowed(made) == allowed(old) & allowed(new)


@pytest.mark.parametrize("is_old", [True, False], ids=["old", "new"])
def test_a_deny_and_a_time_of_either_side_count(is_old: bool) -> None:
    everything = {"policy": "p", "action": "allow", "to": ["10.0.0.0/8"], "ports": ["any"]}
    deny = everything | {"action": "deny", "to": ["10.20.0.0/29"]}
    late = everything | {"not_before": 200}
    for narrow in ([everything, deny], [late], [everything | {"expires": 200}]):
        sides = of_alice(narrow), of_alice([everything])
        made = both(*(sides if is_old else sides[::-1]))
        assert allowed(made) == allowed(of_alice(narrow)) < allowed(of_alice([everything]))


@settings(deadline=None, max_examples=100)
@given(documents(), documents(), st.lists(packets, min_size=1, max_size=40))
def test_each_client_has_its_own_share(old: Any, new: Any, asked: list[Any]) -> None:
    made = both(old, new)
    for packet in asked:
        assert allows(made, *packet) == (allows(old, *packet) and allows(new, *packet)), packet


@settings(deadline=None, max_examples=50)
@given(documents(), st.lists(packets, min_size=1, max_size=20))
def test_of_the_same_twice_nothing_is_lost(document: Any, asked: list[Any]) -> None:
    for packet in asked:
        assert allows(both(document, document), *packet) == allows(document, *packet)


@settings(deadline=None, max_examples=100)
@given(documents(), documents(), st.lists(packets, min_size=1, max_size=20))
def test_past_the_most_work_it_allows_less_and_never_more(old: Any, new: Any, asked: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "WORK_MOST", 0)
        made = both(old, new)
    for packet in asked:
        assert not allows(made, *packet) or (allows(old, *packet) and allows(new, *packet))


@given(documents())
def test_with_a_bundle_without_policy_nothing_is_left(document: Any) -> None:
    assert both(document, None) is None
    assert both(None, document) is None


def test_a_rule_keeps_the_name_it_has_in_the_old_one() -> None:
    rule = {"policy": "old", "action": "allow", "to": ["10.0.0.0/8"], "ports": ["any"]}
    narrow = {
        "policy": "new",
        "action": "allow",
        "to": ["10.20.0.0/16"],
        "ports": ["tcp/443"],
        "expires": 300,
    }
    old, new = ({"format": 1, "rules": [one], "sets": [[0]], "clients": {ALICE: 0}} for one in (rule, narrow))
    assert both(old, new)["rules"] == [narrow | {"policy": "old"}]  # type: ignore[index]


@settings(deadline=None, max_examples=200)
@given(documents(), st.sampled_from(TIMES), st.lists(packets, min_size=1, max_size=40))
def test_a_stale_release_widens_nothing(document: Any, not_after: int, asked: list[Any]) -> None:
    made = kept_within(document, not_after)
    assert validation.is_valid("policy", made)
    for client, address, wire, now in asked:
        before = allows(document, client, address, wire, not_after - 0.5)
        late = allows(made, client, address, wire, now)
        if now < not_after:
            assert late == allows(document, client, address, wire, now)
        else:
            assert not late or before


@pytest.mark.parametrize(
    ("rule", "now"),
    [({"action": "allow", "not_before": 300}, 301), ({"action": "deny", "expires": 300}, 301)],
    ids=["an-allow-that-would-begin", "a-deny-that-would-end"],
)
def test_neither_a_begin_nor_an_end_after_the_release_s_own_end_opens(rule: Any, now: int) -> None:
    every = [
        {"policy": "p", "action": "allow", "to": ["10.0.0.0/8"], "ports": ["any"]},
        {"policy": "p", "to": ["10.0.0.0/8"], "ports": ["any"], **rule},
    ]
    numbers = [1] if rule["action"] == "allow" else [0, 1]
    document = {"format": 1, "rules": every, "sets": [numbers], "clients": {ALICE: 0}}
    asked = (ALICE, b"\x0a\x14\x00\x05", (6, 443), now)
    assert allows(document, *asked)
    assert not allows(kept_within(document, 200), *asked)
    assert kept_within(document, 400) is document
