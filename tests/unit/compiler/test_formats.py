"""What `validate` prints in each format: where the caret is, what SARIF and workflow commands must look like."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import re
import shutil
import unicodedata
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import compilerkit
import rulepages
from tidegate_compiler import pipeline, terminal
from tidegate_compiler.codes import CODES
from tidegate_compiler.diagnostics import Diagnostic, Where, show, show_path
from tidegate_compiler.formats import github, sarif, text
from tidegate_compiler.formats.excerpt import WIDTH, excerpt
from tidegate_compiler.formats.sources import Sources, repository_path
from tidegate_compiler.report import to_json
from tidegate_schema.cli import EXIT_USAGE, run

BAD = compilerkit.ROOT / "tests" / "inventories" / "bad"
EXAMPLE = compilerkit.ROOT / "inventory"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def tidegate(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*args: object) -> tuple[int, str]:
        capfd.readouterr()
        status = run([str(arg) for arg in args])
        return status, capfd.readouterr().out

    return call


def width(shown: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in shown)


def under(shown: tuple[str, str]) -> str:
    """Return what of the source line stands above the caret, and right of it."""
    line, caret = shown
    assert caret.endswith("^")
    for at in range(len(line) + 1):
        if width(line[:at]) == len(caret) - 1:
            return line[at:]
    raise AssertionError(f"{caret!r} is under the middle of a character of {line!r}")


# Text


def test_text_shows_the_line_and_a_caret_after_what_editors_read(tidegate: Run) -> None:
    folder = BAD / "TG030-unknown-reference"
    status, out = tidegate("validate", folder)
    lines = out.splitlines()
    assert status == 1
    assert lines[:3] == [
        f"{folder}/clients/c.yaml:4:19: error TG030 there is no 'gw9' in gateways; did you mean 'gw1'? "
        "[unknown-reference]",
        "   4 |   gateways: [gw1, gw9]",
        "     |                   ^",
    ]
    assert lines[-1].endswith(" errors, 0 warnings")


@pytest.mark.parametrize("code", ["TG001", "TG002", "TG004", "TG010"])
def test_a_problem_of_a_whole_file_shows_no_line(tidegate: Run, code: str) -> None:
    folder = next(BAD.glob(f"{code}-*"))
    assert " | " not in tidegate("validate", folder)[1]


@pytest.mark.parametrize(
    ("line", "column", "above"),
    [
        ("abc: def", 6, "def"),
        ("\tabc: def", 2, "abc: def"),
        ("\u6f22\u5b57: x", 5, "x"),
        ("e\u0301: x", 5, "x"),
        ("\u05d0\u05d1: x", 5, "x"),
        ("\u0661\u0627: x", 5, "x"),
        ("\x1b[31m: x", 8, "x"),
        ("ab\u202e\u2066: x", 7, "x"),
        ("##[add-mask]: x", 15, "x"),
        ("##vso[a]: x", 11, "x"),
        ("caf\udce9: x", 7, "x"),
        ("abc", 4, ""),
        ("", 1, ""),
        ("k: " + "A" * 44 + " # x", 51, "x"),
    ],
)
def test_the_caret_is_under_its_column_whatever_stands_before_it(line: str, column: int, above: str) -> None:
    shown = excerpt(line, 7, column)
    assert under(shown) == above
    assert not {"R", "AL", "AN"} & set(map(unicodedata.bidirectional, shown[0]))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
def test_the_caret_is_right_in_any_encoding(encoding: str) -> None:
    shown = excerpt("\u6f22\u00e9\u2026: x", 1, 6, encoding)
    assert under(shown) == "x"
    shown[0].encode(encoding)


@given(st.text(max_size=400), st.integers(1, 420))
def test_an_excerpt_is_two_short_printable_lines(line: str, column: int) -> None:
    for part in excerpt(line, 1234567, column):
        assert part.isprintable()
        assert width(part) <= WIDTH + 16
    under(excerpt(line, 1, column))


def test_a_long_line_is_cut_on_both_sides_of_the_column() -> None:
    line = "a" * 500_000 + "X" + "b" * 500_000
    shown = excerpt(line, 1, 500_001)
    # Letters in such a row look like a key, so this one has spaces between them.
    assert len(shown[0]) <= WIDTH + 16
    line = "a " * 500_000 + "X" + " b" * 500_000
    shown = excerpt(line, 1, 1_000_001)
    assert under(shown).startswith("X b b")
    assert shown[0].startswith("   1 | ...")
    assert shown[0].endswith("...")


def test_no_key_is_told_in_full(tmp_path: Path, tidegate: Run) -> None:
    """A private key pasted anywhere cannot be told from a public one, so reports tell the beginning of either."""
    secret = compilerkit.key("secret")
    mangled = secret[:20] + " " + secret[20:]
    root = Path(shutil.copytree(EXAMPLE, tmp_path / "inventory"))
    clients = root / "clients" / "laptops.yaml"
    for field in (
        f"public_key: {secret}",
        f"public_key: {mangled}",
        f"public_key: {secret[:-2]}",
        f"private_key: {secret}",
        f"private_key: {secret[:9]}",
        f'"PrivateKey": {secret[:9]}',
        f"privatekey: {{x: {secret}}}",
        f"key: {secret}",
        f"key: {bytes(range(32)).hex()}",
        f"addresses: [{secret}",
        f"public_key:\n  {mangled}",
    ):
        clients.write_text(f"x: {{gateways: [nowhere], {field}}}\n")
        for form in ("text", "json", "sarif", "github"):
            status, out = tidegate("validate", root, "--format", form)
            assert status == 1
            value = field.partition(":")[2].strip("{}[ \n").removeprefix("x: ")
            for start in range(len(value) - 7):
                assert value[start : start + 8] not in out, (field, form)


def test_colour_is_for_terminals_and_as_asked(tidegate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = BAD / "TG056-redundant"
    plain = tidegate("validate", folder)[1]
    assert "\x1b" not in plain
    assert "\x1b" not in tidegate("validate", folder, "--color", "never")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    colored = tidegate("validate", folder, "--color", "always")[1]
    assert "\x1b[33m" in colored
    assert re.sub("\x1b\\[[0-9]*m", "", colored) == plain
    assert "\x1b" not in tidegate("validate", folder, "--color", "always", "--format", "github")[1]

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert terminal.wants_color("auto", Terminal(), {})
    assert not terminal.wants_color("auto", Terminal(), {"NO_COLOR": "1"})
    assert terminal.wants_color("auto", Terminal(), {"NO_COLOR": ""})
    assert not terminal.wants_color("auto", Terminal(), {"TERM": "dumb"})
    assert not terminal.wants_color("auto", io.StringIO(), {})
    assert not terminal.wants_color("never", Terminal(), {})
    assert not terminal.wants_color("auto", None, {})


def test_a_line_is_never_read_through_a_link_or_from_a_pipe(tmp_path: Path) -> None:
    import os

    (tmp_path / "secret").write_text("root: x\n")
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "a.yaml").symlink_to("../secret")
    (tmp_path / "clients").symlink_to("groups")
    (tmp_path / "groups" / "b.yaml").write_text("fine")
    os.mkfifo(tmp_path / "groups" / "c.yaml")
    sources = Sources(tmp_path)
    assert sources.line(Where("groups/b.yaml")) == "fine"
    for file in ("groups/a.yaml", "clients/b.yaml", "groups/c.yaml", "groups/none.yaml", "groups"):
        assert sources.line(Where(file)) is None
    assert sources.line(Where("groups/b.yaml", 2)) is None


# JSON


def test_json_counts_and_is_also_asked_for_by_json(tidegate: Run) -> None:
    folder = BAD / "TG055-shadowed"
    status, out = tidegate("validate", folder, "--json")
    told = json.loads(out)
    assert (status, told["format"], told["errors"], told["warnings"]) == (0, 1, 0, len(told["diagnostics"]))
    assert tidegate("validate", folder, "--format", "json") == (0, out)
    assert tidegate("validate", folder, "--format", "json", "--json") == (0, out)
    assert tidegate("validate", folder, "--format", "sarif", "--json")[0] == EXIT_USAGE


def test_plan_takes_json_too(tidegate: Run) -> None:
    status, out = tidegate("plan", EXAMPLE, EXAMPLE, "--json")
    assert (status, json.loads(out)["changes"]) == (0, False)
    assert tidegate("plan", EXAMPLE, EXAMPLE, "--format", "json") == (0, out)
    assert tidegate("plan", EXAMPLE, EXAMPLE, "--json", "--format", "markdown")[0] == EXIT_USAGE


# Workflow commands


def workflow_commands(log: str) -> list[tuple[str, dict[str, str], str]]:
    """Read a log as the runner does: github.com/actions/runner, src/Runner.Common/ActionCommand.cs."""
    found = []
    for line in re.split(r"\r\n|\r|\n", log):
        match = re.match(r"::([^ :]+)(?: ([^:]*(?::(?!:)[^:]*)*?))?::(.*)", line.lstrip())
        if match is None:
            assert not re.search(r"##(vso)?\[", line)
            continue
        properties = {}
        for pair in (match[2] or "").split(","):
            name, _, value = pair.partition("=")
            for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
                value = value.replace(code, char)
            properties[name] = value
        data = match[3]
        for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            data = data.replace(code, char)
        found.append((match[1], properties, data))
    return found


HOSTILE_NAMES = [
    "a,line=1::b.yaml",
    "%0A::error::x.yaml",
    "a\n::error::forged.yaml",
    "a\r::error::forged.yaml",
    "::stop-commands::x.yaml",
    "##[add-mask]x.yaml",
    "a: b.yaml",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_neither_a_file_name_nor_a_value_forges_a_workflow_command(
    tmp_path: Path, tidegate: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / ".git").touch()
    root = Path(shutil.copytree(EXAMPLE, tmp_path / "inventory"))
    value = json.dumps("x\n::error file=y::forged\r##[error]z%0A::warning::w")
    (root / "groups" / name).write_text(f"{value}: {{members: [{value}]}}\n")
    monkeypatch.chdir(tmp_path)
    status, out = tidegate("validate", "inventory", "--format", "github")
    told = workflow_commands(out)
    expected = pipeline.validate(root).diagnostics
    assert status == 1
    assert len(told) == len(expected) >= 2
    for (command, properties, data), found in zip(told, expected, strict=True):
        assert command == found.severity
        assert data == found.message
        assert properties == {
            "file": show_path(f"inventory/groups/{name}"),
            "line": str(found.where.line),
            "col": str(found.where.column),
            "title": f"{found.code} {CODES[found.code].slug}",
        }
    for form in ("text", "json", "sarif"):
        assert workflow_commands(tidegate("validate", "inventory", "--format", form)[1]) == []


def test_shown_values_are_no_commands_of_a_log() -> None:
    assert show("##[error]x") == r"'#\x23[error]x'"
    assert show_path("##vso[task.x]") == r"#\x23vso[task.x]"
    assert show("## heading [x]") == "'## heading [x]'"
    told = to_json({"file": "##[error]x"})
    assert "##[" not in told
    assert json.loads(told) == {"file": "##[error]x"}


@given(st.text(st.sampled_from("%0AD253C:,\r\n xyz")), st.text(min_size=1))
@example("a\nb\r\nc%0A", "%0A,:")
def test_a_workflow_command_says_what_was_said(message: str, file: str) -> None:
    line = "\n".join(github.lines([Diagnostic(Where(file, 3, 4), "TG030", message)], "inv"))
    [(_, properties, data)] = workflow_commands(line)
    assert (properties["file"], data) == (show_path(f"inv/{file}"), message)


# SARIF

SCHEMAS = compilerkit.ROOT / "tests" / "schemas"
SARIF = (SCHEMAS / "sarif-2.1.0.json").read_text("utf-8")


def official() -> jsonschema_rs.Draft7Validator:
    """Return the official schema's judge, of URIs and times, too."""
    schema = json.loads(SARIF)
    for part in (
        "run",
        "toolComponent",
    ):  # a pattern that only JavaScript takes, of a field that we do not write
        assert schema["definitions"][part]["properties"]["language"].pop("pattern").endswith("]?$")
    return jsonschema_rs.Draft7Validator(schema, validate_formats=True)


