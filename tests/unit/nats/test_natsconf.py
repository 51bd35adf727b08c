"""The accounts block: of each host its own subjects and no others, and what the command says when it cannot."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tidegate_compiler import natsconf
from tidegate_schema import cli

HOSTS = [("client", "a"), ("client", "a-b"), ("gateway", "a"), ("client", "x" * 63)]


def test_a_host_s_line_names_nothing_but_its_own() -> None:
    text = natsconf.accounts("my-fleet", HOSTS)
    lines = [line for line in text.splitlines() if "user:" in line]
    assert len(lines) == len(HOSTS) + 1
    for kind, host in HOSTS:
        (line,) = (line for line in lines if f'user: "{natsconf.user("my-fleet", kind, host)}"' in line)
        subjects = re.findall(r'"([^"]+)"', line)[1:]
        own = (f"tidegate.my-fleet.{kind}.{host}.", f"_INBOX.{kind}.{host}.")
        asking = "$JS.API.DIRECT.GET.tidegate-my-fleet."
        assert len(subjects) == 4
        assert all(subject.removeprefix(asking).startswith(own) for subject in subjects)


@pytest.mark.parametrize("name", ["a b", 'a"', "a.b", ">", "*", "", "A", "a\n"])
def test_what_is_no_name_makes_no_line(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        natsconf.accounts("my-fleet", [("client", name)])
    with pytest.raises(ValueError, match="no name"):
        natsconf.accounts(name, HOSTS)


def test_no_output_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["nats", "permissions", str(tmp_path / "absent")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_json_lists_the_names_for_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inventory = Path(__file__).parents[3] / "inventory"
    assert cli.run(["compile", str(inventory), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert cli.run(["nats", "permissions", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["publisher"] == "publisher.example"
    assert {"kind": "client", "host": "alice-laptop", "user": "alice-laptop.client.example"} in found["users"]
