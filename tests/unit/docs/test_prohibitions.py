"""Defences of docs/threat-model.md that no other folder tests; each test fails when its rule is taken out."""

from __future__ import annotations

import http.server
import inspect
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from docskit import ROOT
from tidegate_agents import bundles, files, host
from tidegate_agents.datapath import forwarder
from tidegate_agents.datapath.counters import Counters
from tidegate_agents.datapath.judge import Tables
from tidegate_agents.events import flusher
from tidegate_agents.gateway.desired import read_bundle
from tidegate_compiler import scaffold
from tidegate_schema import jsonfile, release, wgquick
from tidegate_schema.policy import PolicyTable

NOW = 1_000_000
PEERS = {"format": 1, "peers": []}
POLICY = {"format": 1, "rules": [], "sets": [], "clients": {}}


@pytest.fixture(scope="module")
def signer() -> Any:
    return release.load_signer(release.generate_key()[0])


def statement(files: dict[str, bytes]) -> release.Release:
    entries = {name: release.FileEntry.of(data) for name, data in files.items()}
    return release.Release("f", "gateway", "gw", 1, NOW + 1, "test", entries)


def accepted(document: release.Release, content: dict[str, bytes]) -> bundles.Accepted:
    return bundles.Accepted(document, release.files_digest(document.files), content)


@pytest.mark.parametrize("name", ["authz_mode", "logging_enabled"])
def test_a_bundle_that_carries_a_local_setting_is_refused_by_name(signer: Any, name: str) -> None:
    good = {"peers.json": jsonfile.canonical(PEERS), "policy.json": jsonfile.canonical(POLICY)}
    read_bundle(accepted(statement(good), good))
    for file, document in (("peers.json", PEERS), ("policy.json", POLICY)):
        bad = {**good, file: jsonfile.canonical(document | {name: "observe"})}
        with pytest.raises(release.ReleaseError, match=name) as refused:
            read_bundle(accepted(statement(bad), bad))
        assert refused.value.name == "invalid-bundle"
    with pytest.raises(wgquick.ConfigError, match=r"line 2.*refused|is not a line"):
        wgquick.parse(f"[Interface]\n{name} = observe\n".encode())
    signed = _sign_raw(signer, json.loads(statement(good).payload()) | {name: "observe"})
    with pytest.raises(release.ReleaseError, match=name) as refused:
        release.open_envelope(signed, [signer.public_key])
    assert refused.value.name == "malformed-payload"


