"""What judges a change, run on a real repository with a branch to be merged; `tidegate` is this checkout's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import compilerkit
import learnkit
from cikit import Runner, load, parse
from docskit import ROOT
from tidegate_compiler import pipeline
from tidegate_compiler.plan.markdown import MARKER
from tidegate_schema import __version__
from tidegate_schema.cli import run

GRANT = "bob-reads-wiki: {from: [client:bob-laptop], to: [10.20.7.0/24], action: allow, ports: [tcp/22]}\n"


class Forge:
    """A repository with the example inventory on main, a branch from it, and clones as CI makes them."""

    def __init__(self, directory: Path) -> None:
        self.runner = Runner(directory)
        self.tree = directory / "tree"
        self.clone = directory / "clone"
        shutil.copytree(ROOT / "inventory", self.tree / "inventory")
        self.git("init", "-q", "-b", "main")
        self.commit("Start")

    def git(self, *words: str) -> str:
        return self.runner.git(self.tree, *words)

    def commit(self, subject: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        return self.git("rev-parse", "HEAD")

    def write(self, path: str, text: str) -> None:
        (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
        (self.tree / path).write_text(text)

    def branch(self) -> None:
        self.git("checkout", "-q", "-b", "change")

    def merged(self) -> Path:
        """Return a clone as actions/checkout leaves it: the merge alone, and as deep as the workflow says."""
        self.commit("Change")
        self.git("checkout", "-q", "main")
        self.commit("Meanwhile")
        self.git("merge", "-q", "--no-ff", "-m", "Merge", "change")
        shutil.rmtree(self.clone, ignore_errors=True)
        (job,) = GITHUB["jobs"].values()
        depth = job["steps"][0]["with"]["fetch-depth"]
        words = ("--depth", str(depth)) if depth else ()
        self.runner.git(
            self.tree, "clone", "-q", *words, f"file://{self.tree}", str(self.clone), "-b", "main"
        )
        return self.clone

    def head(self) -> tuple[Path, str]:
        """Return a clone as GitLab leaves it, the branch's head, and where the branch left main."""
        self.commit("Change")
        base = self.git("merge-base", "main", "change")
        self.runner.git(self.tree, "clone", "-q", str(self.tree), str(self.clone), "-b", "change")
        return self.clone, base


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


GITHUB = load("github/tidegate.yml")


# GitHub -----------------------------------------------------------------------------------------------------------


def test_github_a_change_of_access_passes_and_leaves_its_plan(forge: Forge) -> None:
    forge.branch()
    forge.write("inventory/policies/more.yaml", GRANT)
    ran, left = forge.runner.github(GITHUB, forge.merged())
    assert ran.status == 0, ran.said
    text = left["tidegate-plan"].read_text()
    assert text.startswith(f"{MARKER}\n### Tidegate plan\n")
    assert "Access gained (1)" in text
    assert "`bob-reads-wiki (inventory/policies/more.yaml:1)`" in text
    assert (forge.runner.temp / "summary").read_text() == text
    assert forge.runner.installed.read_text() == f"install --only-binary :all: tidegate=={__version__}\n"


def test_github_no_change_passes(forge: Forge) -> None:
    forge.branch()
    forge.write("README", "Words.\n")
    ran, left = forge.runner.github(GITHUB, forge.merged())
    assert ran.status == 0, ran.said
    assert "**no changes**" in left["tidegate-plan"].read_text()


def test_github_what_main_got_meanwhile_is_not_in_the_plan(forge: Forge) -> None:
    forge.branch()
    forge.write("inventory/policies/more.yaml", GRANT)
    forge.commit("Change")
    forge.git("checkout", "-q", "main")
    forge.write("inventory/policies/other.yaml", GRANT.replace("bob", "alice"))
    forge.commit("Other")
    forge.git("checkout", "-q", "change")
    _, left = forge.runner.github(GITHUB, forge.merged())
    text = left["tidegate-plan"].read_text()
    assert "bob-reads-wiki" in text
    assert "alice-reads-wiki" not in text


BAD = {
    "an error": ("inventory/policies/more.yaml", GRANT.replace("bob-laptop", "nobody"), "::error file="),
    "a warning": (
        "inventory/policies/more.yaml",
        GRANT + GRANT.replace("bob-reads", "again"),
        "::warning file=",
    ),
    "a failing access test": (
        "inventory/tests/more.yaml",
        "- {from: client:bob-laptop, to: 10.20.7.1, port: tcp/22, expect: allow}\n",
        "expected allow, got deny",
    ),
    "an inventory that is gone": ("inventory/overlay.yaml", "", "::error file="),
}


@pytest.mark.parametrize("what", list(BAD))
def test_github_what_is_wrong_fails_and_leaves_no_plan(forge: Forge, what: str) -> None:
    forge.branch()
    file, text, told = BAD[what]
    forge.write(file, text)
    ran, left = forge.runner.github(GITHUB, forge.merged())
    assert ran.status == 1, ran.said
    assert told in ran.said
    assert left == {}


