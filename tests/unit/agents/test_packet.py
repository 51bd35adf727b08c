"""The parser is total, and what it says of a packet is what the builder put in."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_agents.datapath.packet import FIRST, LATER, WHOLE, Packet, parse, parse_embedded
from unit.agents.kit import (
    ICMP,
    ICMP6,
    SCTP,
    TCP,
    UDP,
    auth6,
    fragment6,
    icmp,
    ip4,
    ip6,
    options6,
    raw,
    routing6,
    sctp,
    tcp,
    udp,
)

A4, B4, A6, B6 = "10.64.0.11", "10.20.0.80", "fd64::11", "fd20::80"
BODIES = [
    (TCP, tcp()),
    (UDP, udp()),
    (SCTP, sctp()),
    (ICMP, icmp()),
    (ICMP6, icmp(128)),
    (47, b""),
    (50, b"12345"),
]
PORTS = {TCP: (40000, 443), UDP: (40000, 53), SCTP: (40000, 9)}
VALID = [
    *(ip4(A4, B4, protocol, body) for protocol, body in BODIES),
    *(ip6(A6, B6, protocol, body) for protocol, body in BODIES),
    ip4(A4, B4, TCP, tcp(), options=b"\x94\x04\x00\x00"),
    ip4(A4, B4, ICMP, icmp(3, ip4(B4, A4, TCP, tcp())[:28])),
    ip4(A4, B4, UDP, udp(body=bytes(16)), fragment=(0, True)),
    ip4(A4, B4, UDP, bytes(16), fragment=(24, False)),
    ip6(A6, B6, TCP, tcp(), options6(0), routing6(), options6(60), auth6()),
    ip6(A6, B6, TCP, tcp(), fragment6(0, True)),
    ip6(A6, B6, TCP, bytes(16), fragment6(64, False)),
    ip6(A6, B6, ICMP6, icmp(1, ip6(B6, A6, TCP, tcp()))),
]


def both(data: bytes) -> None:
    """Parse in both ways: a packet or None, never an exception, and sound in itself."""
    for read in (parse, parse_embedded):
        found = read(data)
        if found is not None:
            assert len(found.source) == len(found.destination)
            assert len(found.source) in (4, 16)
            assert 0 <= found.protocol <= 255
            assert 0 <= found.port <= 65535
            assert found.fragment in (WHOLE, FIRST, LATER)
            assert found.has_ports or (found.source_port, found.port, found.tcp_flags) == (0, 0, 0)


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=120))
def test_any_bytes_are_a_packet_or_none(data: bytes) -> None:
    both(data)
    both(b"\x45" + data)
    both(b"\x60" + data)


@settings(deadline=None, max_examples=500)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=5),
    st.integers(0, 130),
)
def test_a_mutated_packet_is_a_packet_or_none(data: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    changed = bytearray(data)
    for at, value in changes:
        changed[at % len(changed)] = value
    both(bytes(changed))
    both(bytes(changed[:cut]))


@pytest.mark.parametrize("data", VALID, ids=range(len(VALID)))
def test_a_packet_cut_short_anywhere_is_none(data: bytes) -> None:
    assert parse(data) is not None
    for end in range(len(data)):
        assert parse(data[:end]) is None


@settings(deadline=None)
@given(
    st.ip_addresses(v=4),
    st.ip_addresses(v=4),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(0, 255),
)
def test_ipv4_tcp(
    source: ipaddress.IPv4Address,
    destination: ipaddress.IPv4Address,
    from_port: int,
    to_port: int,
    flags: int,
) -> None:
    data = ip4(str(source), str(destination), TCP, tcp(from_port, to_port, flags))
    expected = Packet(source.packed, destination.packed, TCP, from_port, to_port, flags, WHOLE, 0, None)
    assert parse(data) == expected._replace(fragment_id=7)


@settings(deadline=None)
@given(st.ip_addresses(v=6), st.ip_addresses(v=6), st.integers(0, 65535), st.integers(0, 65535))
def test_ipv6_udp(source: ipaddress.IPv6Address, destination: ipaddress.IPv6Address, a: int, b: int) -> None:
    data = ip6(str(source), str(destination), UDP, udp(a, b))
    assert parse(data) == Packet(source.packed, destination.packed, UDP, a, b, 0, WHOLE, 0, None)


@pytest.mark.parametrize(("protocol", "body"), BODIES, ids=[str(p) for p, _ in BODIES])
def test_every_protocol_in_both_families(protocol: int, body: bytes) -> None:
    for data, source in ((ip4(A4, B4, protocol, body), A4), (ip6(A6, B6, protocol, body), A6)):
        found = parse(data)
        assert found is not None
        assert (found.source, found.protocol, found.embedded) == (raw(source), protocol, None)
        assert (found.source_port, found.port) == PORTS.get(protocol, (0, 0))
        assert found.has_ports == (protocol in PORTS)


def test_what_follows_the_packet_s_own_length_is_no_part_of_it() -> None:
    assert parse(ip4(A4, B4, UDP, udp()) + b"trailer") == parse(ip4(A4, B4, UDP, udp()))
    assert parse(ip4(A4, B4, TCP, tcp(), length=30)) is None  # its own length leaves no room for TCP
    assert parse(ip6(A6, B6, TCP, tcp(), length=10)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(20),
        bytes(60),
        b"\x55" + bytes(59),
        b"\x44" + ip4(A4, B4, TCP, tcp())[1:],  # a header of 16 bytes
        ip4(A4, B4, TCP, tcp(), length=41),
        ip4(A4, B4, TCP, tcp(), length=19),
        ip4(A4, B4, TCP, tcp(), length=0),
        b"\x4f" + ip4(A4, B4, UDP, udp())[1:],  # a header longer than the packet
        ip4(A4, B4, TCP, tcp()[:19]),
        ip4(A4, B4, UDP, udp()[:7]),
        ip4(A4, B4, SCTP, sctp()[:11]),
        ip4(A4, B4, ICMP, icmp()[:7]),
        ip4(A4, B4, UDP, udp()[:4], fragment=(0, True)),  # a first fragment too short for its ports
        ip4(A4, B4, TCP, tcp()[:16], fragment=(0, True)),  # ... and for TCP's flags: RFC 1858
        ip4(A4, B4, TCP, bytes(16), fragment=(8, False)),  # would overwrite the flags: RFC 3128
        ip4(A4, B4, TCP, bytes(16), fragment=(8, True)),
        ip4(A4, B4, UDP, udp(), options=b"\x83\x07\x04" + raw(B4)),  # loose source route
        ip4(A4, B4, UDP, udp(), options=b"\x89\x07\x04" + raw(B4)),  # strict source route
        ip4(A4, B4, UDP, udp(), options=b"\x01\x01\x01\x83\x03\x04"),
        ip4(A4, B4, UDP, udp(), options=b"\x94\x00\x83\x07"),  # an option of length 0 hides what follows
        ip4(A4, B4, UDP, udp(), options=b"\x94\x01"),
        ip4(A4, B4, UDP, udp(), options=b"\x01\x01\x01\x94"),  # an option without its length
        ip6(A6, B6, TCP, tcp(), length=21),
        ip6(A6, B6, TCP, tcp(), length=0),
        ip6(A6, B6, TCP, tcp(), routing6(1)),
        ip6(A6, B6, TCP, tcp(), options6(0), routing6(255)),
        ip6(A6, B6, TCP, tcp(), *([options6(60)] * 8)),
        ip6(A6, B6, 0, b""),
        ip6(A6, B6, 43, bytes(7)),
        ip6(A6, B6, 51, bytes(11)),
        ip6(A6, B6, 44, bytes(7)),
        ip6(A6, B6, 60, bytes([6, 255]) + bytes(6)),  # an extension longer than the packet
        ip6(A6, B6, TCP, tcp(), fragment6(0, True), fragment6(0, True)),
        ip6(A6, B6, TCP, bytes(16), fragment6(8, False)),
        ip6(A6, B6, UDP, udp()[:4], fragment6(0, True)),
    ],
)  # fmt: skip
def test_what_cannot_be_told_for_certain_is_none(data: bytes) -> None:
    assert parse(data) is None


def test_harmless_options_are_skipped() -> None:
    for options in (b"\x94\x04\x00\x00", b"\x01\x01", b"\x00\x83\x07\x04", b"\x07\x07\x04\x00\x00\x00\x00"):
        found = parse(ip4(A4, B4, UDP, udp(), options=options))
        assert found is not None
        assert found.port == 53


@pytest.mark.parametrize(
    "extensions",
    [
        [options6(0)],
        [options6(0, 3), options6(60, 1)],
        [routing6(0)],
        [auth6(1)],
        [auth6(6), options6(60)],
        [options6(60)] * 7,
        [fragment6(0, False)],  # an atomic fragment is a whole packet: RFC 6946
    ],
)
def test_ipv6_extension_headers_are_walked(extensions: list[tuple[int, bytes]]) -> None:
    found = parse(ip6(A6, B6, TCP, tcp(), *extensions))
    assert found is not None
    assert (found.protocol, found.source_port, found.port, found.fragment) == (TCP, 40000, 443, WHOLE)


def test_fragments_of_ipv4() -> None:
    first = parse(ip4(A4, B4, UDP, udp(body=bytes(16)), fragment=(0, True), number=99))
    middle = parse(ip4(A4, B4, UDP, b"\x00\x01\x00\x02" * 4, fragment=(24, True), number=99))
    last = parse(ip4(A4, B4, UDP, b"\xff", fragment=(40, False), number=99))
    assert first is not None
    assert middle is not None
    assert last is not None
    assert (first.fragment, first.port, first.has_ports) == (FIRST, 53, True)
    assert [(p.fragment, p.port, p.has_ports) for p in (middle, last)] == [(LATER, 0, False)] * 2
    assert {p.fragment_id for p in (first, middle, last)} == {99}


def test_fragments_of_ipv6() -> None:
    first = parse(ip6(A6, B6, UDP, udp(), options6(0), fragment6(0, True, 0xDEADBEEF)))
    later = parse(ip6(A6, B6, UDP, b"\x00\x01\x00\x02", options6(0), fragment6(24, False, 0xDEADBEEF)))
    assert first is not None
    assert later is not None
    assert (first.fragment, first.port) == (FIRST, 53)
    assert (later.fragment, later.port, later.has_ports) == (LATER, 0, False)
    assert first.fragment_id == later.fragment_id == 0xDEADBEEF


def test_a_later_fragment_s_bytes_are_never_read_as_headers() -> None:
    for protocol in (0, 43, 44, 51, 60, UDP):
        found = parse(ip6(A6, B6, protocol, b"\x06\x00\x01\x02", fragment6(800, False)))
        assert found is not None
        assert (found.fragment, found.protocol, found.port) == (LATER, protocol, 0)


ERRORS4, ERRORS6 = (3, 11, 12), (1, 2, 3, 4)


@pytest.mark.parametrize("kind", range(256))
def test_icmp_errors_carry_what_they_report_on_and_nothing_else_does(kind: int) -> None:
    four = parse(ip4(A4, B4, ICMP, icmp(kind, b"quoted")))
    six = parse(ip6(A6, B6, ICMP6, icmp(kind, b"quoted")))
    assert four is not None
    assert six is not None
    assert four.embedded == (b"quoted" if kind in ERRORS4 else None)
    assert six.embedded == (b"quoted" if kind in ERRORS6 else None)


def test_icmp_of_the_other_family_is_no_error() -> None:
    four, six = parse(ip4(A4, B4, ICMP6, icmp(1))), parse(ip6(A6, B6, ICMP, icmp(3)))
    assert four is not None
    assert six is not None
    assert (four.embedded, six.embedded) == (None, None)


@pytest.mark.parametrize(
    "quoted",
    [lambda body: ip4(B4, A4, TCP, body, length=1500), lambda body: ip6(B6, A6, TCP, body, length=1400)],
)
def test_a_quoted_packet_needs_its_ports_and_no_more(quoted: Callable[[bytes], bytes]) -> None:
    whole = quoted(tcp(443, 40000))
    found = parse_embedded(whole[:-12])
    assert found is not None
    assert (found.source_port, found.port, found.embedded) == (443, 40000, None)
    assert parse_embedded(whole[:-13]) is None
    assert parse(whole) is None  # as a packet of its own it is cut short


def test_a_quoted_error_is_not_followed_any_further() -> None:
    inner = ip4(B4, A4, ICMP, icmp(3, ip4(A4, B4, UDP, udp())))
    found = parse_embedded(inner)
    assert found is not None
    assert found.embedded is None
