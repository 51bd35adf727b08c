"""The workflow that writes the comment, run against a stand-in for `gh`: whose plan it shows, where, and what never."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import compilerkit
import learnkit
from cikit import Ran, Runner, load, script
from compilerkit import client, everything, inventory, policy
from docskit import ROOT
from plankit import told
from tidegate_compiler.plan import markdown
from tidegate_compiler.plan.markdown import MARKER, MAX_CHARS

SHA, OTHER = "a" * 40, "b" * 40
URL = "https://github.com/my-org/fleet/actions/runs/77"
PLAN = f"{MARKER}\n### Tidegate plan\n\n`main:inventory` → `HEAD:inventory`: **no changes**\n"
EXPRESSIONS = {
    "github.token": "the token",
    "github.repository": "my-org/fleet",
    "github.event.workflow_run.id": "77",
    "github.event.workflow_run.html_url": URL,
    "github.event.workflow_run.conclusion": "success",
    "github.event.workflow_run.head_repository.owner.login": "stranger",
    "github.event.workflow_run.head_branch": "more",
    "github.event.workflow_run.head_sha": SHA,
}


def archive(text: str | bytes, name: str = "plan.md") -> str:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, text)
    return base64.b64encode(packed.getvalue()).decode()


def artifact(text: str | bytes, **more: Any) -> dict[str, Any]:
    packed = archive(text)
    return {
        "id": 5,
        "name": "tidegate-plan",
        "size_in_bytes": len(base64.b64decode(packed)),
        "zip": packed,
    } | more


def pull(number: int, sha: str = SHA, **more: Any) -> dict[str, Any]:
    files = [{"filename": "inventory/policies/more.yaml"}]
    return {
        "number": number,
        "label": "stranger:more",
        "head": {"sha": sha},
        "files": files,
        "changed_files": 1,
    } | more


class Forge:
    """GitHub as the workflow sees it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runner = Runner(directory)
        self.runner.program(
            "gh", f'exec {shlex.quote(sys.executable)} -ISs {shlex.quote(str(ROOT / "tests/fakegh.py"))} "$@"'
        )
        self.file = directory / "github.json"
        self.state: dict[str, Any] = {
            "pulls": [pull(8)],
            "artifacts": [artifact(PLAN)],
            "comments": {},
            "calls": [],
        }

    def run(self, **changed: str) -> Ran:
        (job,) = load("github/tidegate-comment.yml")["jobs"].values()
        (step,) = job["steps"]
        assert step["shell"] == "python3 -I {0}"
        told = EXPRESSIONS | {f"github.event.workflow_run.{name}": value for name, value in changed.items()}
        env = {
            name: told[value.removeprefix("${{ ").removesuffix(" }}")] for name, value in step["env"].items()
        }
        program = self.directory / "step"
        program.write_text(script("github/tidegate-comment.yml", step["name"]))
        self.file.write_text(json.dumps(self.state))
        ran = self.runner.run(
            [sys.executable, "-I", str(program)], self.directory, env | {"FAKE_GITHUB": str(self.file)}
        )
        self.state = json.loads(self.file.read_text())
        return ran

    @property
    def bodies(self) -> dict[str, list[str]]:
        return {
            number: [one["body"] for one in comments]
            for number, comments in self.state["comments"].items()
            if comments
        }

    @property
    def body(self) -> str:
        ((body,),) = self.bodies.values()
        return body


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


def test_a_plan_with_recorded_traffic_is_shown(forge: Forge, tmp_path: Path) -> None:
    """Whatever the comment of replay can hold passes the workflow's own look at it."""
    old, new = (
        compilerkit.compiled(inventory(policies={"p": policy(to=to)}))
        for to in ("10.20.0.0/24", "10.20.1.0/24")
    )
    lines = [learnkit.record(), learnkit.record(to="10.20.1.1"), learnkit.record(port=None), b"odd\n"]
    text = learnkit.comment(old, new, lines)
    assert text.count("`1 flow of 1 client, last") == 2
    assert "Note: `1 line passed over: not an event`" in text
    forge.state["artifacts"] = [artifact(text)]
    assert forge.run().status == 0
    assert forge.body.startswith(text)


def test_a_plan_is_shown_as_it_is_with_its_commit(forge: Forge) -> None:
    ran = forge.run()
    assert ran.status == 0, ran.said
    assert forge.bodies == {"8": [f"{PLAN}\nCommit `{SHA}`, [checked here]({URL}).\n"]}


def test_the_next_plan_takes_the_place_of_the_last(forge: Forge) -> None:
    forge.state["comments"]["8"] = [
        {"id": number, "user": {"login": "somebody"}, "body": "Looks good."} for number in range(1, 6)
    ]
    for text in ("**no changes**", "**again**"):
        forge.state["artifacts"] = [artifact(PLAN.replace("**no changes**", text))]
        assert forge.run().status == 0
    found = forge.bodies["8"]
    assert len(found) == 6
    assert found[5].startswith(MARKER)
    assert "**again**" in found[5]