def test_github_a_first_inventory_passes(forge: Forge) -> None:
    forge.git("rm", "-q", "-r", "inventory")
    forge.commit("None")
    forge.branch()
    shutil.copytree(ROOT / "inventory", forge.tree / "inventory")
    ran, left = forge.runner.github(GITHUB, forge.merged())
    assert ran.status == 0, ran.said
    assert "The inventory is new" in left["tidegate-plan"].read_text()


def test_github_a_side_that_cannot_be_read_is_no_plan(forge: Forge) -> None:
    """Exit status 1 of `plan` must not pass for "no changes", or for "changes"."""
    good = (forge.tree / "inventory/overlay.yaml").read_text()
    forge.write("inventory/overlay.yaml", "[")
    forge.commit("Broken")
    forge.branch()
    forge.write("inventory/overlay.yaml", good)
    ran, left = forge.runner.github(GITHUB, forge.merged())
    assert ran.status == 1
    assert "TG005" in ran.said
    assert left == {}


def test_github_hostile_files_neither_command_nor_leak(forge: Forge) -> None:
    """What a stranger's branch can hold: commands to the log's reader, a link to a file of the machine, odd names."""
    forge.branch()
    forge.write(".gitattributes", "*.yaml filter=evil export-ignore\n")
    forge.write("inventory/policies/$(touch pwned);.yaml", GRANT)
    forge.write("inventory/groups/x.yaml", '"a\\n::add-mask::x\\n::error::b": {members: []}\n')
    secret = forge.tree.parent / "secret"
    secret.write_text("hunter2: {public_key: swordfish}\n")
    (forge.tree / "inventory/clients/link.yaml").symlink_to(secret)
    clone = forge.merged()
    ran, left = forge.runner.github(GITHUB, clone)
    assert ran.status == 1
    assert "TG002" in ran.said
    assert "swordfish" not in ran.said
    assert not [line for line in ran.said.splitlines() if line.startswith(("::add-mask", "::error::"))]
    assert not list(clone.rglob("pwned"))
    assert left == {}


