"""The plan from an observed interface to the wanted one: it leads there, and widens nothing on the way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_agents.client.reconcile import Action, Link, Observed, Verb, Wanted, plan
from tidegate_agents.wireguard import PeerConfig, PeerState
from unit.agents.test_wireguard import alone, peer_sets

NOW = 1_800_000_000
KEY, OTHER = "the key", "another key"
PREFIXES = ["10.20.0.0/16", "10.21.0.0/16", "fd20::/48", "fd21::/48"]
OWN = ["10.64.0.11/32", "10.64.0.12/32", "fd64::11/128"]
PEER = PeerConfig(frozenset(PREFIXES[:2]), "192.0.2.1:1", 0)
WANTED = Wanted(KEY, {"A": PEER}, frozenset(OWN[:2]), frozenset(PREFIXES[:2]), 1420)
LINK = Link(WANTED.addresses, WANTED.routes, 1420, True)


def states(peers: Mapping[str, PeerConfig], handshake: int = 0) -> dict[str, PeerState]:
    return {key: PeerState(peer, handshake, 0, 0) for key, peer in peers.items()}


OBSERVED = Observed(KEY, states({"A": PEER}), LINK)
wanted = st.builds(
    Wanted,
    st.just(KEY),
    peer_sets(endpoints=False),
    st.frozensets(st.sampled_from(OWN), min_size=1),
    st.frozensets(st.sampled_from(PREFIXES)),
    st.sampled_from([1280, 1420]),
)
observed = st.builds(
    Observed,
    st.sampled_from([KEY, OTHER]),
    peer_sets(endpoints=False).map(states),
    st.builds(
        Link,
        st.frozensets(st.sampled_from(OWN)),
        st.frozensets(st.sampled_from(PREFIXES)),
        st.sampled_from([1280, 1420]),
        st.booleans(),
    ),
)


def done(state: Observed, action: Action) -> Observed:
    """Return the state after an action, as wg(8) and ip(8) would leave it; a link that is down takes no route."""
    link, peers = state.link, {key: one.config for key, one in state.peers.items()}
    match action.verb:
        case Verb.REMOVE_ROUTE:
            link = replace(link, routes=link.routes - {action.subject})
        case Verb.ADD_ROUTE:
            assert link.up
            link = replace(link, routes=link.routes | {action.subject})
        case Verb.ADD_ADDRESS:
            link = replace(link, addresses=link.addresses | {action.subject})
        case Verb.REMOVE_ADDRESS:
            link = replace(link, addresses=link.addresses - {action.subject})
        case Verb.SET_MTU:
            link = replace(link, mtu=int(action.subject))
        case Verb.SET_UP:
            link = replace(link, up=True)
        case Verb.REMOVE_PEER:
            del peers[action.subject]
        case Verb.NARROW_PEER | Verb.SET_PEER:
            assert action.peer is not None
            peers[action.subject] = action.peer
            alone(peers)
        case Verb.SET_KEY:
            return replace(state, key=action.subject)
        case _:
            raise AssertionError(action)
    return replace(state, link=link, peers=states(peers))


@settings(deadline=None, max_examples=300)
@given(wanted, observed)
def test_the_actions_lead_there_and_nothing_is_wider_on_the_way(want: Wanted, have: Observed) -> None:
    state = have
    for action in plan(want, have):
        state = done(state, action)
        for key, peer in state.peers.items():
            old = have.peers[key].config.allowed_ips if key in have.peers else frozenset()
            new = want.peers[key].allowed_ips if key in want.peers else frozenset()
            assert peer.config.allowed_ips <= old | new
        assert state.link.routes <= have.link.routes | want.routes
    assert plan(want, state) == []


@settings(deadline=None)
@given(wanted, observed)
def test_narrowing_comes_before_widening(want: Wanted, have: Observed) -> None:
    verbs = [action.verb for action in plan(want, have)]
    order = list(Verb)
    assert all(order.index(a) <= order.index(b) for a, b in itertools.pairwise(verbs))
    texts = [action.text for action in plan(want, have)]
    assert all(text and "\n" not in text for text in texts)
    assert len(set(texts)) == len(texts)


def test_without_an_interface_it_is_brought_up_and_nothing_else() -> None:
    (action,) = plan(WANTED, None)
    assert action.verb == Verb.CREATE
    assert action.text == "bring the interface up: 10.64.0.11/32, 10.64.0.12/32, 1 gateways, MTU 1420"


def test_what_is_as_wanted_is_left_alone() -> None:
    assert plan(WANTED, OBSERVED) == []


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (replace(OBSERVED, peers={}), "add peer A: 192.0.2.1:1, 10.20.0.0/16, 10.21.0.0/16"),
        (replace(OBSERVED, peers=states({"A": PEER, "B": PEER})), "remove peer B"),
        (
            replace(OBSERVED, peers=states({"A": replace(PEER, allowed_ips=frozenset(PREFIXES[:3]))})),
            "take fd20::/48 from peer A",
        ),
        (
            replace(OBSERVED, peers=states({"A": replace(PEER, allowed_ips=frozenset(PREFIXES[:1]))})),
            "peer A: give it 10.21.0.0/16",
        ),
        (
            replace(OBSERVED, peers=states({"A": replace(PEER, endpoint="192.0.2.9:9")})),
            "peer A: endpoint 192.0.2.1:1, which is 192.0.2.9:9",
        ),
        (
            replace(OBSERVED, peers=states({"A": replace(PEER, persistent_keepalive=7)})),
            "peer A: keepalive 0 s, which is 7 s",
        ),
        (replace(OBSERVED, key=OTHER), f"set the private key of {KEY}"),
        (replace(OBSERVED, link=replace(LINK, mtu=1300)), "set MTU 1420, which is 1300"),
        (replace(OBSERVED, link=replace(LINK, up=False)), "set the link up"),
        (replace(OBSERVED, link=replace(LINK, routes=frozenset(PREFIXES[:1]))), "add route 10.21.0.0/16"),
        (replace(OBSERVED, link=replace(LINK, routes=frozenset(PREFIXES[:3]))), "remove route fd20::/48"),
        (replace(OBSERVED, link=replace(LINK, addresses=frozenset(OWN[:1]))), "add address 10.64.0.12/32"),
        (replace(OBSERVED, link=replace(LINK, addresses=frozenset(OWN))), "remove address fd64::11/128"),
    ],
)
def test_each_difference_is_one_action_with_its_own_line(state: Observed, text: str) -> None:
    assert [action.text for action in plan(WANTED, state)] == [text]


@pytest.mark.parametrize("default", ["0.0.0.0/0", "::/0"])
def test_a_default_route_that_comes_or_goes_is_wg_quick_s_to_make(default: str) -> None:
    want = replace(WANTED, routes=WANTED.routes | {default})
    assert [action.verb for action in plan(want, OBSERVED)] == [Verb.RECREATE]
    have = replace(OBSERVED, link=replace(LINK, routes=want.routes))
    assert plan(want, have) == []
    assert [action.verb for action in plan(WANTED, have)] == [Verb.RECREATE]


@pytest.mark.parametrize(
    ("age", "left"),
    [(10, True), (179, True), (181, False), (NOW, False), (-10, True), (-181, False), (-86400, False)],
)
def test_an_endpoint_to_which_a_gateway_moved_is_left_while_its_session_lives(age: int, left: bool) -> None:
    """A negative age is that of a clock that was set back: a little is nothing, and after more there is no session."""
    moved = states({"A": replace(PEER, endpoint="192.0.2.9:9")}, NOW - age)
    have = replace(OBSERVED, peers=moved)
    assert bool(plan(WANTED, have, roaming_at=NOW)) != left
    assert plan(WANTED, have)  # a release sets it
