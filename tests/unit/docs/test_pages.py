"""What the pages point at is there: links, files, tests, modules, commands and their options."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from docskit import HOSTS, NOT_RUN, PAGES, PLACES, ROOT, Fence, fences, prose, read, shell_fences
from tidegate_compiler import scaffold
from tidegate_schema.cli import COMMANDS, tidegate

TOP = {path.name for path in ROOT.iterdir()}
SCAFFOLD = {f"inventory/{path}" for path in scaffold.FILES.values()}
TICKED = re.compile(r"`([^`\n]+)`")


def slug(heading: str) -> str:
    """Return the anchor that GitHub and GitLab give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(match) for match in re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)}


def test_there_are_pages() -> None:
    assert {"README.md", "README.ja.md", "docs/interface.md", "docs/threat-model.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page: str) -> None:
    for text in TICKED.findall(prose(page)):
        name = text.partition("::")[0]
        if re.fullmatch(r"[\w./-]+", name) and "/" in name and name.partition("/")[0] in TOP:
            assert (ROOT / name).exists() or name in SCAFFOLD, f"{page}: {text}"


@cache
def functions_of(file: str) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("page", PAGES)
def test_tests_that_are_named_are_there(page: str) -> None:
    for file, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", read(page)):
        assert name.startswith("test_")
        assert name in functions_of(file), f"{page}: {file}::{name}"


def test_every_defence_names_a_test() -> None:
    rows = [line for line in read("docs/threat-model.md").splitlines() if line.startswith("| ")]
    heads = [line for line in rows if re.search(r"\| test \|$", line)]
    assert (
        len(heads) == 13
    )  # six attackers, four of the control server, two tables of prohibitions, the invariants
    assert [line for line in rows if line not in heads and "::test_" not in line] == []


def test_the_attackers_are_named_with_what_is_not_defended() -> None:
    chapters = re.split(r"^## ", read("docs/threat-model.md"), flags=re.MULTILINE)
    for attacker in (
        *("A client with valid keys", "The transport of bundles", "The log endpoint"),
        "The network between client and gateway",
        *("The author of a pull request", "The control server", "A local user on the gateway"),
    ):
        chapter = next(text for text in chapters if text.startswith(attacker + "\n"))
        for word in ("**Has**", "**Wants**", "| defence | test |", "**Not defended.**"):
            assert word in chapter, attacker


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_are_named_are_there(page: str) -> None:
    for name in re.findall(r"`(tidegate_\w+(?:\.\w+)+)`", read(page)):
        importlib.import_module(name)


# Commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_of_commands_is_run_somewhere(page: str) -> None:
    for fence in shell_fences(page):
        assert fence.on in PLACES, f"{fence.where}: say where it is run: ```sh on={'|'.join(PLACES)}"
        if fence.on == "nowhere":
            for command in fence.commands:
                assert command in NOT_RUN, f"{fence.where}: {command}"
        assert fence.commands, fence.where


def test_no_reason_for_not_running_is_left_over() -> None:
    unrun = {
        command
        for page in PAGES
        for fence in shell_fences(page)
        if fence.on == "nowhere"
        for command in fence.commands
    }
    assert unrun == set(NOT_RUN)


def test_every_page_with_commands_for_hosts_has_a_test_that_follows_it() -> None:
    followed = set(re.findall(r'reader\.follow\("([^"]+)"\)', read("tests/netns/test_docs.py")))
    wanted = {page for page in PAGES for fence in shell_fences(page) if fence.on in HOSTS}
    assert wanted - {"README.ja.md"} == followed  # the Japanese one has the same commands, see below


def mentioned(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield every `tidegate …` of a page, in prose and in fences, with its words."""
    for text in TICKED.findall(prose(page)):
        if text.startswith("tidegate ") and "\\|" not in text and "…" not in text:
            yield text, text.split()[1:]
    for fence in fences(page):
        for line in re.findall(r"(?:^|= ?|[^/\w])(tidegate (?!:)[a-z].*)$", fence.text, re.MULTILINE):
            if fence.language in ("sh", "ini"):
                yield line, _words(line, fence)


def _words(line: str, fence: Fence) -> list[str]:
    try:
        return shlex.split(line.rstrip(")"), comments=True)[1:]
    except ValueError:
        raise AssertionError(f"{fence.where}: {line}") from None


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_that_are_mentioned_are_there(page: str) -> None:
    for text, words in mentioned(page):
        command: click.Command = tidegate
        names = list(words)
        while isinstance(command, click.Group) and names and not names[0].startswith("-"):
            name = names.pop(0)
            found = command.get_command(click.Context(command), name)
            assert found is not None, f"{page}: {text}: no command {name}"
            command = found
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for word in names:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, f"{page}: {text}: no option {word}"


def test_sessions_that_are_mentioned_are_there() -> None:
    nox_sessions = sessions()
    for page in PAGES:
        for name in re.findall(r"(?<!`)\./run ([a-z]+)", read(page)):
            assert name in nox_sessions, f"{page}: ./run {name}"


def sessions() -> set[str]:
    return {
        node.name
        for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }


def leaves() -> Iterator[tuple[str, ...]]:
    """Yield every command that does something, by its words."""

    def below(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                found = command.get_command(click.Context(command), name)
                assert found is not None
                yield from below((*path, name), found)
        else:
            yield path

    yield from below((), tidegate)


@pytest.mark.parametrize("path", list(leaves()), ids=" ".join)
def test_help_has_an_example_that_is_true(path: tuple[str, ...]) -> None:
    command: click.Command = tidegate
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)  # type: ignore[assignment]
    text = f"{command.help or ''} {command.epilog or ''}"
    assert re.search(r"Examples?:", text)
    assert f"tidegate {' '.join(path)} " in text or text.rstrip().endswith(f"tidegate {' '.join(path)}")


def test_every_command_is_in_some_page() -> None:
    pages = " ".join(read(page) for page in PAGES)
    assert [path for path in leaves() if f"tidegate {' '.join(path)}" not in pages] == []


def test_help_names_what_a_command_does_without_cutting_it_off() -> None:
    for name in COMMANDS:
        command = tidegate.get_command(click.Context(tidegate), name)
        if isinstance(command, click.Group):
            # click keeps a group's help option from the first context that asks, so that is one as in a real run.
            context = click.Context(command, terminal_width=80, help_option_names=["-h", "--help"])
            assert "..." not in command.get_help(context).partition("\nCommands:")[2], name


# The Japanese README --------------------------------------------------------------------------------------------


def _structure(page: str) -> list[str]:
    text = read(page)
    return [
        *("#" * len(level) for level in re.findall(r"^(#+) ", text, re.MULTILINE)),
        *re.findall(r"\]\(([^)\s]+)\)", text.replace("README.ja.md", "README.md")),
    ]


def test_the_japanese_readme_has_the_same_structure_and_commands() -> None:
    assert _structure("README.ja.md") == _structure("README.md")
    ours, theirs = (
        [(f.language, f.words, f.text) for f in fences(page)][1:] for page in ("README.md", "README.ja.md")
    )
    assert theirs == ours
