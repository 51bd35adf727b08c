"""Progress is drawn on a terminal, a real one here, and nowhere else; the terminal is left as it was."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tidegate_compiler import progress
from tidegate_schema.cli import run

# A command that is long from its first moment.
AT_ONCE = "from tidegate_compiler import progress; progress.DELAY = progress._EVERY = 0"
COMMAND = f"{AT_ONCE}; from tidegate_schema.cli import main; main()"
INVENTORY = Path(__file__).parents[3] / "inventory"
SHOW_CURSOR = "\x1b[?25h"


def on_terminal(
    code: str, *args: object, environ: Mapping[str, str] | None = None, also_out: bool = False
) -> tuple[int, str, str]:
    """Run Python with standard error on a terminal; its exit status, its output, and what the terminal got."""
    leader, follower = pty.openpty()
    shown: list[bytes] = []

    def collect() -> None:
        try:
            while data := os.read(leader, 1 << 16):
                shown.append(data)
        except OSError:  # EIO: the last one that had it open is gone
            return

    reader = threading.Thread(target=collect)
    reader.start()
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=follower if also_out else subprocess.PIPE,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **(environ or {})},
    )
    os.close(follower)
    out, _ = child.communicate(timeout=60)
    reader.join(timeout=60)
    os.close(leader)
    return child.returncode, (out or b"").decode(), b"".join(shown).decode()


def screen(shown: str) -> list[str]:
    """Return the lines that a terminal shows in the end, by what it got."""
    lines, row, column = [""], 0, 0
    for wiped, up, ignored, text in re.findall(
        r"(\x1b\[2K)|(\x1b\[1A)|(\x1b\[[?0-9;]*[A-Za-z])|([\r\n]|[^\x1b\r\n]+)", shown
    ):
        if wiped:
            lines[row] = ""
        elif up:
            row -= 1
        elif text == "\r":
            column = 0
        elif text == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif not ignored:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
    return lines


def test_a_bar_counts_the_work_on_a_terminal_and_is_wiped_away(tmp_path: Path) -> None:
    status, out, shown = on_terminal(COMMAND, "compile", INVENTORY, "--out", tmp_path / "out")
    assert status == 0
    written = re.fullmatch(r"[0-9]+ hosts; ([0-9]+) files written, 0 removed, 0 unchanged\n", out)
    assert written
    for word in ("loading", "checking", "rendering", "writing", "━"):
        assert word in shown
    hosts = int(written[1]) - 1  # and the manifest, which is replaced last
    assert f" {hosts}/{hosts}\r" in shown
    # Hidden by the library and given back at once, so that a run that is killed leaves it, too.
    assert "\x1b[?25l" in shown
    assert "\x1b[?25l" not in shown.replace("\x1b[?25l" + SHOW_CURSOR, "")
    assert "".join(screen(shown)) == ""


def test_publishing_counts_the_hosts_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # whose commits are not this repository's
    for words in (
        ("compile", INVENTORY, "--out", tmp_path / "out"),
        ("keys", "init", tmp_path / "keys"),
    ):
        assert run([*map(str, words)]) == 0
    to = ("--to", tmp_path / "bundles", "--key", tmp_path / "keys" / "signing.key")
    status, out, shown = on_terminal(COMMAND, "publish", tmp_path / "out", *to, "--first")
    hosts = len(out.splitlines()) - 1  # the table's first line names its columns
    assert (status, hosts) == (0, 10)
    for word in ("reading", "publishing", "━", f" {hosts}/{hosts}\r"):
        assert word in shown
    assert "10 published" in screen(shown)


def test_what_is_printed_behind_a_bar_stands_on_clean_lines(tmp_path: Path) -> None:
    root = tmp_path / "inventory"
    shutil.copytree(INVENTORY, root)
    (root / "policies/more.yaml").write_text(
        "far: {from: [client:alice-laptop], to: [192.0.2.0/24], ports: [any], action: allow}\n"
    )
    _, _, shown = on_terminal(COMMAND, "compile", root, "--out", tmp_path / "out")
    [warning] = filter(None, screen(shown))
    assert warning.startswith(f"{root}/policies/more.yaml:1:1: warning TG0")


def test_short_work_shows_nothing() -> None:
    code = "from tidegate_compiler import progress; progress.DELAY = 60; from tidegate_schema.cli import main; main()"
    status, out, shown = on_terminal(code, "validate", INVENTORY, "--json")
    assert (status, shown) == (0, "")
    assert out.startswith("{")


def test_json_on_a_terminal_is_not_spoiled() -> None:
    _, _, shown = on_terminal(COMMAND, "validate", INVENTORY, "--json", also_out=True)
    assert json.loads("\n".join(screen(shown)))["format"] == 1


def test_nothing_is_written_into_a_pipe(tmp_path: Path) -> None:
    commands = (
        ("compile", INVENTORY, "--out", tmp_path / "out"),
        ("validate", INVENTORY),
        ("plan", INVENTORY, INVENTORY),
    )
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *map(str, command)],
            capture_output=True,
            env={**os.environ, "TERM": "xterm"},
            check=True,
        )
        printed = done.stdout + done.stderr
        assert b"\x1b" not in printed
        assert b"\r" not in printed
        assert not re.search(rb"loading|checking|writing", printed)


def test_dumb_terminals_get_no_bar_and_no_color_gets_no_colours() -> None:
    assert on_terminal(COMMAND, "validate", INVENTORY, environ={"TERM": "dumb"})[2] == ""
    plain = on_terminal(COMMAND, "validate", INVENTORY, environ={"NO_COLOR": "1"})[2]
    assert "loading" in plain
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", plain) is None
    assert re.search(
        r"\x1b\[[0-9;]*3[0-9]", on_terminal(COMMAND, "validate", INVENTORY, environ={"NO_COLOR": ""})[2]
    )


def test_an_ascii_terminal_is_told_in_ascii() -> None:
    status, _, shown = on_terminal(COMMAND, "validate", INVENTORY, environ={"PYTHONIOENCODING": "ascii"})
    assert status == 0
    assert "loading" in shown
    assert shown.isascii()


def test_the_terminal_is_given_back_when_work_is_interrupted() -> None:
    code = f"""{AT_ONCE}
