"""The written forms of single values. Each reader returns the value or raises FieldError with its code.

The schemas check shape; these check meaning and are at least as strict, so that a value which comes out
holds nothing its author wrote but digits, names and base64: render never sees a hostile string.
"""

from __future__ import annotations

import functools
import ipaddress
import re

from tidegate_compiler.model import ALL_CLIENTS, Address, Endpoint, From, Network, To
from tidegate_compiler.times import parse_instant
from tidegate_schema.keys import parse_public_key
from tidegate_schema.names import NAME_PATTERN, is_name
from tidegate_schema.ports import PORTED, parse_ports
from tidegate_schema.wgquick import parse_endpoint

_ADDRESS_FORM = re.compile(r"[0-9a-fA-F:.]{2,45}")
_PREFIX_FORM = re.compile(r"([0-9a-fA-F:.]{2,45})/(0|[1-9][0-9]{0,2})")
_FROM_FORM = re.compile(rf"(client|group):({NAME_PATTERN})")
_RESOURCE_FORM = re.compile(rf"resource:({NAME_PATTERN})")
NAME_RULE = "a name is 1 to 63 of a-z, 0-9 and '-', and does not begin with '-'"


class FieldError(ValueError):
    """A value that is not of its field's form: the diagnostic's code and a one-line reason."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def name(text: str) -> str:
    """Read a reference by name, for instance of a gateway."""
    if not is_name(text):
        raise FieldError("TG017", NAME_RULE)
    return text


def member(text: str) -> str:
    """Read a group's member: the bare name of a client."""
    if text.startswith("group:"):
        raise FieldError("TG034", "groups do not nest; list the clients, or name both groups in the policy")
    if text.startswith("client:"):
        raise FieldError("TG017", "members are client names without 'client:'")
    return name(text)


def public_key(text: str) -> bytes:
    """Read a WireGuard public key: its 32 raw bytes."""
    try:
        return parse_public_key(text)
    except ValueError as error:
        raise FieldError("TG020", str(error)) from None


@functools.lru_cache(1 << 14)  # both sides of a plan say nearly the same
def network(text: str) -> Network:
    """Read a prefix without host bits."""
    match = _PREFIX_FORM.fullmatch(text)
    if match is None:
        raise FieldError("TG022", "write a prefix such as 10.20.0.0/16 or fd20::/48")
    try:
        exact = ipaddress.ip_address(match[1])
        made = (int(exact), int(match[2]))
        found: Network = (
            ipaddress.IPv4Network(made, strict=False)
            if exact.version == 4
            else ipaddress.IPv6Network(made, strict=False)
        )
    except ValueError:
        raise FieldError("TG022", "not an IP prefix; write one such as 10.20.0.0/16 or fd20::/48") from None
    if isinstance(exact, ipaddress.IPv6Address) and exact.ipv4_mapped:
        # Never on the wire, and Python versions differ in how they write it: same input, other bytes.
        raise FieldError("TG022", "an IPv4-mapped IPv6 address; write the IPv4 address")
    if found.network_address != exact:
        raise FieldError("TG023", f"host bits are set; write {found}, or {exact}/{found.max_prefixlen}")
    return found


def host(text: str) -> Network:
    """Read one host's address: a /32 or a /128."""
    found = network(text)
    if found.prefixlen != found.max_prefixlen:
        raise FieldError("TG024", f"a client has single addresses; write a /{found.max_prefixlen}")
    return found


def address(text: str) -> Address:
    """Read a bare IP address."""
    try:
        found = ipaddress.ip_address(text) if _ADDRESS_FORM.fullmatch(text) else None
    except ValueError:
        found = None
    if found is None or (isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped):
        raise FieldError("TG022", "write one IP address such as 10.20.5.3 or fd20::80")
    return found


def endpoint(text: str) -> Endpoint:
    """Read a gateway's endpoint, IP:port or [IPv6]:port."""
    try:
        canonical = parse_endpoint(text)
    except ValueError as error:
        reason = "not an IP address" if isinstance(error, ipaddress.AddressValueError) else str(error)
        raise FieldError("TG025", reason) from None
    found = ipaddress.ip_address(canonical.rpartition(":")[0].strip("[]"))
    mapped = isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None
    scoped = found.version == 6 and found.is_link_local  # of no use without its interface
    if found.is_unspecified or found.is_multicast or mapped or scoped or str(found) == "255.255.255.255":
        raise FieldError("TG025", "not the address of one host; write the gateway's own")
    return Endpoint(found, canonical)


def ports(text: str) -> str:
    """Read a protocol with ports; stays text, since `icmp` has a meaning per address family."""
    try:
        parse_ports(text, 4)
    except ValueError as error:
        raise FieldError("TG026", str(error)) from None
    return text


def one_port(text: str) -> str:
    """Read what an access test or `explain` asks about: one port, or a protocol without ports."""
    if text.isdecimal():
        raise FieldError("TG026", "a port is one of a protocol; write for instance tcp/443 or udp/53")
    ports(text)
    if text == "any" or "-" in text:
        raise FieldError("TG026", "one packet has one port; write for instance tcp/443 or icmp")
    if text.startswith("proto/") and int(text.removeprefix("proto/")) in PORTED.values():
        raise FieldError("TG026", "a packet of tcp, udp or sctp has a port; write for instance tcp/443")
    return text


def instant(text: str) -> int:
    """Read a point in time: its Unix second."""
    try:
        return parse_instant(text)
    except ValueError as error:
        raise FieldError("TG027", str(error)) from None


def source(text: str) -> From:
    """Read an entry of a policy's `from`."""
    if text == ALL_CLIENTS:
        return From(ALL_CLIENTS)
    match = _FROM_FORM.fullmatch(text)
    if match is None:
        raise FieldError("TG031", "write client:NAME, group:NAME or all-clients")
    return From(match[1], match[2])


def test_source(text: str) -> From:
    """Read an access test's `from`."""
    match = _FROM_FORM.fullmatch(text)
    if match is None:
        raise FieldError("TG031", "write client:NAME, or group:NAME for each of its members")
    return From(match[1], match[2])


def destination(text: str) -> To:
    """Read an entry of a policy's `to`."""
    if text.startswith(("client:", "group:")) or text == ALL_CLIENTS:
        raise FieldError(
            "TG032", "client-to-client access is not in this version; name a resource or a prefix"
        )
    match = _RESOURCE_FORM.fullmatch(text)
    if match is not None:
        return To(resource=match[1])
    if "/" not in text or text.startswith("resource:"):
        raise FieldError("TG031", "write resource:NAME or a prefix such as 10.20.0.0/24")
    return To(prefix=network(text))


def test_destination(text: str) -> To:
    """Read an access test's `to`: an address is the prefix that holds it alone."""
    if "/" in text or text.startswith(("resource:", "client:", "group:")) or text == ALL_CLIENTS:
        return destination(text)
    try:
        found = address(text)
    except FieldError as error:
        raise FieldError(
            error.code, "write resource:NAME, a prefix such as 10.20.5.0/28, or one address"
        ) from None
    return To(prefix=network(f"{found}/{found.max_prefixlen}"))