def _sign_raw(signer: Any, payload: dict[str, Any]) -> bytes:
    """Sign a statement that `Release` could not hold."""
    envelope = release.Envelope(jsonfile.canonical(payload), release.PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return jsonfile.canonical(envelope.to_dict())


def published(signer: Any, folder: Path) -> Path:
    content = {"peers.json": jsonfile.canonical(PEERS)}
    document = statement(content)
    place = folder / "releases" / release.files_digest(document.files)
    place.mkdir(parents=True)
    (place / "peers.json").write_bytes(content["peers.json"])
    (place / "release.json").write_bytes(release.sign(document, signer))
    (folder / "current").symlink_to(f"releases/{place.name}")
    return place


def test_a_bundle_directory_is_read_without_following_links(signer: Any, tmp_path: Path) -> None:
    identity = bundles.Identity("f", "gateway", "gw", [signer.public_key])

    def refusal(folder: Path) -> str:
        with pytest.raises(release.ReleaseError) as refused:
            bundles.read_current(folder, identity, 0, NOW)
        return refused.value.name

    good = tmp_path / "good"
    place = published(signer, good)
    assert bundles.read_current(good, identity, 0, NOW).release.serial == 1

    outside = tmp_path / "outside"  # the same, authentic release: only the way to it differs
    outside.mkdir()
    (outside / "current").symlink_to(place)
    assert refusal(outside) == "bad-link"
    (outside / "current").unlink()
    (outside / "current").symlink_to(f"releases/{place.name}")
    (outside / "releases").symlink_to(good / "releases")
    assert refusal(outside) == "half-written"

    for name in ("release.json", "peers.json"):
        data = (place / name).read_bytes()
        (place / name).rename(tmp_path / name)
        (place / name).symlink_to(tmp_path / name)
        assert refusal(good) == "bad-file"
        (place / name).unlink()
        (place / name).write_bytes(data + b" " * (release.ENVELOPE_MAX_BYTES + 1))
        assert refusal(good) == "bad-file"
        (place / name).write_bytes(data)
    assert bundles.read_current(good, identity, 0, NOW).release.serial == 1


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers as its server's `answer` says: status, headers, body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        status, headers, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815 - http.server's name

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.block_on_close = False  # a failed test may leave a connection open
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_nothing_a_log_receiver_answers_steers_logging(receiver: Any) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/events"
    settings = json.dumps({"logging_enabled": False, "flush_interval": 3600}).encode()
    answers: list[tuple[tuple[int, dict[str, str], bytes], str | None]] = [
        ((200, {}, settings), None),
        ((204, {"tidegate-logging": "off"}, b""), None),
        ((302, {"location": f"{url}/elsewhere"}, b""), "http-302"),
        ((401, {"www-authenticate": "Basic"}, b""), "http-401"),
        ((429, {"retry-after": "3600"}, b""), "http-429"),
        ((503, {"retry-after": "3600"}, b""), "http-503"),
        ((200, {}, b"x" * (1 << 20)), "endless-answer"),
        ((200, {"set-cookie": "a=b"}, settings), None),
    ]
    sender = flusher.Sender(url, 5)
    for answer, expected in answers:
        receiver.answer = answer
        assert sender.post(b"{}\n", {}) == expected
    # One request each: no redirect followed, none repeated, none held back.
    assert receiver.asked == ["/events"] * len(answers)
    sender._client.close()


def test_no_agent_listens() -> None:
    listening = r"\.listen\(|\.bind\(|create_server|socketserver|http\.server|asyncio|recvfrom"
    for path in (ROOT / "agents").rglob("*.py"):
        assert not re.search(listening, path.read_text("utf-8")), path


def test_observe_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never(*_: object) -> None:
        raise AssertionError("observe has asked for a verdict")

    monkeypatch.setattr(forwarder, "Judge", never)
    tables = Tables(1, False, {}, PolicyTable(None))
    forwarder.Forwarder(-1, tables, Counters(tmp_path / "counters"), None)
    with pytest.raises(AssertionError):  # the control
        forwarder.Forwarder(-1, replace(tables, enforce=True), Counters(tmp_path / "counters"), None)


@pytest.mark.needs_tools("wg")
def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    places = host.Places("client", tmp_path, tmp_path, tmp_path)
    places.key.write_bytes(subprocess.run(["wg", "genkey"], check=True, capture_output=True).stdout)
    places.key.chmod(0o600)
    assert len(host.public_key(places)) == 44
    for mode in (0o640, 0o604):
        places.key.chmod(mode)
        with pytest.raises(host.HostError, match="others may read"):
            host.public_key(places)


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    made = tmp_path / "made"
    files.make_private_directory(made)
    assert made.stat().st_mode & 0o777 == 0o700
    for mode in (0o770, 0o707):
        made.chmod(mode)
        with pytest.raises(files.FileRefused):
            files.make_private_directory(made)
    # Everything an agent writes into is made so.
    source = inspect.getsource(host)
    assert {"etc", "run", "state_directory"} <= set(
        re.findall(r"make_private_directory\(places\.(\w+)\)", source)
    )


def test_the_scaffolded_workflow_reads_only() -> None:
    text = scaffold.scaffold()[".github/workflows/inventory.yml"].decode()
    workflow = YAML(typ="safe", pure=True).load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["on"] == ["pull_request"]  # never pull_request_target, which has the repository's rights
    assert "secrets" not in text
    checkout = workflow["jobs"]["check"]["steps"][0]
    assert checkout["with"]["persist-credentials"] is False
