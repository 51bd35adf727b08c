"""The server as a process: it starts or says in one line why not, tells its manager, drains, and leaks no token."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tidegate_control import settings
from tidegate_control.access.tokens import Tokens
from tidegate_control.serve import bound
from tidegate_control.tls import Tls, TlsError
from unit.agents.receivers import Authority, Papers
from unit.control.door.test_cli import repository

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    repository(tmp_path)
    found = tmp_path / "control.yaml"
    found.write_text("repository: inventory.git\nstate: state\nlisten: 127.0.0.1:0\n")
    return found


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Authority(tmp_path, "authority").certify("server")


class Running:
    """A server, and what it has said."""

    def __init__(self, path: Path, **environment: str) -> None:
        self.log = path.parent / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tidegate_schema", "control", "serve", "--settings", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment, "GIT_CONFIG_GLOBAL": os.devnull},
            )
        found = self.until(r"listening on https?://\S+:(\d+)\n")
        self.port = int(found[1])

    def until(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log.read_text())
            if found is not None:
                return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} not in {self.log.read_text()!r}")

    def stop(self) -> str:
        """End it as systemd does; returns all that it has said."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()
        return self.log.read_text()

    def get(self, path: str, **fields: str) -> int:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path, headers=fields)
            return connection.getresponse().status


@contextlib.contextmanager
def running(path: Path, **environment: str) -> Iterator[Running]:
    server = Running(path, **environment)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def refused(tidegate: Call, path: Path) -> str:
    status, out, err = tidegate("control", "serve", "--settings", path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    return err


def test_it_serves_tells_its_manager_drains_and_leaks_no_token(path: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    _, token = Tokens(tmp_path / "state").add("alice", ["reader"], seconds=600)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "manager"))
        manager.settimeout(30)
        with running(path, NOTIFY_SOCKET=str(tmp_path / "manager")) as server:
            assert manager.recv(1000) == b"READY=1\nWATCHDOG=1"
            assert server.get("/login") == 200
            assert server.get("/nowhere", Authorization=f"Bearer {token}") == 404
            assert server.get("/nowhere?token=secret", Authorization=f"Bearer {token}x") == 401
            # A form that is under way when it is told to end.
            slow = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            slow.sendall(
                b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 7\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n\r\n"
            )
            assert slow.recv(1000).startswith(b"HTTP/1.1 100 ")  # so it is being answered
            server.process.send_signal(signal.SIGTERM)
            while True:
                try:
                    socket.create_connection(("127.0.0.1", server.port), timeout=30).close()
                except ConnectionRefusedError:
                    break
                time.sleep(0.02)
            slow.sendall(b"token=x")
            assert slow.recv(1000).startswith(b"HTTP/1.1 401 ")
            slow.close()
            said = server.stop()
    assert said.count("listening on ") == 1
    assert "127.0.0.1 alice GET /nowhere 404 " in said
    assert token not in said
    assert token[13:] not in said
    assert "secret" not in said
    assert "Traceback" not in said


def test_a_token_made_or_ended_while_it_runs_counts_at_once(path: Path, tidegate: Call) -> None:
    with running(path) as server:
        token = tidegate("control", "token", "add", "bob", "--scope", "reader", "--settings", path)[1].strip()
        assert server.get("/nowhere", Authorization=f"Bearer {token}") == 404
        tidegate("control", "token", "revoke", "bob", "--settings", path)
        assert server.get("/nowhere", Authorization=f"Bearer {token}") == 401


