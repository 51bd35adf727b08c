"""The written forms of single values, read once more: prefixes, ports, times, keys, endpoints.

Nothing here is shared with the compiler's own readers; a form that is not certain is refused.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import datetime
import hashlib
import ipaddress
import re

from tidegate_compiler.verify.space import Span

Net = ipaddress.IPv4Network | ipaddress.IPv6Network
Endpoint = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]

PORTS = 1 << 16
_EVERY_SERVICE = Span(0, 256 * PORTS)
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_ICMP = {4: 1, 6: 58}
_SERVICE = re.compile(r"(?P<name>tcp|udp|sctp|proto)/(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?")
_FORMATS = {10: "%Y-%m-%d", 17: "%Y-%m-%dT%H:%MZ", 20: "%Y-%m-%dT%H:%M:%SZ"}


class RefusalError(ValueError):
    """Something that the proof does not understand; one line."""


def net(text: str) -> Net:
    """Read a prefix without host bits."""
    if not re.fullmatch(r"[0-9a-fA-F.:]+/[0-9]{1,3}", text):
        raise RefusalError(f"{text[:60]!a} is not a prefix")
    try:
        return ipaddress.ip_network(text, strict=True)
    except ValueError:
        raise RefusalError(f"{text[:60]!a} is not a prefix") from None


def span(prefix: Net) -> Span:
    """Return a prefix's addresses as numbers."""
    return Span(int(prefix.network_address), int(prefix.broadcast_address) + 1)


def service(text: str, family: int) -> Span:
    """Read a protocol with its ports for address family 4 or 6."""
    if text == "any":
        return _EVERY_SERVICE
    if text == "icmp":
        return Span(_ICMP[family] * PORTS, (_ICMP[family] + 1) * PORTS)
    match = _SERVICE.fullmatch(text)
    if match is not None:
        first = int(match["first"])
        if match["name"] == "proto":
            if first <= 255 and match["last"] is None:
                return Span(first * PORTS, (first + 1) * PORTS)
        else:
            last = int(match["last"] or first)
            if first <= last < PORTS:
                base = _NUMBERS[match["name"]] * PORTS
                return Span(base + first, base + last + 1)
    raise RefusalError(f"{text[:60]!a} is not a protocol with ports")


def instant(text: str) -> int:
    """Read a date, which means 00:00Z, or a UTC time: its Unix second."""
    try:
        moment = datetime.datetime.strptime(text, _FORMATS[len(text)]).replace(tzinfo=datetime.UTC)
    except (KeyError, ValueError):
        raise RefusalError(f"{text[:60]!a} is not a point in time") from None
    second = calendar.timegm(moment.utctimetuple())
    if second < 0:
        raise RefusalError(f"{text[:60]!a} is before 1970")
    return second


def key(text: str) -> bytes:
    """Read a public key: its 32 raw bytes."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raw = b""
    if len(raw) != 32 or base64.b64encode(raw).decode() != text:
        raise RefusalError("not a public key")
    return raw


def client_id(raw: bytes) -> str:
    """Return the first 16 bytes of BLAKE2s-256 over a raw key, as hex digits."""
    return hashlib.blake2s(raw, digest_size=32).hexdigest()[:32]


def endpoint(text: str) -> Endpoint:
    """Read IP:port or [IPv6]:port."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[0-9.]+):([0-9]{1,5})", text)
    try:
        if match is None:
            raise ValueError
        bracketed, port = match[1].startswith("["), int(match[2])
        address = ipaddress.ip_address(match[1].strip("[]"))
        if bracketed != (address.version == 6) or not 1 <= port < PORTS:
            raise ValueError
    except ValueError:
        raise RefusalError(f"{text[:60]!a} is not an endpoint") from None
    return address, port
