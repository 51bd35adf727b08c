"""The files of docs/ci: pinned, read-only, and one source with what `tidegate init` writes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cikit import CI, load
from tidegate_compiler import scaffold
from tidegate_schema import __version__

PINNED = ("github/tidegate.yml", "gitlab-ci.yml", "pre-commit-config.yaml")
WORKFLOWS = ("github/tidegate.yml", "github/tidegate-comment.yml")


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_what_init_writes_is_what_the_pages_carry() -> None:
    written = scaffold.judging_files(scaffold.JUDGES, "inventory")
    sources = {"CODEOWNERS": "CODEOWNERS"} | {
        path: source for judge in scaffold.JUDGES.values() for source, path in judge.items()
    }
    assert {path: (CI / source).read_bytes() for path, source in sources.items()} == written
    carried = {str(path.relative_to(CI)) for path in CI.rglob("*") if path.is_file()} - {"README.md"}
    assert set(sources.values()) == carried


@pytest.mark.parametrize("file", PINNED)
def test_the_release_that_judges_is_this_one_and_named_once(file: str) -> None:
    """A new version changes one place in each file, and this test says so."""
    text = (CI / file).read_text()
    assert re.findall(r"\d+\.\d+\.\d+(?:rc\d+|\.dev\d+)?", re.sub(r"(# v|python:).*", "", text)) == [
        __version__
    ]
    if file == "pre-commit-config.yaml":
        for hook in load(file)["repos"][0]["hooks"]:
            assert hook["additional_dependencies"] == [f"tidegate=={__version__}"]
    else:
        assert '"tidegate==$TIDEGATE_VERSION"' in text


@pytest.mark.parametrize("file", WORKFLOWS)
def test_actions_are_pinned_by_commit(file: str) -> None:
    for step in steps(load(file)):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
            assert re.search(re.escape(step["uses"]) + r" # v\d+\.\d+\.\d+\n", (CI / file).read_text())


@pytest.mark.parametrize("file", WORKFLOWS)
def test_no_command_is_made_of_what_somebody_wrote(file: str) -> None:
    """`${{ … }}` is put into the script before a shell reads it: a branch named `$(id)` would run."""
    for step in steps(load(file)):
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("file", [*WORKFLOWS, "gitlab-ci.yml"])
def test_there_is_no_secret(file: str) -> None:
    assert not re.search(r"secrets[.\[]|TOKEN: (?!\$\{\{ github\.token \}\})", (CI / file).read_text())


def test_what_judges_reads_only() -> None:
    workflow = load("github/tidegate.yml")
    assert workflow["permissions"] == {}
    assert workflow["on"] == ["pull_request"]  # never pull_request_target, which has the repository's rights
    assert [job["permissions"] for job in workflow["jobs"].values()] == [{"contents": "read"}]
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False]
    assert "token" not in (CI / "github/tidegate.yml").read_text().partition("name: tidegate")[2]


def test_what_comments_runs_nothing_of_the_pull_request() -> None:
    workflow = load("github/tidegate-comment.yml")
    assert workflow["permissions"] == {}
    assert workflow["on"] == {"workflow_run": {"workflows": ["tidegate"], "types": ["completed"]}}
    assert load("github/tidegate.yml")["name"] == "tidegate"
    (job,) = workflow["jobs"].values()
    assert job["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert job["if"] == "github.event.workflow_run.event == 'pull_request'"
    assert [step for step in job["steps"] if "uses" in step] == []  # no checkout, no download that unpacks