with progress.shown():
    for number in progress.track("working", range(9)):
        if number == 5:
            raise KeyboardInterrupt
"""
    _, _, shown = on_terminal(code)
    assert shown.rindex(SHOW_CURSOR) < shown.index("Traceback")
    assert "working" not in shown[shown.rindex(SHOW_CURSOR) :].partition("Traceback")[0]


class Terminal(io.StringIO):
    """A terminal that can break."""

    broken = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.broken:
            raise OSError(5, "Input/output error")
        return super().write(text)


@contextmanager
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(progress, "_EVERY", 0)
    terminal = Terminal()
    with progress.shown(terminal, {"TERM": "xterm"}):
        yield terminal


def test_a_terminal_that_breaks_ends_the_bar_and_not_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    worked = []
    with drawn(monkeypatch) as terminal:
        for number in progress.track("working", range(9)):
            terminal.broken = number > 3
            worked.append(number)
    assert worked == list(range(9))
    assert "working" in terminal.getvalue()


def test_a_forked_worker_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn(monkeypatch) as terminal:
        progress.stage("parent", 2)
        before = terminal.getvalue()
        here = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: here + 1)
        progress.stage("child", 2)
        assert terminal.getvalue() == before
        monkeypatch.setattr(os, "getpid", lambda: here)


def test_without_a_terminal_the_work_is_handed_its_own_items() -> None:
    items = [1, 2, 3]
    assert progress.track("working", items) is items
    for stream in (io.StringIO(), None):
        with progress.shown(stream, {"TERM": "xterm"}):
            assert progress.track("working", items) is items
    for term in ("dumb", "unknown", ""):
        with progress.shown(Terminal(), {"TERM": term}):
            assert progress.track("working", items) is items
    closed = io.StringIO()
    closed.close()
    with progress.shown(closed, {"TERM": "xterm"}):
        assert progress.track("working", items) is items


def test_what_is_done_for_each_item_does_not_interrupt_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn(monkeypatch) as terminal:
        for _ in progress.track("formatting", range(3)):
            progress.stage("checking")
            assert list(progress.track("loading", [1])) == [1]
        assert "checking" not in terminal.getvalue()
        assert "loading" not in terminal.getvalue()
        assert re.search(r"formatting.* 3/3", terminal.getvalue())
        progress.stage("checking")
        assert "checking" in terminal.getvalue()


def test_a_block_in_a_block_shares_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn(monkeypatch) as terminal:
        with progress.shown(terminal, {"TERM": "xterm"}):
            progress.stage("inner")
        assert terminal.getvalue().count(SHOW_CURSOR) == 1  # as soon as it is hidden
    assert terminal.getvalue().count(SHOW_CURSOR) == 2