OFFICIAL = official()


def test_the_official_schema_is_the_one_that_was_recorded() -> None:
    assert f"`{hashlib.sha256(SARIF.encode()).hexdigest()}`" in (SCHEMAS / "README.md").read_text()


@pytest.mark.parametrize(
    "wrong",
    [
        {"ruleId": 1},
        {"level": "fatal"},
        {"message": {}},
        {"colour": "red"},
        {"locations": [{"physicalLocation": {"region": {"startLine": 0}}}]},
        {"locations": [{"physicalLocation": {"artifactLocation": {"uri": "a b"}}}]},
    ],
)
def test_the_official_schema_would_tell(wrong: dict[str, Any]) -> None:
    log = sarif.document(pipeline.validate(BAD / "TG017-bad-name").diagnostics, "inventory", Sources(BAD))
    assert OFFICIAL.is_valid(log)
    log["runs"][0]["results"][0] |= wrong
    assert not OFFICIAL.is_valid(log)


def judged(log: dict[str, Any]) -> dict[str, Any]:
    """Check a log's structure, and return its one run."""
    assert [error.message for error in OFFICIAL.iter_errors(log)] == []
    [found] = log["runs"]
    rules = found["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["help"]["text"]  # GitHub's code scanning shows it, and asks for it
        assert "helpUri" not in rule  # there is no such page on the net; the help itself is carried
    for result in found["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert "](" not in result["message"]["text"]
        assert not re.search(r"\{[0-9]+\}", result["message"]["text"])
    prints = [json.dumps(result["partialFingerprints"]) for result in found["results"]]
    assert len(set(prints)) == len(prints)
    assert isinstance(found, dict)
    return found


def sarif_of(root: Path, directory: str = "inventory") -> dict[str, Any]:
    return judged(sarif.document(pipeline.validate(root, 0).diagnostics, directory, Sources(root)))


@pytest.mark.parametrize("folder", sorted(BAD.iterdir()), ids=lambda folder: folder.name)
def test_every_diagnostic_is_a_valid_sarif_result(folder: Path) -> None:
    found = pipeline.validate(folder, 0).diagnostics
    results = sarif_of(folder)["results"]
    assert [(r["ruleId"], r["level"], r["locations"][0]["physicalLocation"]["region"]) for r in results] == [
        (d.code, d.severity, {"startLine": d.where.line, "startColumn": d.where.column}) for d in found
    ]


def test_a_clean_inventory_is_a_valid_log_without_results(tidegate: Run) -> None:
    status, out = tidegate("validate", EXAMPLE, "--format", "sarif")
    assert (status, judged(json.loads(out))["results"]) == (0, [])


def test_the_rules_are_the_sections_of_the_page() -> None:
    assert rulepages.COPY.read_text("utf-8") == rulepages.text(), "run: python tests/rulepages.py"
    for rule in sarif_of(BAD / "TG030-unknown-reference")["tool"]["driver"]["rules"]:
        assert rule["help"]["markdown"] == rulepages.sections()[rule["id"]]
        assert len(rule["shortDescription"]["text"]) < 200


def test_a_path_in_sarif_is_a_relative_uri_that_leads_back_to_the_file(tmp_path: Path) -> None:
    names = ["a b.yaml", "100%.yaml", "a:b.yaml", "#?.yaml", "caf\u00e9.yaml", "\udcff.yaml", "a\n.yaml"]
    root = tmp_path / "inv entory"
    (root / "groups").mkdir(parents=True)
    for name in names:
        (root / "groups" / name).write_text("x: [")
    results = sarif_of(root, "sub dir/inv entory")["results"]
    uris = [result["locations"][0]["physicalLocation"]["artifactLocation"] for result in results]
    assert all(location["uriBaseId"] == "%SRCROOT%" for location in uris)
    found = {urllib.parse.unquote(location["uri"], errors="surrogateescape") for location in uris}
    assert found == {f"sub dir/inv entory/groups/{name}" for name in names} | {
        "sub dir/inv entory/overlay.yaml"
    }
    absolute = sarif_of(root, "/srv/x")["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert absolute["uri"].startswith("file:///srv/x/groups/")


def test_a_fingerprint_stays_when_lines_move_and_when_others_come_and_go(tmp_path: Path) -> None:
    def prints(files: dict[str, str]) -> dict[str, str]:
        root = Path(
            shutil.copytree(BAD / "TG030-unknown-reference", tmp_path / str(len(list(tmp_path.iterdir()))))
        )
        for name, content in files.items():
            (root / name).write_text(content)
        return {
            result["message"]["text"]: result["partialFingerprints"]["tidegate/v1"]
            for result in sarif_of(root)["results"]
        }

    policies = (BAD / "TG030-unknown-reference" / "policies" / "p.yaml").read_text()
    before = prints({})
    after = prints(
        {"policies/p.yaml": "# new\n\n" + policies.replace("  to:", "    to:").replace("    to", "  to")}
    )
    assert after == before
    fewer = prints({"groups/staff.yaml": "staff: {members: [alice]}\n"})
    assert fewer.items() <= before.items()
    assert len(fewer) < len(before)


def test_paths_are_told_from_the_top_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repo" / "net" / "inv").mkdir(parents=True)
    (tmp_path / "repo" / ".git").touch()
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "repo" / "net")
    assert repository_path(Path("inv")) == "net/inv"
    assert repository_path(Path()) == "net"
    monkeypatch.chdir(tmp_path / "alone")
    assert repository_path(tmp_path / "repo") == "."
    monkeypatch.chdir(tmp_path)
    if not any((above / ".git").exists() for above in tmp_path.resolve().parents):
        assert repository_path(Path("alone")) == "alone"
        monkeypatch.chdir(tmp_path / "alone")
        assert repository_path(tmp_path / "repo" / "..") == str(tmp_path.resolve())


def test_values_are_no_markup_of_a_sarif_message() -> None:
    found = Diagnostic(Where("groups/a.yaml"), "TG030", "there is no '[x](https://evil.example) {0} {1}'")
    log = sarif.document([found], "inventory", Sources(EXAMPLE))
    assert judged(copy.deepcopy(log))["results"][0]["message"]["text"] == (
        r"there is no '[x]\x28https://evil.example) \x7b0} \x7b1}'"
    )


def test_the_text_lines_are_what_they_were_but_for_the_excerpt() -> None:
    folder = BAD / "TG017-bad-name"
    found = pipeline.validate(folder).diagnostics
    told = [line for line in text.lines(found, "x/", Sources(folder)) if " | " not in line]
    assert [line.split(": ")[0] for line in told] == [f"x/{d.where}" for d in found]
