"""Defences of docs/threat-model.md that no other folder tests; each test fails when its rule is taken out."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope

from docskit import ROOT
from tidegate_agents import bundles, host
from tidegate_agents.gateway.desired import read_bundle
from tidegate_schema import jsonfile, release, wgquick

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
    envelope = Envelope(jsonfile.canonical(payload), release.PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return jsonfile.canonical(envelope.to_dict())


def test_no_agent_listens_but_to_tell_its_metrics() -> None:
    """And those to its own host alone: see tests/netns/test_metrics.py and the setting's own tests."""
    listening = (
        r"\.listen\(|\.bind\(|(create|start|unix)_server|datagram_endpoint|socketserver|http\.server|recvfrom"
    )
    gateway = ROOT / "agents/tidegate_agents/gateway"
    metrics, netlink = gateway.parent / "metricserver.py", gateway / "flownews.py"
    # Sockets that it has are netlink's, which is the kernel's alone.
    assert "socket.socket(" not in netlink.read_text("utf-8")
    links = ROOT / "agents/tidegate_agents/client/linknews.py"
    assert re.findall(r"socket\.socket\(([\w.]+)", links.read_text("utf-8")) == ["socket.AF_NETLINK"]
    for path in {*(ROOT / "agents").rglob("*.py")} - {metrics, netlink, links}:
        assert not re.search(listening, path.read_text("utf-8")), path


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
