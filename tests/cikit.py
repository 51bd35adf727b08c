"""The files of docs/ci as a CI service runs them: steps in their order, in a clone, with this checkout's `tidegate`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import gitkit
from docskit import ROOT

CI = ROOT / "docs" / "ci"


def load(file: str) -> Any:
    """Return the YAML of a file of docs/ci."""
    return parse((CI / file).read_text("utf-8"))


def parse(text: str) -> Any:
    """Return a CI file's YAML; `on` stays text, as in YAML 1.2."""
    return YAML(typ="safe", pure=True).load(text)


def script(file: str, name: str) -> str:
    """Return the commands of the step with this name."""
    (job,) = load(file)["jobs"].values()
    (found,) = (step["run"] for step in job["steps"] if step.get("name") == name)
    assert isinstance(found, str)
    return found


@dataclass(frozen=True)
class Ran:
    """One script's end: its exit status, and what it said on either stream."""

    status: int
    said: str


class Runner:
    """A machine of a CI service: `tidegate` and `pip` on PATH, nobody's git settings, no name of the outside."""

    def __init__(self, directory: Path) -> None:
        self.temp = directory / "runner temp"
        self.programs = directory / "programs"
        self.temp.mkdir()
        self.programs.mkdir()
        self.installed = directory / "installed"
        gitkit.tidegate(self.programs)
        # The release is pinned by the file and may not be published yet: the checkout stands in for it.
        self.program("pip", f'printf "%s\\n" "$*" >>{shlex.quote(str(self.installed))}')
        inherited = {k: v for k, v in os.environ.items() if not re.match(r"GIT_|CI|GITHUB_|RUNNER_", k)}
        self.environment = gitkit.environment(directory, self.programs, "Somebody", inherited)

    def program(self, name: str, body: str) -> None:
        gitkit.program(self.programs, name, body)

    def run(self, words: Sequence[str], where: Path, env: Mapping[str, str] = {}) -> Ran:
        done = subprocess.run(
            words,
            cwd=where,
            env=self.environment | dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return Ran(done.returncode, done.stdout)

    def git(self, where: Path, *words: str) -> str:
        done = self.run(["git", *words], where)
        assert done.status == 0, done.said
        return done.said.strip()

    def github(self, workflow: Any, where: Path) -> tuple[Ran, dict[str, Path]]:
        """Run a workflow's steps in a checkout; how that ended, at the first failure, and artifacts by name.

        As GitHub runs them: `bash --noprofile --norc -eo pipefail FILE`, one process for each step.
        """
        summary = self.temp / "summary"
        env = {
            **{name: str(value) for name, value in workflow["env"].items()},
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_STEP_SUMMARY": str(summary),
        }
        assert workflow["defaults"]["run"]["shell"] == "bash"
        artifacts: dict[str, Path] = {}
        said, status = "", 0
        (job,) = workflow["jobs"].values()
        for number, step in enumerate(job["steps"]):
            if "run" in step:
                assert set(step) <= {"name", "run"}
                (self.temp / f"{number}.sh").write_text(step["run"])
                shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(self.temp / f"{number}.sh")]
                ran = self.run(shell, where, env)
                said, status = said + ran.said, ran.status
                if status != 0:
                    break
            elif step["uses"].startswith("actions/upload-artifact@"):
                path = Path(step["with"]["path"].replace("${{ runner.temp }}", str(self.temp)))
                assert path.is_file()
                artifacts[step["with"]["name"]] = path
            else:
                assert step["uses"].startswith(("actions/checkout@", "actions/setup-python@"))
        return Ran(status, said), artifacts

    def gitlab(self, where: Path, **env: str) -> Ran:
        """Run the job's script as a GitLab runner does: one bash, with -e and -o pipefail, line after line."""
        job = load("gitlab-ci.yml")["tidegate"]
        told = {name: str(value) for name, value in job["variables"].items()} | env
        (self.temp / "job.sh").write_text("\n".join(["set -eo pipefail", *job["script"]]))
        return self.run(["bash", str(self.temp / "job.sh")], where, told)
