"""Who is at the other end: the connection's address, or what a trusted proxy says of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.requests import HTTPConnection

UNKNOWN = "?"


class Peers:
    """Reads addresses; `proxies` are the addresses and networks whose word counts."""

    def __init__(self, proxies: Sequence[str]) -> None:
        self._proxies = [ipaddress.ip_network(one) for one in proxies]

    def address(self, connection: HTTPConnection) -> str:
        """Return who asks: the last address of X-Forwarded-For that no trusted proxy has, or the connection's own.

        Each proxy appends whom it heard from, so everything before that is the asker's own invention.
        """
        address = connection.client.host if connection.client else UNKNOWN
        told = ",".join(connection.headers.getlist("x-forwarded-for")).split(",")
        while told and self._is_proxy(address):
            before = told.pop().strip()
            if not _is_address(before):
                break
            address = before
        return address

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._proxies)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