def test_it_speaks_tls_and_takes_up_a_new_certificate(path: Path, papers: Papers, tmp_path: Path) -> None:
    path.write_text(path.read_text() + f"tls_cert: {papers.certificate}\ntls_key: {papers.key}\n")
    context = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))

    def shown() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            assert secured.version() in ("TLSv1.2", "TLSv1.3")
            secured.sendall(b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            found = b""
            while data := secured.recv(65536):
                found += data
            assert found.startswith(b"HTTP/1.1 200 ")
            assert b"strict-transport-security: max-age=" in found
            return secured.getpeercert(binary_form=True) or b""

    with running(path) as server:
        first = shown()
        assert shown() == first
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain:
            plain.sendall(b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"200" not in plain.recv(1000)
        papers.certificate.write_text("broken")
        server.until("the certificate in use stays: ")
        assert shown() == first
        renewed = Authority(tmp_path, "authority").certify("server")
        assert renewed == papers
        server.until("took up the certificate ")
        context = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
        assert shown() != first


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_no_version_of_tls_before_1_2(papers: Papers, version: ssl.TLSVersion) -> None:
    tls = Tls(papers.certificate, papers.key)
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2 > version


def test_a_key_that_is_not_usable_is_told_in_one_line(
    path: Path, papers: Papers, tmp_path: Path, tidegate: Call
) -> None:
    other = Authority(tmp_path, "other").certify("another")
    encrypted = tmp_path / "encrypted.key"
    loaded = serialization.load_pem_private_key(papers.key.read_bytes(), None)
    encrypted.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    encrypted.chmod(0o600)
    open_ = tmp_path / "open.key"
    open_.write_bytes(papers.key.read_bytes())
    open_.chmod(0o644)
    text = path.read_text()
    for key, said in (
        (tmp_path / "none.key", "none.key: No such file"),
        (tmp_path, "not a regular file"),
        (other.key, "key values mismatch"),
        (encrypted, "it is encrypted"),
        (open_, f"others may read it; chmod 600 {open_}"),
    ):
        path.write_text(f"{text}tls_cert: {papers.certificate}\ntls_key: {key}\n")
        assert said in refused(tidegate, path)
        with pytest.raises(TlsError):
            Tls(papers.certificate, key)


def test_a_port_in_use_is_told_in_one_line(path: Path, tidegate: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        path.write_text(path.read_text().replace("127.0.0.1:0", listen))
        assert refused(tidegate, path) == (
            f"tidegate: {listen}: another program listens there; choose another port (listen)\n"
        )


def test_an_address_of_another_machine_is_told_in_one_line(path: Path, tidegate: Call) -> None:
    path.write_text(path.read_text().replace("127.0.0.1:0", "192.0.2.1:8080\nplain_http: allow"))
    assert "this machine has no such address" in refused(tidegate, path)


def test_a_repository_that_is_none_is_told_in_one_line(path: Path, tidegate: Call, tmp_path: Path) -> None:
    text = path.read_text()
    for repository_, branch in (
        ("none", "main"),
        ("state", "main"),
        ("work", "main"),
        ("inventory.git", "none"),
    ):
        path.write_text(text.replace("inventory.git", f"{repository_}\nbranch: {branch}"))
        assert str(tmp_path / repository_) in refused(tidegate, path)


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize("place", ["inventroy", "inventory/none", "inventory/overlay.yaml"])
def test_a_directory_that_the_branch_has_not_is_told_in_one_line(
    path: Path, tidegate: Call, command: str, place: str
) -> None:
    path.write_text(path.read_text() + f"\ninventory: {place}\n")
    code, out, err = tidegate("control", command, "--settings", str(path))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"there is no directory {place} on main; commit one there" in err


def test_two_servers_do_not_share_a_state_and_an_open_one_is_warned_of(path: Path, tidegate: Call) -> None:
    path.write_text(
        path.read_text().replace("127.0.0.1:0", "0.0.0.0:0\nplain_http: allow\nhosts: [localhost]")
    )
    with running(path) as server:
        assert "is open without TLS" in server.log.read_text()
        assert "another server runs on this state" in refused(tidegate, path)


def test_a_state_of_another_s_is_told_in_one_line(path: Path, tidegate: Call, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o777)
    (tmp_path / "state").chmod(0o777)
    assert "chmod 700" in refused(tidegate, path)


def test_a_connection_sends_at_once_what_it_is_given(path: Path) -> None:
    """Asyncio does so where it knows the protocol, and the one that listens says it for all that it accepts."""
    with bound(settings.load(path)) as listening, socket.create_connection(listening.getsockname()[:2]):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
