"""The next free address: lowest, never a reserved one, fast in a large fleet, clear when there is none."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_compiler.edit.allocate import allocate
from tidegate_compiler.edit.change import EditError
from tidegate_compiler.model import Network


def nets(*texts: str) -> list[Network]:
    return [ipaddress.ip_network(text) for text in texts]


def given_(overlay: list[str], taken: list[str]) -> list[str]:
    return [str(found) for found in allocate(nets(*overlay), nets(*taken))]


@pytest.mark.parametrize(
    ("overlay", "taken", "found"),
    [
        (["10.0.0.0/24", "fd64::/64"], [], ["10.0.0.2/32", "fd64::2/128"]),
        (["fd64::/64", "10.0.0.0/24"], ["10.0.0.2/32", "fd64::3/128"], ["10.0.0.3/32", "fd64::2/128"]),
        (["10.0.0.0/30"], [], ["10.0.0.2/32"]),
        (["10.0.0.0/30", "10.1.0.0/24"], ["10.0.0.2/32"], ["10.1.0.2/32"]),  # never .3, the broadcast address
        (["10.0.0.0/31"], [], ["10.0.0.0/32"]),
        (["10.0.0.0/31"], ["10.0.0.0/32"], ["10.0.0.1/32"]),
        (["10.0.0.9/32"], [], ["10.0.0.9/32"]),
        (["fd64::/126"], ["fd64::2/128"], ["fd64::3/128"]),  # IPv6 has no broadcast address
        (
            ["10.0.0.0/24"],
            ["10.0.0.0/25"],
            ["10.0.0.128/32"],
        ),  # a client with a whole prefix, which is an error
    ],
)
def test_the_lowest_free_address_of_each_family(
    overlay: list[str], taken: list[str], found: list[str]
) -> None:
    assert given_(overlay, taken) == found


@pytest.mark.parametrize("overlay", [["10.0.0.0/30"], ["10.0.0.2/32"], ["10.0.0.2/31", "10.0.0.2/32"]])
def test_a_full_overlay_is_said_so(overlay: list[str]) -> None:
    with pytest.raises(EditError, match=r"the overlay is full: no free IPv4 address in 10\.0\.0.*--address"):
        given_(overlay, ["10.0.0.2/32", "10.0.0.3/32"])


@given(st.integers(24, 32), st.sets(st.integers(0, 255)))
def test_it_is_what_a_search_through_all_hosts_finds(length: int, used: set[int]) -> None:
    prefix = ipaddress.ip_network((0x0A000000, length))
    taken = nets(*(f"10.0.0.{number}/32" for number in used))
    hosts = list(prefix) if length > 30 else list(prefix.hosts())[1:]
    free = [host for host in hosts if int(host) & 0xFF not in used]
    if free:
        assert allocate([prefix], taken) == nets(f"{free[0]}/32")
    else:
        with pytest.raises(EditError):
            allocate([prefix], taken)


def test_a_hundred_thousand_clients_are_one_pass() -> None:
    """Each address is looked at once: a search that begins anew per client would never end within the timeout."""
    overlay = nets("10.64.0.0/14")
    taken = [ipaddress.ip_network((0x0A400002 + number, 32)) for number in range(100_000)]
    for _ in itertools.repeat(None, 20):
        assert allocate(overlay, taken) == [ipaddress.ip_network((0x0A400002 + 100_000, 32))]
