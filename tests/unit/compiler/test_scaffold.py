"""`tidegate init`: an inventory, and what judges it at the top of the repository, where that really is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tidegate_compiler import scaffold, schemafiles
from tidegate_schema import validation
from tidegate_schema.cli import EXIT_USAGE, run

EVERY_JUDGE = ["--ci", "github", "--ci", "gitlab", "--ci", "pre-commit"]
JUDGING = {
    "CODEOWNERS",
    ".github/workflows/tidegate.yml",
    ".github/workflows/tidegate-comment.yml",
    ".gitlab-ci.yml",
    ".pre-commit-config.yaml",
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    top = tmp_path / "repository"
    top.mkdir()
    subprocess.run(["git", "init", "-q", str(top)], check=True)
    monkeypatch.chdir(top)
    return top


def files(top: Path) -> set[str]:
    return {
        str(path.relative_to(top)) for path in top.rglob("*") if path.is_file() and ".git/" not in str(path)
    }


def test_a_directory_of_its_own_is_its_repository(tmp_path: Path) -> None:
    assert run(["init", str(tmp_path / "new")]) == 0
    assert files(tmp_path / "new") == {
        *scaffold.inventory_files(),
        *("CODEOWNERS", ".github/workflows/tidegate.yml", ".github/workflows/tidegate-comment.yml"),
    }
    assert "\n/policies/ " in (tmp_path / "new/CODEOWNERS").read_text()
    assert "\n  INVENTORY: . #" in (tmp_path / "new/.github/workflows/tidegate.yml").read_text()


def test_a_repository_beyond_a_ceiling_is_not_found(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "below").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", f"{repository / 'below'}:{repository / 'x'}")
    assert run(["init", "below/inventory"]) == 0
    assert all(path.startswith("below/inventory/") for path in files(repository))
    assert (repository / "below/inventory/CODEOWNERS").is_file()


@pytest.mark.parametrize("inventory", ["inventory", "nets/eu.1/my-inventory", "."])
def test_what_judges_goes_to_the_top_and_names_the_path(repository: Path, inventory: str) -> None:
    assert run(["init", inventory, *EVERY_JUDGE]) == 0
    prefix = "" if inventory == "." else f"{inventory}/"
    assert files(repository) == {*JUDGING, *(prefix + path for path in scaffold.inventory_files())}
    load = YAML(typ="safe", pure=True).load
    assert load((repository / ".github/workflows/tidegate.yml").read_text())["env"]["INVENTORY"] == inventory
    assert (
        load((repository / ".gitlab-ci.yml").read_text())["tidegate"]["variables"]["INVENTORY"] == inventory
    )
    for hook in load((repository / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]:
        assert hook["args"] == [inventory]
        assert hook["files"] == ("^" + prefix.replace(".", "\\.").replace("-", "\\-"))
    owned = [
        line.split()[0]
        for line in (repository / "CODEOWNERS").read_text().splitlines()
        if line.startswith("/")
    ]
    for path in scaffold.inventory_files():
        if not path.startswith("."):
            assert any(f"/{prefix}{path}".startswith(one) for one in owned), path
    assert {"/.github/", "/.gitlab-ci.yml", "/CODEOWNERS"} <= set(owned)


@pytest.mark.parametrize("name", ["1.5", "null", "007", "off"])
def test_a_directory_that_yaml_would_misread_is_quoted(repository: Path, name: str) -> None:
    assert run(["init", name, *EVERY_JUDGE]) == 0
    workflow = (repository / ".github/workflows/tidegate.yml").read_text()
    assert f'INVENTORY: "{name}"' in workflow


@pytest.mark.parametrize("name", ["two words", "-x", "a$(id)", "a\nb", 'a"b'])
def test_a_path_that_is_no_plain_one_is_refused(
    repository: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", f"{repository}/{name}"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert files(repository) == set()


@pytest.mark.parametrize(
    "there", ["CODEOWNERS", ".github/CODEOWNERS", ".gitlab/CODEOWNERS", "docs/CODEOWNERS"]
)
def test_nothing_that_is_there_is_overwritten(
    repository: Path, there: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / there).parent.mkdir(exist_ok=True)
    (repository / there).write_text("* @everybody\n")
    (repository / ".gitlab-ci.yml").symlink_to("elsewhere.yml")
    assert run(["init", "inventory", "--ci", "gitlab"]) == 0
    assert (repository / there).read_text() == "* @everybody\n"
    assert not (repository / "elsewhere.yml").exists()
    assert [path for path in files(repository) if "CODEOWNERS" in path] == [there]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert f"{there}: is there and stays; give owners to /inventory/overlay.yaml " in told[0]
    assert ".gitlab-ci.yml: is there and stays" in told[1]


def test_paths_are_named_from_where_one_stands(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "inventory", "--ci", "gitlab"]) == 0
    assert {".gitlab-ci.yml", "CODEOWNERS", "inventory/overlay.yaml"} <= set(capsys.readouterr().out.split())
    monkeypatch.chdir(repository / "inventory")
    assert run(["init", "../other", "--ci", "pre-commit"]) == 0
    told = capsys.readouterr()
    assert {"../.pre-commit-config.yaml", "../other/overlay.yaml"} <= set(told.out.split())
    assert told.err.startswith("../CODEOWNERS: is there and stays; ")


def test_no_ci_can_be_had(repository: Path) -> None:
    assert run(["init", "inventory", "--ci", "none"]) == 0
    assert {path for path in files(repository) if not path.startswith("inventory/")} == {"CODEOWNERS"}
    assert run(["init", "other", "--ci", "none", "--ci", "github"]) == EXIT_USAGE


# The schemas that editors read -----------------------------------------------------------------------------------


def test_every_file_of_a_new_inventory_names_its_schema() -> None:
    made = scaffold.inventory_files()
    for path, data in made.items():
        if path.endswith(".yaml"):
            kind = path.partition("/")[0].removesuffix(".yaml")
            line = data.decode().partition("\n")[0]
            assert line == schemafiles.modeline(kind)
            named = (Path(path).parent / line.rpartition("=")[2]).as_posix()
            assert str(Path(named)).replace(f"{kind}/../", "") in made


def test_schema_prints_what_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in schemafiles.KINDS:
        assert run(["schema", kind]) == 0
        assert json.loads(capsys.readouterr().out) == validation.schema(kind)
    assert run(["schema"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(
        schemafiles.KINDS
    )
    assert set(schemafiles.KINDS) <= set(validation.kinds())


def test_schema_writes_what_differs_and_through_no_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, victim = tmp_path / "inventory/.schemas", tmp_path / "victim"
    assert run(["schema", "--out", str(out)]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == schemafiles.schema_files()
    victim.write_text("keep")
    (out / "tests.schema.json").unlink()
    (out / "tests.schema.json").symlink_to(victim)
    (out / "groups.schema.json").write_text("{}")
    capsys.readouterr()
    assert run(["schema", "--out", str(out)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert sorted(Path(line.split(": ")[0]).name for line in told if line.endswith(": written")) == [
        "groups.schema.json",
        "tests.schema.json",
    ]
    assert victim.read_text() == "keep"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == schemafiles.schema_files()
    assert run(["schema", "groups", "--out", str(out)]) == EXIT_USAGE
    assert run(["schema", "gropus"]) == EXIT_USAGE


def test_editing_keeps_the_line_that_names_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", "inventory"]) == 0
    for words in (
        ["add", "group", "guests", "--member", "laptop2"],
        ["add", "resource", "wiki", "--address", "10.20.0.90/32", "--port", "tcp/443"],
        ["remove", "group", "guests"],
        ["fmt"],
    ):
        assert run(["inventory", *words]) == 0
    for path in (tmp_path / "inventory").rglob("*.yaml"):
        kind = path.name if path.parent.name == "inventory" else path.parent.name
        assert path.read_text().startswith(schemafiles.modeline(kind.removesuffix(".yaml")) + "\n"), path
    assert run(["validate", "inventory", "--strict"]) == 0
