"""Receivers that are no doubles of ours: ClickHouse, and one that is made of the OTLP definitions; both on loopback."""

from __future__ import annotations

import base64
import contextlib
import datetime
import gzip
import http.server
import ipaddress
import json
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from unit.agents.kit import until

USER, PASSWORD = "tidegate", "p4ss-of-the-test"
_CONFIG = """<yandex>
  <logger><level>warning</level><console>1</console></logger>
  <listen_host>127.0.0.1</listen_host><http_port>{http}</http_port><tcp_port>{tcp}</tcp_port>
  <path>{home}/data/</path><tmp_path>{home}/tmp/</tmp_path>
  <users_config>users.xml</users_config>
  <default_profile>default</default_profile><default_database>default</default_database>
  <mark_cache_size>67108864</mark_cache_size>
</yandex>
"""
_USERS = """<yandex>
  <profiles><default/></profiles><quotas><default/></quotas>
  <users><{user}>
    <password>{password}</password><networks><ip>127.0.0.1</ip></networks>
    <profile>default</profile><quota>default</quota>
  </{user}></users>
</yandex>
"""


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


class ClickHouse:
    """A ClickHouse server with an empty database, which knows one user by a password."""

    def __init__(self, home: Path, program: str, port: int | None = None) -> None:
        """With a `home` that was another's, who is no more, it has that one's data."""
        self.port = port or _free_port()
        self.basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (home / "config.xml").write_text(_CONFIG.format(http=self.port, tcp=_free_port(), home=home))
        (home / "users.xml").write_text(_USERS.format(user=USER, password=PASSWORD))
        with (home / "log").open("wb") as log:
            command = [program, f"--config-file={home / 'config.xml'}"]
            self._process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log)
        try:
            until("ClickHouse answers", self._answers, 60)
        except AssertionError:
            self.close()
            raise AssertionError((home / "log").read_text()) from None

    def _answers(self) -> bool:
        assert self._process.poll() is None, "ClickHouse has ended"
        with contextlib.suppress(OSError):
            return self.ask("SELECT 1") == [{"1": 1}]
        return False

    def at(self, url: str) -> str:
        """Return a URL of the documents as one of this server."""
        parts = urllib.parse.urlsplit(url)
        return parts._replace(scheme="http", netloc=f"127.0.0.1:{self.port}").geturl()

    def do(self, statement: str) -> str:
        request = urllib.request.Request(self.at("http://x/"), statement.encode())
        request.add_header("Authorization", self.basic)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: bytes = answer.read()
            return found.decode()

    def ask(self, query: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.do(f"{query} FORMAT JSONEachRow").splitlines()]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def clickhouse() -> str | None:
    """Return the program, None where it is not installed."""
    return shutil.which("clickhouse-server")


# OTLP ---------------------------------------------------------------------------------------------------------


class OtlpReceiver:
    """An OTLP/HTTP receiver: takes ExportLogsServiceRequest and answers with ExportLogsServiceResponse."""

    def __init__(self, tls: ssl.SSLContext | None = None, rejects: int = 0) -> None:
        self.requests: list[ExportLogsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.peers: list[Any] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/logs"
                assert self.headers["content-type"] == "application/x-protobuf"
                assert self.headers["content-encoding"] == "gzip"
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                if isinstance(self.connection, ssl.SSLSocket):
                    outer.peers.append(self.connection.getpeercert())
                outer.requests.append(ExportLogsServiceRequest.FromString(gzip.decompress(body)))
                answer = ExportLogsServiceResponse()
                if rejects:
                    answer.partial_success.rejected_log_records = rejects
                    answer.partial_success.error_message = "too old"
                said = answer.SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def get_request(self) -> Any:
                connection, address = super().get_request()
                if tls is None:
                    return connection, address
                connection.settimeout(5)
                return tls.wrap_socket(connection, server_side=True), address

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/v1/logs"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def otlp_receiver(**options: Any) -> Iterator[OtlpReceiver]:
    made = OtlpReceiver(**options)
    try:
        yield made
    finally:
        made.close()


# Certificates -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Papers:
    """Certificate and key of somebody, as files."""

    certificate: Path
    key: Path


class Authority:
    """Certifies for a day."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = directory / f"{name}.pem"
        own = self._certify(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.certificate.write_bytes(own)

    def certify(self, name: str) -> Papers:
        """Return papers for the name, as a server on 127.0.0.1 and as a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        papers = Papers(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        papers.certificate.write_bytes(self._certify(subject, key, address))
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        papers.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        papers.key.chmod(0o600)
        return papers

    def _certify(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)