def test_github_the_scaffolded_workflow_judges_an_inventory_below(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(forge.tree)
    assert run(["init", "nets/eu"]) == 0
    forge.commit("Scaffold")
    forge.branch()
    forge.write("nets/eu/policies/more.yaml", GRANT.replace("bob-laptop", "laptop2"))
    forge.write("inventory/overlay.yaml", "broken, and another's")
    workflow = parse((forge.tree / ".github/workflows/tidegate.yml").read_text())
    ran, left = forge.runner.github(workflow, forge.merged())
    assert ran.status == 0, ran.said
    assert "nets/eu/policies/more.yaml:1" in left["tidegate-plan"].read_text()


def recorded(forge: Forge) -> str:
    """Return a file of flows: bob was at the wiki by SSH, which main does not allow."""
    example = pipeline.compile_inventory(ROOT / "inventory")
    assert isinstance(example, pipeline.Compiled)
    client = example.fleet.ids["bob-laptop"]
    path = forge.tree.parent / "week.ndjson"
    path.write_bytes(learnkit.record(client, "10.20.7.1", 22, gateway="fra1") * 3)
    return str(path)


def planned(forge: Forge, judge: str, flows: str) -> str:
    """Have one of the two judge the branch with recorded flows; return the plan that it leaves."""
    if judge == "github":
        workflow = GITHUB | {"env": GITHUB["env"] | {"FLOWS": flows}}
        ran, left = forge.runner.github(workflow, forge.merged())
        plan = left["tidegate-plan"]
    else:
        clone, base = forge.head()
        ran = forge.runner.gitlab(clone, CI_MERGE_REQUEST_DIFF_BASE_SHA=base, FLOWS=flows)
        plan = clone / "tidegate-plan.md"
    assert ran.status == 0, ran.said
    return plan.read_text()


@pytest.mark.parametrize("judge", ["github", "gitlab"])
def test_with_recorded_flows_the_plan_says_who_would_notice(forge: Forge, judge: str) -> None:
    flows = recorded(forge)
    forge.branch()
    forge.write("inventory/policies/more.yaml", GRANT)
    text = planned(forge, judge, flows)
    assert text.startswith(f"{MARKER}\n### Tidegate plan\n")
    assert "3 flows of 1 client would pass**" in text
    (row,) = (
        line for line in text.splitlines() if "bob-reads-wiki" in line and line.startswith("| `bob-laptop`")
    )
    assert row.endswith("| `3 flows of 1 client, last 2026-11-29T12:00:00Z` |")


@pytest.mark.parametrize("judge", ["github", "gitlab"])
def test_what_an_earlier_key_sent_is_in_the_plan(forge: Forge, judge: str) -> None:
    """Bob's key was rotated some commits ago; what it was used for is his, by the history that the step fetches."""
    flows = recorded(forge)
    file = "inventory/clients/contractors.yaml"
    text = (forge.tree / file).read_text()
    key = re.search(r"bob-laptop:\s+public_key: (\S+)", text)
    assert key is not None
    forge.write(file, text.replace(key[1], compilerkit.key("rotated")))
    for number in range(3):
        forge.commit(f"Rotate {number}")
    forge.branch()
    forge.write("inventory/policies/more.yaml", GRANT)
    text = planned(forge, judge, flows)
    assert "3 flows of 1 client would pass**" in text


def test_github_flows_that_cannot_be_read_are_no_plan(forge: Forge) -> None:
    forge.branch()
    forge.write("inventory/policies/more.yaml", GRANT)
    workflow = GITHUB | {"env": GITHUB["env"] | {"FLOWS": "nowhere.ndjson"}}
    ran, left = forge.runner.github(workflow, forge.merged())
    assert ran.status == 1
    assert left == {}


# GitLab -----------------------------------------------------------------------------------------------------------


def test_gitlab_a_change_of_access_passes_and_leaves_its_plan(forge: Forge) -> None:
    forge.branch()
    forge.write("inventory/policies/more.yaml", GRANT)
    clone, base = forge.head()
    ran = forge.runner.gitlab(clone, CI_MERGE_REQUEST_DIFF_BASE_SHA=base)
    assert ran.status == 0, ran.said
    assert "`bob-reads-wiki (inventory/policies/more.yaml:1)`" in (clone / "tidegate-plan.md").read_text()
    assert "<testsuite" in (clone / "tidegate-tests.xml").read_text()
    assert forge.runner.installed.read_text().endswith(f"tidegate=={__version__}\n")
    assert set(load("gitlab-ci.yml")["tidegate"]["artifacts"]["paths"]) == {"tidegate-plan.md"}


@pytest.mark.parametrize("what", list(BAD))
def test_gitlab_what_is_wrong_fails_and_leaves_no_plan(forge: Forge, what: str) -> None:
    forge.branch()
    file, text, _ = BAD[what]
    forge.write(file, text)
    clone, base = forge.head()
    assert forge.runner.gitlab(clone, CI_MERGE_REQUEST_DIFF_BASE_SHA=base).status == 1
    assert not (clone / "tidegate-plan.md").exists()


def test_gitlab_a_side_that_cannot_be_read_is_no_plan(forge: Forge) -> None:
    good = (forge.tree / "inventory/overlay.yaml").read_text()
    forge.write("inventory/overlay.yaml", "[")
    forge.commit("Broken")
    forge.branch()
    forge.write("inventory/overlay.yaml", good)
    clone, base = forge.head()
    assert forge.runner.gitlab(clone, CI_MERGE_REQUEST_DIFF_BASE_SHA=base).status == 1
    assert not (clone / "tidegate-plan.md").exists()


def test_gitlab_a_merged_result_is_compared_with_its_target(forge: Forge) -> None:
    forge.branch()
    forge.write("inventory/policies/more.yaml", GRANT)
    clone = forge.merged()
    target = forge.runner.git(clone, "rev-parse", "HEAD^1")
    ran = forge.runner.gitlab(
        clone, CI_MERGE_REQUEST_TARGET_BRANCH_SHA=target, CI_MERGE_REQUEST_DIFF_BASE_SHA="0" * 40
    )
    assert ran.status == 0, ran.said
    assert "bob-reads-wiki" in (clone / "tidegate-plan.md").read_text()


# Before the commit ------------------------------------------------------------------------------------------------


def hooks(forge: Forge) -> dict[str, int]:
    """Run every hook as pre-commit does when a file of the inventory is staged; its exit status by id."""
    staged = forge.git("diff", "--cached", "--name-only").splitlines()
    found = {}
    for hook in load("pre-commit-config.yaml")["repos"][0]["hooks"]:
        if any(re.search(hook["files"], path) for path in staged):
            assert (hook["language"], hook["pass_filenames"]) == ("python", False)
            found[hook["id"]] = forge.runner.run([*hook["entry"].split(), *hook["args"]], forge.tree).status
    return found


def test_the_hooks_pass_what_is_right_and_skip_what_is_another_s(forge: Forge) -> None:
    forge.write(
        "inventory/tests/more.yaml",
        "- {from: client:bob-laptop, to: 10.20.7.1, port: tcp/22, expect: deny}\n",
    )
    forge.git("add", "inventory")
    assert hooks(forge) == {"tidegate-validate": 0, "tidegate-fmt": 0, "tidegate-test": 0}
    forge.git("reset", "-q")
    forge.write("notes.txt", "inventory/")
    forge.git("add", "notes.txt")
    assert hooks(forge) == {}


def test_the_hooks_stop_what_is_wrong(forge: Forge) -> None:
    forge.write("inventory/tests/more.yaml", BAD["a failing access test"][1])
    forge.git("add", "inventory")
    assert hooks(forge) == {"tidegate-validate": 0, "tidegate-fmt": 0, "tidegate-test": 1}
    forge.write(
        "inventory/tests/more.yaml", "-   {from: client:nobody, to: 10.20.7.1, port: tcp/22, expect: deny}\n"
    )
    assert hooks(forge) == {"tidegate-validate": 1, "tidegate-fmt": 1, "tidegate-test": 1}