def test_a_comment_of_somebody_else_with_the_marker_is_left_alone(forge: Forge) -> None:
    """Whoever owns the comment could change the plan in it afterwards."""
    forge.state["comments"]["8"] = [
        {"id": 1, "user": {"login": "stranger"}, "body": f"{MARKER}\nmine"},
        {"id": 2, "user": None, "body": f"{MARKER}\nof an account that is gone"},
        {"id": 3, "user": {"login": "github-actions[bot]"}, "body": "Of another workflow."},
    ]
    assert forge.run().status == 0
    assert forge.bodies["8"][:2] == [f"{MARKER}\nmine", f"{MARKER}\nof an account that is gone"]
    assert forge.bodies["8"][2] == "Of another workflow."
    assert forge.bodies["8"][3].startswith(PLAN)


@pytest.mark.parametrize("conclusion", ["failure", "cancelled", "timed_out", "skipped", "action_required"])
def test_a_check_that_did_not_pass_leaves_no_old_plan_standing(forge: Forge, conclusion: str) -> None:
    assert forge.run().status == 0
    assert forge.run(conclusion=conclusion).status == 0
    assert "no changes" not in forge.body
    assert forge.body.startswith(f"{MARKER}\n### Tidegate plan\n\n**The check did not pass")
    assert SHA in forge.body


def test_only_the_pull_request_with_this_head_gets_the_plan(forge: Forge) -> None:
    """Nothing that the other run left says which one that is."""
    forge.state["pulls"] = [pull(7, OTHER), pull(8), pull(9, label="my-org:more")]
    assert forge.run().status == 0
    assert list(forge.bodies) == ["8"]


@pytest.mark.parametrize("pulls", [[], [pull(8, OTHER)], [pull(8, label="another:more")]])
def test_a_head_that_is_nobody_s_any_more_gets_no_comment(forge: Forge, pulls: list[Any]) -> None:
    forge.state["pulls"] = pulls
    assert forge.run().status == 0
    assert forge.bodies == {}


def test_two_pull_requests_of_one_head_get_no_comment(forge: Forge) -> None:
    forge.state["pulls"] = [pull(8), pull(9)]
    ran = forge.run()
    assert ran.status == 1
    assert "[8, 9]" in ran.said
    assert forge.bodies == {}


def test_a_push_in_the_meantime_gets_no_comment(forge: Forge) -> None:
    forge.state["then"] = {"3": {"pulls": [pull(8, OTHER)]}}
    assert forge.run().status == 0
    assert forge.bodies == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"files": [{"filename": "a"}] * 5 + [{"filename": ".github/workflows/tidegate.yml"}]},
        {"files": [{"filename": ".github/workflows/more.yml"}]},
        {"files": [{"filename": "x", "previous_filename": ".github/workflows/tidegate.yml"}]},
        {"changed_files": 3001},
    ],
)
def test_a_plan_that_may_be_the_pull_request_s_own_work_is_not_shown(
    forge: Forge, changed: dict[str, Any]
) -> None:
    forge.state["pulls"] = [pull(8, **changed)]
    assert forge.run().status == 0
    assert "No plan is shown: this pull request changes `.github/`" in forge.body
    assert "no changes" not in forge.body


