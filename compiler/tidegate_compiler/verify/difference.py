"""What the proof found wrong: one line each, with a packet as witness where it is about access."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from typing import Any

_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}


@dataclass(frozen=True)
class Point:
    """One packet: a client's, to an address, with a protocol and a port (0 without), at a Unix second."""

    client: str
    destination: ipaddress.IPv4Address | ipaddress.IPv6Address
    protocol: int
    port: int
    at: int

    def __str__(self) -> str:
        name = _NAMES.get(self.protocol)
        service = f"proto/{self.protocol}" if name is None else f"{name}/{self.port}"
        return f"{self.client} -> {self.destination} {service} at {self.moment}"

    @property
    def moment(self) -> str:
        """Return the time as `2027-06-30T00:00:00Z`."""
        return datetime.datetime.fromtimestamp(self.at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Difference:
    """The file of the output, a stable name for what is wrong, and a one-line message.

    `allows` says which side allows the witness: "bundle" or "inventory".
    """

    file: str
    what: str
    message: str
    witness: Point | None = None
    allows: str | None = None

    def __str__(self) -> str:
        return f"{show(self.file)}: {self.what}: {self.message}"

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        point = self.witness
        return {
            "file": show(self.file),
            "what": self.what,
            "message": self.message,
            "allows": self.allows,
            "witness": point
            and {
                "client": point.client,
                "destination": str(point.destination),
                "protocol": point.protocol,
                "port": point.port,
                "at": point.moment,
            },
        }


def show(value: object) -> str:
    """Return foreign text fit for a terminal: one line, ASCII, short."""
    text = ascii(str(value))[1:-1]
    return text if len(text) <= 120 else text[:117] + "..."
