"""The commands that are run where an inventory is kept, as they stand in the pages, in their order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import gitkit
from docskit import PAGES, ROOT, Fence, fences, shell_fences
from tidegate_schema.keys import client_id, parse_public_key

AT_DESKS = [page for page in PAGES if any(fence.on == "desk" for fence in shell_fences(page))]


class Desk:
    """A directory with a clone of the inventory, its output and a signing key, and `tidegate` on PATH."""

    def __init__(self, directory: Path, fleet: str = "example") -> None:
        self.directory = directory / "desk"
        self.directory.mkdir()
        programs = directory / "bin"
        programs.mkdir()
        gitkit.tidegate(programs)
        self.environment = gitkit.environment(directory, programs, "An Admin", os.environ)
        shutil.copytree(ROOT / "inventory", self.directory / "inventory")
        overlay = self.directory / "inventory" / "overlay.yaml"
        overlay.write_text(overlay.read_text().replace("fleet: example", f"fleet: {fleet}"))
        for command in (
            *("git init -q -b main", "git add inventory", "git commit -q -m Start"),
            *("tidegate keys init keys", "tidegate compile inventory --out out"),
            "tidegate publish out --to bundles --key keys/signing.key --first",
        ):
            self.run(command)

    def run(self, command: str, status: int = 0) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def follow(self, page: str) -> dict[str, str]:
        """Run every command of a page for this place; returns what each printed, under the command."""
        return {
            command: self.run(command, _status(fence, command))
            for fence in shell_fences(page)
            if fence.on == "desk"
            for command in fence.commands
        }


def _status(fence: Fence, command: str) -> int:
    return int(fence.words.get("status", "0")) if command == fence.commands[-1] else 0


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_story_is_true(desk: Desk) -> None:
    said = desk.follow("docs/story.md")
    assert "0 errors, 0 warnings" in said["tidegate validate inventory --strict"]
    compiled = next(text for command, text in said.items() if "compile" in command)
    assert "2 files written" in compiled  # the policy, and the manifest's digest of the inventory
    published = next(text for command, text in said.items() if "publish" in command).splitlines()
    assert [line.split("\t")[1:4] for line in published if "\tpublished\t" in line] == [
        ["fra1", "published", "2"]
    ]
    rules = json.loads((desk.directory / "bundles/gateway/fra1/current/policy.json").read_bytes())["rules"]
    shown = next(json.loads(fence.text) for fence in fences("docs/story.md") if "rules" in fence.words)
    assert [rule for rule in rules if rule["policy"] == "carol-reads-prod-db"] == shown
    event = next(
        json.loads(fence.text) for fence in fences("docs/story.md") if fence.words.get("schema") == "event"
    )
    document = (desk.directory / "inventory/clients/operations.yaml").read_text()
    key = document.partition("carol-laptop:")[2].partition("public_key: ")[2].partition("\n")[0]
    assert event["tidegate.client.id"] == client_id(parse_public_key(key))


def test_the_page_of_the_command_line_is_true(desk: Desk) -> None:
    said = desk.follow("docs/commands.md")
    assert said["tidegate validate inventory"] == "0 errors, 0 warnings\n"
    assert json.loads(said["tidegate validate inventory --json"])["diagnostics"] == []
    assert json.loads((desk.directory / "tidegate.sarif").read_bytes())["version"] == "2.1.0"


@pytest.mark.parametrize("page", [page for page in AT_DESKS if page != "docs/story.md"])
def test_commands_for_a_desk_do_what_the_page_says(tmp_path: Path, page: str) -> None:
    fleet = "my-fleet" if page == "docs/keys.md" else "example"  # the README's, for which key sets are made
    desk = Desk(tmp_path, fleet)
    assert desk.follow(page)


def test_the_access_tests_of_the_page_hold(desk: Desk) -> None:
    (shown,) = (fence.text for fence in fences("docs/proofs.md") if fence.language == "yaml")
    (desk.directory / "inventory/tests/page.yaml").write_text(shown)
    assert "30 passed, 0 failed" in desk.run("tidegate test inventory --at 2027-01-01")


def test_editing_does_what_its_page_says(desk: Desk) -> None:
    said = desk.follow("docs/editing.md")
    added = next(text for command, text in said.items() if "add client" in command)
    assert "added client zoe-laptop with 10.64.0.2/32, fd64::2/128" in added
    assert (
        next(text for command, text in said.items() if command == "tidegate test inventory").count("\n") > 0
    )
    assert said["tidegate inventory remove client frank-laptop"].count(": removed ") == 5
    refused = said["tidegate inventory remove client ci-runner"]
    assert "would remove the policy ci-writes-backups" in refused
    assert "give --cascade" in refused
    imported = next(text for command, text in said.items() if "import" in command)
    assert "wg0.conf:5: a private key" in imported
    assert "gateway's own" not in imported + (desk.directory / "imported/gateways/imported.yaml").read_text()
    assert said["tidegate validate imported --strict"] == "0 errors, 0 warnings\n"


def test_a_wrong_command_would_be_noticed(desk: Desk) -> None:
    with pytest.raises(AssertionError, match="64"):
        desk.run("tidegate nonsense")