HOSTILE = {
    "a mention": PLAN + "\n@my-org/security approved\n",
    "a link": PLAN + "\n[click](https://evil.example/)\n",
    "a bare link": PLAN + "\nhttps://evil.example/\n",
    "a bare name": PLAN + "\nwww.evil.example\n",
    "a picture": PLAN + "\n![x](//evil.example/pixel.png)\n",
    "a tag": PLAN + "\n<details><summary>x</summary>\n",
    "a comment": PLAN + "\n<!-- x\n",
    "an entity": PLAN + "\n&#64;team\n",
    "a reference": PLAN + "\nFixes #1\n",
    "a hidden letter": PLAN + "\nno\u202echanges\n",
    "a letter that looks like another": PLAN + "\nn\u043e changes\n",
    "an emphasis": PLAN + "\n_x_ ~x~\n",
    "an escape": PLAN + "\n\\`@x`\n",
    "a code span over lines": PLAN + "\n`x\n@team`\n",
    "a mention in a code span": PLAN + "\n`@team`\n",
    "a code span that is none": PLAN + "\n```x www.evil.example `\n",
    "two code spans that are one": PLAN + "\n`a`` b `\n",
    "an empty code span": PLAN + "\n``x``\n",
    "a fence": PLAN + "\n```\n@x\n```\n",
    "a carriage return": PLAN + "\nx\r@team\n",
    "a line separator": PLAN + "\nx\u2028y\n",
    "a NUL": PLAN + "\nx\0y\n",
    "no marker": PLAN.partition("\n")[2],
    "a marker and more": PLAN.replace(MARKER, f"{MARKER} @team"),
    "another marker first": f"<!-- x -->\n{PLAN}",
    "too long": PLAN + "x" * MAX_CHARS,
    "a bomb": PLAN + "x" * 50_000_000,
    "not UTF-8": PLAN.encode() + b"\xff",
    "nothing": "",
    "UTF-16": PLAN.encode("utf-16"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_leavings_are_not_shown(forge: Forge, what: str) -> None:
    forge.state["artifacts"] = [artifact(HOSTILE[what])]
    ran = forge.run()
    assert ran.status == 0, ran.said
    assert forge.body == (
        f"{MARKER}\n### Tidegate plan\n\n**No plan is shown: what the check left is none.**\n\n"
        f"Commit `{SHA}`, [checked here]({URL}).\n"
    )


@pytest.mark.parametrize(
    "left",
    [
        [],
        [artifact(PLAN, name="tidegate-plan-2")],
        [artifact(PLAN, size_in_bytes=1_000_001)],
        [artifact(PLAN, zip=base64.b64encode(b"PK no zip").decode())],
        [artifact(PLAN, zip=archive(PLAN, "../plan.md"))],
        [artifact(PLAN, zip=archive(PLAN, "/plan.md"))],
        [artifact(PLAN, id=4), artifact("@team", id=6), artifact(PLAN, id=5)],
    ],
)
def test_an_artifact_that_is_none_is_not_shown(forge: Forge, left: list[Any]) -> None:
    forge.state["artifacts"] = left
    ran = forge.run()
    assert ran.status == 0, ran.said
    assert "No plan is shown: what the check left is none" in forge.body
    assert sorted(path.name for path in forge.directory.iterdir()) == [
        *("github.json", "programs", "runner temp", "step")
    ]  # nothing is unpacked


def test_a_hostile_branch_name_is_a_value(forge: Forge) -> None:
    name = 'more&state=closed#$(id)"`'
    forge.state["pulls"] = [pull(8, label=f"stranger:{name}")]
    assert forge.run(head_branch=name).status == 0
    assert forge.body.startswith(PLAN)


def real_plans() -> list[str]:
    """Return plans with every part that one can have: tables, limits, times, renames, cuts, hostile names."""
    few, many = (
        {name: one for number in range(1, top) for name, one in client(f"client-{number}", number).items()}
        for top in (3, 151)
    )
    grants = {
        f"policy-{number}": policy(f"client:client-{number}", f"10.20.{number}.0/24")
        for number in range(1, 151)
    }
    renamed = {"renamed" if name == "client-1" else name: one for name, one in few.items()}
    wide = told(inventory(clients=many), inventory(clients=many, policies=grants))
    cut = wide | {"access": dict.fromkeys(("gained", "lost"), wide["access"]["gained"] * 4)}
    hostile = json.loads(json.dumps(wide).replace("policy-1", "@team <b> [x](y) `z` #1 \\u202e"))
    pairs = [(inventory(), inventory()), (inventory(clients=few), inventory(clients=renamed))]
    pairs += [(inventory(), inventory(**everything())), (inventory(**everything()), inventory())]
    pairs += [(inventory(clients=many, policies=grants), inventory(clients=few))]
    timed = policy("client:client-1", "10.20.1.0/24") | {"expires": "2031-01-01", "not_before": "2030-01-01"}
    pairs += [(inventory(clients=few), inventory(clients=few, policies={"p": timed}))]
    return [markdown.markdown(one) for one in (wide, cut, hostile, *(told(*pair) for pair in pairs))]


def test_real_plans_are_plans(forge: Forge) -> None:
    """Every line that `tidegate plan --format markdown` writes passes."""
    texts = real_plans()
    for part in ("exceeded:**", "Cut here:", "Access lost", "renamed", "2031-01-01T00:00:00Z", "\\x40team"):
        assert any(part in text for text in texts), part
    for text in texts:
        forge.state["artifacts"] = [artifact(text)]
        forge.state["comments"] = {}
        assert forge.run().status == 0
        assert forge.body.startswith(text.rstrip("\n"))
        assert len(forge.body) <= MAX_CHARS


def test_the_note_on_a_first_inventory_is_shown(forge: Forge) -> None:
    said = re.findall(r"'(.*?)'", script("github/tidegate.yml", "Plan").partition("printf")[2])
    assert said[:3] == ["%s\\n", MARKER, "### Tidegate plan"]
    forge.state["artifacts"] = [artifact("\n".join(said[1:]) + "\n")]
    assert forge.run().status == 0
    assert "The inventory is new: there is nothing to compare it with." in forge.body


def test_the_marker_is_the_plan_s() -> None:
    assert f'MARKER = "tidegate-plan", "plan.md", "{markdown.MARKER}"' in script(
        "github/tidegate-comment.yml", "Write the comment"
    )
