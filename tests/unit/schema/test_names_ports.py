"""Names, protocols and port ranges."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_schema.names import NAME_PATTERN, is_name
from tidegate_schema.ports import ANY_PROTOCOL, ICMP, LAST_PORT, PORTED, PortRange, parse_ports

FAMILIES = (4, 6)
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-"
ports = st.integers(0, LAST_PORT)


@given(st.text(alphabet=ALPHABET, min_size=1, max_size=63).filter(lambda t: t[0] != "-"))
def test_a_name(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "-a", "a\n", "\na", "a b", "A", "a_b", "a.b", "..", "a/b", "é", "a" * 64, "a\u2028", "a\x00"),
        *("a\x85", "ａ", "١", "a\r", "a\u200b"),  # noqa: RUF001 - full-width and Arabic on purpose
    ],
)
def test_no_name(text: str) -> None:
    assert not is_name(text)


@given(st.text(max_size=70))
def test_a_name_is_exactly_the_alphabet(text: str) -> None:
    expected = 1 <= len(text) <= 63 and text[0] != "-" and set(text) <= set(ALPHABET)
    assert is_name(text) == expected
    assert (re.compile(NAME_PATTERN).fullmatch(text) is not None) == expected


@st.composite
def ranges(draw: st.DrawFn) -> PortRange:
    protocol = draw(st.sampled_from([ANY_PROTOCOL, *PORTED.values(), 1, 58, 47, 0, 255]))
    if protocol not in PORTED.values():
        return PortRange(protocol)
    first, last = sorted((draw(ports), draw(ports)))
    return PortRange(protocol, first, last)


def admits(one: PortRange, protocol: int, port: int) -> bool:
    return one.protocol in (ANY_PROTOCOL, protocol) and one.first <= port <= one.last


@given(ranges(), st.sampled_from(FAMILIES))
def test_the_written_form_reads_back_alike(value: PortRange, family: int) -> None:
    assert parse_ports(str(value), family) == value


@given(ranges(), ranges(), st.lists(st.tuples(st.sampled_from([6, 17, 132, 1, 47]), ports), max_size=20))
def test_an_intersection_admits_what_both_admit(
    one: PortRange, other: PortRange, packets: list[tuple[int, int]]
) -> None:
    both = one.intersect(other)
    edges = [(p, e) for p in (6, 17, 132, 1) for r in (one, other) for e in (r.first, r.last)]
    for protocol, port in packets + edges:
        expected = admits(one, protocol, port) and admits(other, protocol, port)
        assert (both is not None and admits(both, protocol, port)) == expected
    assert other.intersect(one) == both
    assert both is None or both.first <= both.last  # nothing in common is None, never an empty range


def test_icmp_is_another_protocol_in_each_family() -> None:
    assert parse_ports("icmp", 4) == PortRange(ICMP[4]) == PortRange(1)
    assert parse_ports("icmp", 6) == PortRange(58)


def test_a_protocol_number_is_the_whole_protocol() -> None:
    assert parse_ports("proto/6", 4) == parse_ports("tcp/0-65535", 4)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "tcp",
            "tcp/",
            "tcp/-1",
            "tcp/65536",
            "tcp/2-1",
            "tcp/1-65536",
            "tcp/1-2-3",
            "tcp/80\n",
            "TCP/80",
        ),
        *("tcp/٣", "proto/256", "proto/-1", "proto/1-2", "icmp/8", "any ", " any", "tcp /80", "tcp/+80"),
        *("tcp/8_0", "tcp/0x50", "proto/999", "dccp/5", "tcp/80,443"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_anything_else_is_refused_in_one_line(text: str, family: int) -> None:
    with pytest.raises(ValueError, match=r"write tcp|ports go upwards") as caught:
        parse_ports(text, family)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="tcpudsanyroi/-0123456789\n ", max_size=16), st.sampled_from(FAMILIES))
def test_any_text_is_ports_or_a_value_error(text: str, family: int) -> None:
    try:
        found = parse_ports(text, family)
    except ValueError:
        return
    assert parse_ports(str(found), family) == found
