"""What `tidegate client status` prints of a status and a device."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import pytest

from tidegate_agents import host, wireguard
from tidegate_agents.host import Places
from tidegate_agents.wireguard import DeviceState, PeerConfig, PeerState
from tidegate_schema import cli
from unit.agents.kit import key
from unit.agents.test_keyfiles import places  # noqa: F401 - a fixture

FIRST, SECOND = key("fra1"), key("fra2")
NETWORKS = frozenset({"10.20.0.0/16"})


@pytest.fixture
def arguments(places: Places, monkeypatch: pytest.MonkeyPatch) -> list[str]:  # noqa: F811
    places.run.mkdir(parents=True)
    peers = {
        SECOND: PeerState(
            PeerConfig(NETWORKS, "203.0.113.20:51820"), int(time.time()) - 5, 3 * 1024**2, 1500
        ),
        FIRST: PeerState(PeerConfig(frozenset(), "203.0.113.10:51820"), 0, 0, 148),
    }
    monkeypatch.setattr(wireguard, "show", lambda _name: DeviceState("", 0, 0, peers))
    where = ["--etc", str(places.etc), "--state-dir", str(places.state_directory)]
    return ["client", "status", *where, "--run-dir", str(places.run_directory)]


def write(places: Places, **changes: Any) -> None:  # noqa: F811
    status = {
        "pid": os.getpid(),
        "host": "alice",
        "fleet": "example",
        "interface": "tidegate0",
        "settings_problem": None,
        "trouble": None,
        "refusal": None,
        "release": {"serial": 7, "not_after": 1_800_000_000, "digest": "d", "source": "s"},
        "groups": [
            {"gateways": [FIRST, SECOND], "active": SECOND, "since": 1_790_000_000, "why": "it was silent"}
        ],
        "drift": None,
        "rotation": None,
    }
    host.write_status(places, status | changes)


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run(arguments) == 0
    return " ".join(capsys.readouterr().out.split())


def test_it_names_release_end_gateways_and_traffic(
    arguments: list[str],
    places: Places,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write(places)
    text = said(arguments, capsys)
    assert "alice (example): release 7, to be renewed by 2027-01-15 08:00:00Z, interface tidegate0" in text
    assert f"in use since 2026-09-21 14:13:20Z is the standby {SECOND}: it was silent" in text
    assert text.index(FIRST) > 0
    for word in ("standby", "never", "10.20.0.0/16", "3.0 MiB", "1.5 KiB", "148 B"):
        assert word in text
    assert re.search(r"\b[0-9]+ s ago", text)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"drift": {"time": 0.0, "actions": ["set the link up"], "repaired": False, "count": 1}},
            "to be mended by",
        ),
        (
            {"drift": {"time": 0.0, "actions": ["set the link up"], "repaired": True, "count": 1}},
            "repaired at",
        ),
        (
            {"rotation": {"next": "N", "previous": None, "since": None, "problem": None}},
            "knows the next key N",
        ),
        (
            {"rotation": {"next": None, "previous": "P", "since": 1.0, "problem": None}},
            "the key before, P, is kept",
        ),
        ({"rotation": {"next": "N", "previous": None, "since": None, "problem": "no [b]"}}, "keys: no [b]"),
        ({"trouble": "wg: [red]no"}, "wg: [red]no"),
        ({"release": None}, "no release yet"),
    ],
)
def test_what_is_not_as_usual_has_a_line(
    arguments: list[str],
    places: Places,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    line: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write(places, **changes)
    assert line in said(arguments, capsys)


def test_json_has_every_gateway_with_its_role(
    arguments: list[str],
    places: Places,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(places)
    assert cli.run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["public_key"], one["role"]) for one in found["gateways"]] == [
        (FIRST, "standby"),
        (SECOND, "active"),
    ]
    assert found["gateways"][0]["latest_handshake"] is None
    assert found["gateways"][1]["received"] == 3 * 1024**2
