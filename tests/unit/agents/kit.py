"""Builders for the agents' tests: packets written byte by byte, signed releases, records, and hostile log endpoints."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import ipaddress
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tidegate_agents.bundles import Identity
from tidegate_agents.events.ring import HEADER_BYTES, Ring
from tidegate_schema import event, jsonfile, release
from tidegate_schema.keys import client_id

NOW = 1_800_000_000
TCP, UDP, SCTP, ICMP, ICMP6 = 6, 17, 132, 1, 58


def key(label: str) -> str:
    """Return a valid public key that depends on the label alone."""
    return base64.b64encode(hashlib.sha256(label.encode()).digest()).decode()


VNET = bytes(10)
"""The virtio_net_hdr in front of a packet that is no super-packet."""


class Batch:
    """What a producer does with a ring: it puts records, and publishes them at once."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._made = 0

    def put(self, monotonic_ns: int, wall_ns: int, *rest: Any) -> int | None:
        """Write a record, the fields of Event after `seq`; returns its sequence number, None when it does not fit."""
        if not self._made:
            self._claimed = self._ring.claim()
        file, first, room, mask, seq = self._claimed
        number = self._made
        self._made += 1
        if number >= room:
            return None
        *flow, flags, known, version, _, packets, length, _, _, _ = rest
        record = event.LAYOUT.pack(0, 0, 0, *flow, 0, known, version, *bytes(6))
        at = HEADER_BYTES + (first + number & mask) * event.RECORD_BYTES
        same, known, times = record[24:89], record[90:92], event.TIMES.pack(monotonic_ns, wall_ns)
        event.STAMPED.pack_into(file, at, seq + number, times, same, flags, known, packets, length)
        return seq + number

    def publish(self) -> None:
        self._ring.publish(self._made)
        self._made = 0


def id_of(label: str) -> str:
    return client_id(base64.b64decode(key(label)))


def unpacked(records: bytes) -> list[event.Event]:
    """Return the events of records that stand one after the other."""
    starts = range(0, len(records), event.RECORD_BYTES)
    return [event.unpack(records[at : at + event.RECORD_BYTES]) for at in starts]


def raw(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


# Packets: a builder of its own, which shares nothing with the parser -----------------------------------------------


def tcp(source: int = 40000, destination: int = 443, flags: int = 2, body: bytes = b"") -> bytes:
    return struct.pack(">HHIIBBHHH", source, destination, 1, 0, 5 << 4, flags, 1024, 0, 0) + body


def udp(source: int = 40000, destination: int = 53, body: bytes = b"") -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + len(body), 0) + body


def sctp(source: int = 40000, destination: int = 9) -> bytes:
    return struct.pack(">HHII", source, destination, 0, 0)


def icmp(kind: int = 8, body: bytes = b"", code: int = 0) -> bytes:
    return struct.pack(">BBHI", kind, code, 0, 0) + body


