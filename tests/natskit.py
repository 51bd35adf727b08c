"""Real nats-servers for tests: their certificates, their configuration, one alone or a cluster of three."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tidegate_compiler import natsconf
from tidegate_schema.jetstream.link import Address, Papers

SECONDS = 30.0


def until(true: Callable[[], object], seconds: float = SECONDS, what: str = "it") -> None:
    """Poll until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} has not come about within {seconds:.0f} s"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Authority:
    """A CA whose certificates are files in a directory."""

    def __init__(self, place: Path, name: str = "ca") -> None:
        self._place = place
        place.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {name}")])
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = place / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=10))
        )

    def issue(self, *names: str) -> tuple[Path, Path]:
        """Return certificate and key of these DNS names, or 127.0.0.1."""
        import ipaddress

        key = ec.generate_private_key(ec.SECP256R1())
        alternative: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address(name))
            if name[0].isdigit() and name.count(".") == 3
            else x509.DNSName(name)
            for name in names
        ]
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tidegate")]), key)
            .add_extension(x509.SubjectAlternativeName(alternative), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        cert, private = (self._place / f"{names[0]}.{end}" for end in ("crt", "key"))
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.touch(0o600)
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert, private

    def papers(self, name: str) -> Papers:
        cert, key = self._place / f"{name}.crt", self._place / f"{name}.key"
        if not cert.exists():
            self.issue(name)
        return Papers(self.file, cert, key)


@dataclass
class Server:
    """A nats-server: its place, its port, its process when it runs."""

    place: Path
    name: str
    port: int
    config: str
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def log(self) -> str:
        return (self.place / "log").read_text() if (self.place / "log").exists() else ""

    def start(self) -> Server:
        self.place.mkdir(parents=True, exist_ok=True)
        path = self.place / "nats.conf"
        path.write_text(self.config)
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["nats-server", "--config", path],
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "2"},
            )
        process = self.process
        until(lambda: self.is_up() or process.poll() is not None, what=f"{self.name} up")
        assert process.poll() is None, self.log
        return self

    def is_up(self) -> bool:
        with socket.socket() as one:
            one.settimeout(1)
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    @property
    def memory(self) -> float:
        """Resident memory, MiB."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def tls_block(authority: Authority, *, clients: bool = True) -> str:
    cert, key = authority.issue("127.0.0.1", "localhost")
    mapped = "verify_and_map: true" if clients else "verify: true"
    return f'{{ cert_file: "{cert}", key_file: "{key}", ca_file: "{authority.file}", {mapped} }}'


@dataclass
class Fleet:
    """Servers, and who may use them."""

    servers: list[Server]
    authority: Authority
    fleet: str
    tls: bool = True

    @property
    def address(self) -> Address:
        return Address(tuple(f"127.0.0.1:{server.port}" for server in self.servers), self.tls)

    def publisher(self) -> Papers:
        return self.authority.papers(natsconf.publisher(self.fleet))

    def host(self, kind: str, host: str) -> Papers:
        return self.authority.papers(natsconf.user(self.fleet, kind, host))

    def allow(self, hosts: Iterable[tuple[str, str]]) -> None:
        """Let these hosts in, now."""
        for server in self.servers:
            (server.place / "accounts.conf").write_text(natsconf.accounts(self.fleet, hosts))
            if server.process is not None:
                server.process.send_signal(signal.SIGHUP)


def configuration(place: Path, name: str, port: int, tls: str, more: str = "") -> str:
    return f"""
server_name: {name}
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{place}/store", max_mem: 16M, max_file: 512M }}
tls {tls}
include accounts.conf
{more}
"""


@contextmanager
def one(place: Path, fleet: str, hosts: Iterable[tuple[str, str]], more: str = "") -> Iterator[Fleet]:
    """One server with TLS and these hosts' permissions."""
    authority = Authority(place / "pki")
    port = free_port()
    server = Server(
        place / "n1", "n1", port, configuration(place / "n1", "n1", port, tls_block(authority), more)
    )
    server.place.mkdir(parents=True)
    found = Fleet([server], authority, fleet)
    found.allow(hosts)
    try:
        server.start()
        yield found
    finally:
        server.kill()
        shutil.rmtree(place / "n1" / "store", ignore_errors=True)


@contextmanager
def plain(
    place: Path, fleet: str, jetstream: str = "max_mem: 16M, max_file: 512M", more: str = ""
) -> Iterator[Fleet]:
    """One server without TLS or users; with `jetstream` "" also without JetStream."""
    port = free_port()
    enabled = f'jetstream {{ store_dir: "{place}/plain/store", {jetstream} }}' if jetstream else ""
    config = f'server_name: plain\nlisten: "127.0.0.1:{port}"\n{enabled}\n{more}\n'
    server = Server(place / "plain", "plain", port, config)
    try:
        server.start()
        yield Fleet([server], Authority(place / "pki"), fleet, tls=False)
    finally:
        server.kill()
        shutil.rmtree(place / "plain" / "store", ignore_errors=True)


@contextmanager
def cluster(place: Path, fleet: str, hosts: Iterable[tuple[str, str]]) -> Iterator[Fleet]:
    """Three servers, TLS between them as well."""
    authority = Authority(place / "pki")
    tls = tls_block(authority)
    between = tls_block(authority, clients=False)
    clients, routes = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
    servers = []
    for number in range(3):
        name, home = f"n{number + 1}", place / f"n{number + 1}"
        others = ", ".join(f'"tls://127.0.0.1:{routes[other]}"' for other in range(3) if other != number)
        more = f'cluster {{ name: c, listen: "127.0.0.1:{routes[number]}", routes: [{others}], tls {between} }}\n'
        home.mkdir(parents=True)
        servers.append(
            Server(home, name, clients[number], configuration(home, name, clients[number], tls, more))
        )
    found = Fleet(servers, authority, fleet)
    found.allow(hosts)
    try:
        for server in servers:
            server.start()
        yield found
    finally:
        for server in servers:
            server.kill()
            shutil.rmtree(server.place / "store", ignore_errors=True)
