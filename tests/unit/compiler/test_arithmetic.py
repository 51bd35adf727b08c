"""Windows, port ranges and prefixes against plain sets of instants, ports and addresses."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_compiler import networks, times
from tidegate_compiler.grants import merge, ports_cover, windows_cover
from tidegate_compiler.times import Window
from tidegate_schema.ports import PortRange

EDGE = st.none() | st.integers(0, 9)
WINDOWS = st.builds(Window, EDGE, EDGE)
RANGES = st.tuples(st.sampled_from([6, 17]), st.integers(0, 9), st.integers(0, 9)).map(
    lambda t: PortRange(t[0], min(t[1:]), max(t[1:]))
)


def instants(windows: list[Window] | tuple[Window, ...]) -> set[int]:
    return {
        now
        for now in range(-1, 11)
        for w in windows
        if (w.not_before is None or w.not_before <= now) and (w.expires is None or now < w.expires)
    }


@given(st.lists(WINDOWS, max_size=5))
def test_union_holds_the_same_instants_in_the_fewest_windows(windows: list[Window]) -> None:
    merged = times.union(windows)
    assert instants(merged) == instants(windows)
    for one, other in itertools.pairwise(merged):
        assert one.expires is not None
        assert other.not_before is not None
        assert one.expires < other.not_before


@given(WINDOWS, WINDOWS)
def test_intersection_holds_the_instants_of_both(one: Window, other: Window) -> None:
    both = one.intersect(other)
    assert instants([both] if both else []) == instants([one]) & instants([other])
    if not other.is_empty:
        assert one.covers(other) == (instants([other]) <= instants([one]) and _open_ends(one, other))


def _open_ends(one: Window, other: Window) -> bool:
    return (one.expires is None or other.expires is not None) and (
        one.not_before is None or other.not_before is not None
    )


@given(st.lists(WINDOWS, max_size=4), st.lists(WINDOWS, max_size=4))
def test_cover_is_never_claimed_wrongly(one: list[Window], other: list[Window]) -> None:
    if windows_cover(times.union(one), times.union(other)):
        assert instants(other) <= instants(one)


def ports(ranges: list[PortRange] | tuple[PortRange, ...]) -> set[tuple[int, int]]:
    return {(r.protocol, port) for r in ranges for port in range(r.first, r.last + 1)}


@given(st.lists(RANGES, max_size=6), st.lists(RANGES, max_size=6))
def test_merge_admits_the_same_ports(one: list[PortRange], other: list[PortRange]) -> None:
    merged = merge(one)
    assert ports(merged) == ports(one)
    assert list(merged) == sorted(merged)
    assert ports_cover(merged, merge(other)) == (ports(other) <= ports(one))


def test_any_swallows_everything_else() -> None:
    assert merge([PortRange(6, 1, 2), PortRange(-1), PortRange(17)]) == (PortRange(-1),)


NETWORKS = st.tuples(st.integers(0, 15), st.integers(28, 32)).map(
    lambda t: ipaddress.ip_network((t[0], t[1]), strict=False)
)


@given(st.lists(NETWORKS, max_size=5), NETWORKS)
def test_prefix_arithmetic(found: list[networks.Network], one: networks.Network) -> None:
    addresses = {address for network in found for address in network}
    collapsed = networks.collapse(found, 4)
    assert {address for network in collapsed for address in network} == addresses
    assert networks.collapse(found, 6) == ()
    for other in found:
        both = networks.intersect(one, other)
        assert set(both or ()) == set(one) & set(other)
    assert set(networks.Covering(found).of(one)) == {other for other in found if set(one) <= set(other)}


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("1970-01-01", 0),
        ("2027-06-30", 1814313600),
        ("2027-06-30T18:00Z", 1814313600 + 18 * 3600),
        ("2027-06-30T18:00:59Z", 1814313600 + 18 * 3600 + 59),
        ("9999-12-31T23:59:59Z", 253402300799),
    ],
)
def test_instants(text: str, second: int) -> None:
    assert times.parse_instant(text) == second
    assert times.parse_instant(times.format_instant(second)) == second


@pytest.mark.parametrize(
    "text",
    ["1969-12-31", "2027-02-29", "2027-13-01", "2027-6-3", "2027-06-30T24:00Z", "2027-06-30T12:00", "2027-06-30 12:00Z",
     "2027-06-30T12:00+00:00", "2027-06-30\n", "\u0662027-06-30", "now", "", "0000-01-01", "20270630"],
)  # fmt: skip
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        times.parse_instant(text)


@given(
    st.lists(
        st.builds(
            lambda base, bits, length: (
                ipaddress.ip_network((f"{base}{bits:x}", length), strict=False)
                if ":" in base
                else ipaddress.ip_network((f"{base}{bits}", min(length - 96, 32)), strict=False)
            ),
            st.sampled_from(["10.0.0.", "fd00::"]),
            st.integers(0, 15),
            st.integers(122, 128),
        ),
        max_size=12,
    )
)
def test_overlapping_pairs_are_those_of_every_two(
    given_networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network],
) -> None:
    every = [
        (earlier, later)
        for later, one in enumerate(given_networks)
        for earlier in range(later)
        if networks.intersect(given_networks[earlier], one) is not None
    ]
    assert list(networks.overlapping_pairs(given_networks)) == every


def test_a_long_list_is_not_compared_entry_by_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte holds sixty thousand prefixes: two billion pairs."""
    calls: list[None] = []
    real = networks.contains
    monkeypatch.setattr(networks, "contains", lambda one, other: calls.append(None) or real(one, other))
    every = [ipaddress.ip_network(f"10.{number >> 8}.{number & 255}.0/24") for number in range(1000)]
    assert list(networks.overlapping_pairs(every)) == []
    assert len(calls) < 2 * len(every)