def ip4(
    source: str,
    destination: str,
    protocol: int,
    body: bytes,
    *,
    options: bytes = b"",
    fragment: tuple[int, bool] = (0, False),
    number: int = 7,
    length: int | None = None,
) -> bytes:
    """Return an IPv4 packet; `fragment` is the offset in bytes and whether more follow."""
    options = options.ljust(-(-len(options) // 4) * 4, b"\0")
    header = 20 + len(options)
    offset, more = fragment
    total = header + len(body) if length is None else length
    return (
        struct.pack(
            ">BBHHHBBH4s4s",
            *(0x40 | header // 4, 0, total, number, offset // 8 | (0x2000 if more else 0), 64, protocol, 0),
            *(raw(source), raw(destination)),
        )
        + options
        + body
    )


def ip6(
    source: str,
    destination: str,
    protocol: int,
    body: bytes,
    *extensions: tuple[int, bytes],
    length: int | None = None,
) -> bytes:
    """Return an IPv6 packet; an extension is its own number and its bytes, whose first one is filled in here."""
    numbers = [*(number for number, _ in extensions), protocol]
    content = b"".join(
        bytes([after]) + data[1:] for (_, data), after in zip(extensions, numbers[1:], strict=True)
    )
    content += body
    size = len(content) if length is None else length
    return struct.pack(">IHBB16s16s", 6 << 28, size, numbers[0], 64, raw(source), raw(destination)) + content


def options6(number: int = 0, units: int = 0) -> tuple[int, bytes]:
    """Return a hop-by-hop (0) or destination options (60) header of 8 + 8 * units bytes."""
    return number, bytes([0, units]) + b"\x01\x04" + bytes(4) + bytes(8 * units)


def routing6(segments_left: int = 0) -> tuple[int, bytes]:
    return 43, bytes([0, 0, 0, segments_left]) + bytes(4)


def auth6(units: int = 4) -> tuple[int, bytes]:
    return 51, bytes([0, units]) + bytes(4 * units + 6)


def fragment6(offset: int, more: bool, number: int = 7) -> tuple[int, bytes]:
    return 44, struct.pack(">BBHI", 0, 0, offset | more, number)


# Policies -----------------------------------------------------------------------------------------------------


def policy(**rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a policy document: for each client by its label, its rules (`to`, `ports`, and more)."""
    every: list[dict[str, Any]] = []
    sets, clients = [], {}
    for label, wanted in rules.items():
        clients[id_of(label)] = len(sets)
        sets.append([len(every) + n for n in range(len(wanted))])
        every += [{"policy": f"{label}-{n}", "action": "allow"} | rule for n, rule in enumerate(wanted)]
    return {"format": 1, "rules": every, "sets": sets, "clients": clients}


def peers(**addresses: list[str]) -> dict[str, Any]:
    """Return a peers document: each client by its label, with its addresses."""
    entries = [
        {"client_id": id_of(label), "public_key": key(label), "allowed_ips": prefixes}
        for label, prefixes in addresses.items()
    ]
    return {"format": 1, "peers": sorted(entries, key=lambda entry: str(entry["client_id"]))}


# Releases -----------------------------------------------------------------------------------------------------

PRIVATE, PUBLIC = release.generate_key()
SIGNER = release.load_signer(PRIVATE)
CLIENT = Identity("example", "client", "alice-laptop", [release.load_public_key(PUBLIC)])
GATEWAY = Identity("example", "gateway", "fra1", [release.load_public_key(PUBLIC)])
CONF = (
    f"[Interface]\nAddress = 10.64.0.11/32\n\n[Peer]\nPublicKey = {key('fra1')}\n"
    "Endpoint = 203.0.113.10:51820\nAllowedIPs = 10.20.0.0/16\n"
).encode()
PEERS = jsonfile.canonical(peers(alice=["10.64.0.11/32"]))


def statement(identity: Identity, files: dict[str, bytes], /, **changes: Any) -> release.Release:
    entries = {name: release.FileEntry.of(data) for name, data in files.items()}
    fields: dict[str, Any] = {
        "fleet": identity.fleet,
        "kind": identity.kind,
        "host": identity.host,
        "serial": 5,
        "not_after": NOW + 1000,
        "source": "test",
        "files": entries,
    }
    return release.Release(**fields | changes)


def publish(
    directory: Path, identity: Identity, files: dict[str, bytes] | None = None, /, **changes: Any
) -> Path:
    """Write a signed release below a host's directory, point `current` at it, and return its folder."""
    if files is None:
        files = {"wg0.conf": CONF} if identity.kind == "client" else {"peers.json": PEERS}
    signer = changes.pop("signer", SIGNER)
    made = statement(identity, files, **changes)
    folder = directory / "releases" / release.files_digest(made.files)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "release.json").write_bytes(release.sign(made, signer))
    link(directory, f"releases/{folder.name}")
    return folder


def link(directory: Path, target: str) -> None:
    """Point `current` somewhere, in one step."""
    aside = directory / ".current"
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    aside.replace(directory / "current")


# Events -------------------------------------------------------------------------------------------------------


def fields(number: int = 0, **changes: Any) -> tuple[Any, ...]:
    """Return the fields of an event after its sequence number; `number` is recognisable in the length."""
    one = event.Event(
        *(
            0,
            6,
            NOW * 10**9,
            3,
            0,
            b"\xab" * 16,
            event.mapped(raw("10.64.0.11")),
            event.mapped(raw("10.20.0.80")),
        ),
        *(40000, 443, event.Kind.PACKET, 1, 1, 1, TCP, 2, 3, event.VERSION, 0, 1, number, 0, 0, 0),
    )
    return one._replace(**changes)[1:]


# Waiting ------------------------------------------------------------------------------------------------------


def until(what: str, true: Callable[[], Any], seconds: float = 10) -> Any:
    """Poll until `true()` is truthy and return that; AssertionError naming `what` after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = true()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


# A log endpoint -----------------------------------------------------------------------------------------------

Answer = Callable[[socket.socket, threading.Event], None]
"""Answers one request on a connection; the event is set when the test is over."""


class LogServer:
    """A log endpoint on loopback that keeps what it is sent and answers each request as told."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.ended = threading.Event()
        self._answers = list(answers)
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    outer._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/events"

    def _serve(self, connection: socket.socket) -> None:
        file = connection.makefile("rb")
        while line := file.readline():
            headers: dict[str, str] = {}
            while (header := file.readline().decode("latin-1").strip()) != "":
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            body = file.read(int(headers["content-length"]))
            self.requests.append((line.decode().strip(), headers, body))
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            answer(connection, self.ended)

    def bodies(self) -> list[bytes]:
        """Return every body received, in order, as it was before it was compressed."""
        return [
            gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            for _, headers, body in self.requests
        ]

    def lines(self) -> list[dict[str, Any]]:
        """Return every event received, in order."""
        return [jsonfile.parse(line) for body in self.bodies() for line in body.splitlines()]

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def status(code: int, headers: str = "", body: bytes = b"") -> Answer:
    """Answer with a status, and go on with the connection."""
    length = "" if code == 204 else f"Content-Length: {len(body)}\r\n"

    def answer(connection: socket.socket, _ended: threading.Event) -> None:
        connection.sendall(f"HTTP/1.1 {code} X\r\n{length}{headers}\r\n".encode() + body)

    return answer


def raw_bytes(data: bytes) -> Answer:
    """Answer with these bytes and end the connection."""

    def answer(connection: socket.socket, _ended: threading.Event) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_RDWR)

    return answer


def silence(_connection: socket.socket, ended: threading.Event) -> None:
    """Never answer."""
    ended.wait()


def drip(start: bytes, piece: bytes, pause: float) -> Answer:
    """Answer with `start`, then with `piece` again and again."""

    def answer(connection: socket.socket, ended: threading.Event) -> None:
        connection.sendall(start)
        while not ended.wait(pause):
            connection.sendall(piece)

    return answer


@contextlib.contextmanager
def log_server(*answers: Answer) -> Iterator[LogServer]:
    made = LogServer(*answers)
    try:
        yield made
    finally:
        made.close()


def descriptors() -> set[str]:
    """Return this process's open descriptors, with what they are of."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(f"{entry.name} {entry.readlink()}")
    return found


def privileges(pid: int) -> dict[str, set[str]]:
    """Return what /proc says of a process's users, groups, capabilities and whether it may gain new ones."""
    lines = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    fields = {name: set(value.split()) for name, value in lines}
    names = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
    return {name: fields[name] for name in names}


def unprivileged(user: int) -> dict[str, set[str]]:
    """Return the privileges of a process that has none, where root may make one."""
    nothing = {name: {"0" * 16} for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    return {"Uid": {str(user)}, "Gid": {str(user)}, "Groups": set(), **nothing, "NoNewPrivs": {"1"}}
