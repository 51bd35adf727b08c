"""From observed to desired peers, without an address ever belonging to two."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_agents import wireguard
from tidegate_agents.wireguard import PeerConfig, WireGuardError, difference
from unit.agents.kit import key

KEYS = ["A", "B", "C", "D"]
ADDRESSES = [f"10.64.0.{n}/32" for n in range(6)]


@st.composite
def peer_sets(draw: st.DrawFn, endpoints: bool = True) -> dict[str, PeerConfig]:
    """Return peers of which no two have an address in common, as WireGuard keeps them."""
    owners = draw(st.lists(st.sampled_from([*KEYS, ""]), min_size=6, max_size=6))
    present = draw(st.lists(st.sampled_from(KEYS), unique=True))
    return {
        name: PeerConfig(
            frozenset(a for a, owner in zip(ADDRESSES, owners, strict=True) if owner == name),
            draw(st.sampled_from([None, "192.0.2.1:1", "192.0.2.2:2"])) if endpoints else None,
            draw(st.sampled_from([0, 25])),
        )
        for name in present
    }


def alone(peers: dict[str, PeerConfig]) -> None:
    owned = [address for peer in peers.values() for address in peer.allowed_ips]
    assert len(owned) == len(set(owned))


def put(peers: dict[str, PeerConfig], name: str, peer: PeerConfig) -> None:
    """Set one peer as `wg addconf` does; the caller checks that nobody else's address was taken for it."""
    known = peers.get(name)
    endpoint = peer.endpoint if peer.endpoint is not None or known is None else known.endpoint
    peers[name] = PeerConfig(peer.allowed_ips, endpoint, peer.persistent_keepalive)
    alone(peers)


@settings(deadline=None, max_examples=300)
@given(peer_sets(), peer_sets())
def test_the_steps_lead_there_and_no_address_has_two_peers_on_the_way(
    observed: dict[str, PeerConfig], desired: dict[str, PeerConfig]
) -> None:
    change = difference(observed, desired)
    now = dict(observed)
    for name in change.remove:
        del now[name]
    for name, peer in change.shrink.items():
        assert peer.allowed_ips < observed[name].allowed_ips  # never adds
        put(now, name, peer)
    # Between shrink and grow a new generation takes over: nobody has an address that is not theirs by then.
    assert all(peer.allowed_ips <= desired[name].allowed_ips for name, peer in now.items())
    for name, peer in change.grow.items():
        put(now, name, peer)
    assert now.keys() == desired.keys()
    for name, want in desired.items():
        assert now[name].allowed_ips == want.allowed_ips
        assert now[name].persistent_keepalive == want.persistent_keepalive
        assert want.endpoint in (None, now[name].endpoint)


@settings(deadline=None)
@given(peer_sets())
def test_what_is_as_desired_is_left_alone(peers: dict[str, PeerConfig]) -> None:
    assert not difference(peers, peers)
    assert not difference(
        peers, {n: PeerConfig(p.allowed_ips, None, p.persistent_keepalive) for n, p in peers.items()}
    )


@settings(deadline=None)
@given(peer_sets(), peer_sets())
def test_only_what_differs_is_touched(
    observed: dict[str, PeerConfig], desired: dict[str, PeerConfig]
) -> None:
    change = difference(observed, desired)
    for name in observed.keys() & desired.keys():
        if observed[name] == desired[name]:
            assert name not in change.shrink
            assert name not in change.grow
    assert bool(change) == bool(change.remove or change.shrink or change.grow)


def test_no_command_clears_a_key_or_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[tuple[str, ...], str | None]] = []
    monkeypatch.setattr(wireguard, "run", lambda *command, text=None: calls.append((command, text)) or "")
    peer = PeerConfig(frozenset({"10.0.0.2/32", "10.0.0.1/32"}), "192.0.2.1:51820", 25)
    wireguard.set_peers("wg0", {key("a"): peer, key("b"): PeerConfig(frozenset())})
    wireguard.set_peers("wg0", {})
    wireguard.remove_peers("wg0", [])
    wireguard.remove_peers("wg0", [key(str(n)) for n in range(1001)])
    ((command, text), *removals) = calls
    assert command == ("addconf", "wg0", "/dev/stdin")  # setconf and syncconf clear what they are not given
    assert text == (
        f"[Peer]\nPublicKey = {key('a')}\nEndpoint = 192.0.2.1:51820\nAllowedIPs = 10.0.0.1/32, 10.0.0.2/32\n"
        f"PersistentKeepalive = 25\n[Peer]\nPublicKey = {key('b')}\nPersistentKeepalive = 0\n"
    )
    assert [len(command) for command, _ in removals] == [2 + 1500, 2 + 1500, 2 + 3]


DUMP = (
    "PRIVATE\tPUBLIC\t51820\toff\n"
    "K1\t(none)\t192.0.2.1:5\t10.0.0.1/32,fd00::1/128\t1700000000\t10\t20\toff\n"
    "K2\t(none)\t(none)\t(none)\t0\t0\t0\t25\n"
)


def test_a_dump_is_read_and_the_private_key_kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wireguard, "run", lambda *_: DUMP)
    state = wireguard.show("wg0")
    assert (state.public_key, state.listen_port, state.fwmark) == ("PUBLIC", 51820, 0)
    assert state.peers["K1"].config == PeerConfig(frozenset({"10.0.0.1/32", "fd00::1/128"}), "192.0.2.1:5", 0)
    assert state.peers["K1"].latest_handshake == 1700000000
    assert state.peers["K2"].config == PeerConfig(frozenset(), None, 25)
    assert "PRIVATE" not in repr(state)
    monkeypatch.setattr(wireguard, "run", lambda *_: DUMP.replace("off\n", "0xca6c\n", 1))
    assert wireguard.show("wg0").fwmark == 0xCA6C


@pytest.mark.needs_tools("wg")
def test_a_failure_is_one_line() -> None:
    with pytest.raises(WireGuardError) as caught:
        wireguard.show("no-such-device")
    assert "\n" not in str(caught.value)
