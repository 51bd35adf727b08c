"""A flow recorder on the connection table of a sandbox, and traffic over its loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

from netns.lab import prepare_sandbox, sh, until
from tidegate_agents.events.ring import Ring
from tidegate_agents.gateway import connections
from tidegate_agents.gateway.accounting import Accounting
from tidegate_agents.gateway.flowrecorder import FlowRecorder
from tidegate_agents.gateway.netlink import ACK, REQUEST, message, open_netfilter
from tidegate_agents.gateway.ruleset import APPROVED
from tidegate_agents.host import Places
from tidegate_schema import event
from tidegate_schema.event import Event, Kind
from tidegate_schema.policy import PolicyTable

ALICE = "aa" * 16
SERVER = "127.0.0.1"
SETTINGS = {
    "logging_enabled": True,
    "log_granularity": "flow",
    "flow_update_interval": 0,
    "ring_records": 65536,
}
# What a gateway's rules do to connections that the forwarder has allowed; port 7 is nobody's of ours.
MARK = f"""
table inet marks {{
  chain output {{
    type filter hook output priority filter
    udp dport != 7 ct direction original ct mark set {APPROVED:#x}
    udp dport 7 ct mark set 0x7
  }}
}}
"""


def address(number: int = 1) -> str:
    """Return one of the clients' addresses; all of 127.0.0.0/8 is this host's."""
    return f"127.64.{number >> 8}.{number & 0xFF}"


def send(packets: int = 1, *, source: str = address(), port: int = 9, source_port: int = 5000) -> None:
    """Send datagrams of 28 + 100 bytes in one flow."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sender.bind((source, source_port))
        for _ in range(packets):
            with contextlib.suppress(ConnectionRefusedError):
                sender.sendto(bytes(100), (SERVER, port))


def flush() -> None:
    """End every connection, as an administrator may."""
    with open_netfilter() as netlink:
        netlink.send(message(connections.DELETE, REQUEST | ACK, 1, socket.AF_UNSPEC, b""))
        netlink.recv(1 << 16)


class Recorded:
    """A recorder of which two addresses are alice's, and its records."""

    def __init__(self, run: Path, room: int = 8 << 20) -> None:
        self.places = Places("gateway", run_directory=run)
        self.places.run.mkdir(parents=True, exist_ok=True)
        self.recorder = FlowRecorder(self.places, room)
        clients = {socket.inet_aton(address(number)): ALICE for number in (1, 2)}
        self.recorder.judged(1, False, clients, PolicyTable(None), time.time(), set())

    def keep(self, **settings: Any) -> None:
        self.recorder.keep(SETTINGS | settings)
        if (SETTINGS | settings)["logging_enabled"]:
            until("flows are recorded", lambda: self.recorder.status()["recording"])

    def thread_seconds(self) -> float:
        """Return the processor time of the recorder's thread."""
        (thread,) = (one for one in threading.enumerate() if one.name == "flows")
        assert thread.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))

    def records(self, *kinds: Kind) -> list[Event]:
        with contextlib.closing(Ring(self.recorder.ring)) as made:
            data = made.peek(made.capacity)
        found = [
            event.unpack(data[at : at + event.RECORD_BYTES]) for at in range(0, len(data), event.RECORD_BYTES)
        ]
        return [one for one in found if one.kind in (kinds or tuple(Kind))]

    def closed(self, count: int) -> list[Event]:
        """Wait for so many closes, and return all."""
        return until(
            f"{count} closes", lambda: (found := self.records(Kind.FLOW_CLOSE))[count - 1 :] and found
        )  # type: ignore[no-any-return]


def prepare() -> None:
    """Have the sandbox count connections, and mark them as a gateway's rules would."""
    prepare_sandbox()
    switches = Accounting()
    switches.look(None)
    switches.enable()
    sh("nft", "-f", "-", text=MARK)
