"""The commands as users meet them: exit statuses, one-line errors, no traceback whatever the files hold."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import compilerkit
from tidegate_compiler import files
from tidegate_schema.cli import EXIT_USAGE, run

EXAMPLE = str(compilerkit.ROOT / "inventory")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "inventory"))


@pytest.mark.parametrize(
    "args",
    [
        ("validate", "{}"),
        ("plan", "{}", EXAMPLE),
        ("compile", EXAMPLE, "--out", "{}/x"),
        ("test", EXAMPLE, "--junit", "{}/x"),
        ("access", "{}", EXAMPLE),
        ("inventory", "fmt", "{}"),
        ("inventory", "import", "{}", "--into", "{}"),
        ("publish", "{}", "--to", "{}", "--key", "{}"),
        ("validate", EXAMPLE, "{}"),
        ("validate", EXAMPLE, "--{}"),
        ("validate", EXAMPLE, "--format", "{}"),
        ("{}",),
    ],
    ids=" ".join,
)
def test_what_a_command_line_names_never_speaks_to_the_terminal(tidegate: Run, args: tuple[str, ...]) -> None:
    for hostile in ("a\x1b[31mb", "a\nb", "a\u202eb", "a\udc9bb", "a\x85b"):
        status, out, err = tidegate(*(arg.replace("{}", f"{EXAMPLE}/overlay.yaml/{hostile}") for arg in args))
        assert status in (1, EXIT_USAGE)
        assert out == ""
        assert all(line.isprintable() for line in err.split("\n"))
        assert "a\nb" not in err


def test_validate(tidegate: Run, copy: Path) -> None:
    assert tidegate("validate", copy) == (0, "0 errors, 0 warnings\n", "")
    (copy / "groups" / "people.yaml").write_text("engineers: {members: [alcie-laptop]}\n")
    status, out, _ = tidegate("validate", copy)
    assert status == 1
    assert f"{copy}/groups/people.yaml:1:23: error TG030 there is no 'alcie-laptop' in clients" in out
    assert "did you mean 'alice-laptop'? [unknown-reference]" in out
    status, out, _ = tidegate("validate", copy, "--format", "json")
    first = json.loads(out)["diagnostics"][0]
    assert (status, first["file"], first["line"], first["column"]) == (1, "groups/people.yaml", 1, 23)


def test_warnings_fail_only_when_strict(tidegate: Run, copy: Path) -> None:
    assert tidegate("validate", copy, "--strict", "--at", "2030-01-01")[0] == 0
    status, out, _ = tidegate("validate", copy, "--at", "2032-01-01")
    assert (status, out.count("TG057")) == (0, 2)
    assert tidegate("validate", copy, "--at", "2032-01-01", "--strict")[0] == 1


def test_compile(tidegate: Run, copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tidegate("compile", copy, "--out", out)[0] == 0
    status, text, _ = tidegate("compile", copy, "--out", out, "--json")
    assert (status, json.loads(text)) == (0, {"format": 1, "changed": [], "removed": []})
    (copy / "policies" / "engineering.yaml").write_text("p: {}\n")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    status, text, err = tidegate("compile", copy, "--out", out)
    assert (status, text) == (1, "")
    assert err.splitlines()[-1] == f"tidegate: {copy}: 1 error, 0 warnings"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    status, _, err = tidegate("compile", EXAMPLE, "--out", copy)
    assert status == 1
    assert err.count("\n") == 1


def test_access_tests(tidegate: Run, copy: Path, tmp_path: Path) -> None:
    junit = tmp_path / "report.xml"
    status, out, _ = tidegate("test", copy, "--junit", junit)
    assert (status, out) == (0, "26 passed, 0 failed, 0 policies untested\n")
    assert ElementTree.parse(junit).getroot().attrib["tests"] == "26"
    (copy / "tests" / "operations.yaml").write_text(
        "- {from: client:bob-laptop, to: 10.20.0.80, port: tcp/8080, expect: allow, at: 2027-01-01}\n"
    )
    status, out, _ = tidegate("test", copy, "--junit", junit)
    assert status == 1
    assert (
        "tests/operations.yaml:1:3: bob-laptop -> 10.20.0.80 tcp/8080 at 2027-01-01T00:00:00Z: expected allow"
        in out
    )
    assert "no test touches the policy nobody-logs-in-to-databases" in out
    assert len(ElementTree.parse(junit).getroot().findall("testcase/failure")) == 1
    status, out, _ = tidegate("test", copy, "--json")
    assert [result["passed"] for result in json.loads(out)["results"]].count(False) == 1


def test_explain(tidegate: Run) -> None:
    status, out, _ = tidegate("explain", EXAMPLE, "alice-laptop", "10.20.0.80", "tcp/8080", "--json")
    told = json.loads(out)
    assert (status, told["verdict"], told["policy"], told["gateway"], told["route"]) == (
        0, "allow", "eng-reaches-web", "fra1", "10.20.0.0/16",
    )  # fmt: skip
    assert (told["file"], told["line"]) == (f"{EXAMPLE}/policies/engineering.yaml", 1)
    status, out, _ = tidegate("explain", EXAMPLE, "bob-laptop", "fd20::80", "icmp")
    assert (status, out.splitlines()[0].split(" at ")[0]) == (3, "deny: bob-laptop -> fd20::80 icmp")
    status, out, _ = tidegate("explain", EXAMPLE, "erin-desktop", "10.20.5.3", "tcp/22")
    assert status == 3
    assert "policies/operations.yaml:8" in out
    status, out, _ = tidegate("explain", EXAMPLE, "ci-runner", "fd30::1", "tcp/873", "--json")
    assert (status, json.loads(out)["reason"]) == (3, "NO_ROUTE")
    status, out, _ = tidegate(
        "explain", EXAMPLE, "alice-laptop", "10.20.5.3", "tcp/5432", "--at", "2031-06-30"
    )
    assert status == 3
    assert "eng-reads-prod-db" in out


@pytest.mark.parametrize(
    "question",
    [
        ("nobody", "10.20.0.1", "tcp/1"), ("alice-laptop", "x\x1b[2J", "tcp/1"), ("alice-laptop", "10.20.0.1", "any"),
        ("alice-laptop", "10.20.0.1", "tcp/1-2"), ("alice-laptop", "10.20.0.1", "tcp/99999"), ("", "10.20.0.1", "icmp"),
        ("alice-laptop", "10.20.0.0/24", "icmp"), ("alice-laptop", "10.20.0.1", "proto/6"), ("a\u202e", "::1", "icmp"),
    ],
)  # fmt: skip
def test_a_question_without_an_answer_is_one_line_and_status_1(
    tidegate: Run, question: tuple[str, ...]
) -> None:
    status, out, err = tidegate("explain", EXAMPLE, *question)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.removesuffix("\n").isprintable()


@pytest.mark.parametrize("args", [("--at", "yesterday"), ("--at", "2027-02-30"), ("--nonsense",)])
def test_a_usage_error_is_64(tidegate: Run, args: tuple[str, ...]) -> None:
    assert tidegate("validate", EXAMPLE, *args)[0] == EXIT_USAGE


def test_init_is_valid_compiles_and_passes_its_tests(tidegate: Run, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert tidegate("init", new)[0] == 0
    assert tidegate("validate", new, "--strict") == (0, "0 errors, 0 warnings\n", "")
    assert tidegate("test", new)[1] == "3 passed, 0 failed, 0 policies untested\n"
    assert tidegate("compile", new, "--out", tmp_path / "out")[0] == 0
    status, _, err = tidegate("init", new)
    assert (status, err.count("\n")) == (1, 1)
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    assert tidegate("init", tmp_path / "repo")[0] == 0


def test_keys_and_publish(tidegate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # whose commits are not this repository's
    keys, out, target = tmp_path / "keys", tmp_path / "out", tmp_path / "bundles"
    status, told, _ = tidegate("keys", "init", keys)
    assert status == 0
    private = keys / "signing.key"
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.read_text().splitlines()[1] not in told
    before = private.read_bytes()
    assert tidegate("keys", "init", keys)[0] == 1
    assert private.read_bytes() == before
    tidegate("compile", EXAMPLE, "--out", out)
    words = ("--first", "--source", "abc", "--json")
    status, told, _ = tidegate("publish", out, "--to", target, "--key", private, *words)
    hosts = json.loads(told)["hosts"]
    assert (status, len(hosts), {host["serial"] for host in hosts}) == (0, 10, {1})
    status, told, _ = tidegate("publish", out, "--to", target, "--key", private, *words)
    assert status == 0
    assert told.count("unchanged") == 10
    status, _, err = tidegate("publish", out, "--to", target, "--key", private)
    assert status == 1
    assert (
        f"no git repository around {tmp_path}: run it inside the fleet's repository, or give --since OLD"
        in err
    )
    assert "--first is for a fleet to which nothing was published yet" in err
    for args in (
        (EXAMPLE, "--to", target, "--key", private),
        (tmp_path / "absent", "--to", target, "--key", private),
        (out, "--to", target, "--key", keys / "signing.pub"),
        (out, "--to", target, "--key", tmp_path / "absent"),
        (out, "--to", target, "--key", private, "--source", "a\nb"),
        (out, "--to", private, "--key", private),
    ):
        status, _, err = tidegate("publish", *args, "--since", out)
        assert (status, err.removeprefix(f"{out} -> {out}: no changes\n").count("\n")) == (1, 1), args
    for length in ("0d", "soon", "99999d", "-1d", "\u0663d"):
        assert (
            tidegate("publish", out, "--to", target, "--key", private, "--valid-for", length)[0] == EXIT_USAGE
        )


def test_missing_and_unreadable_places_are_one_line(tidegate: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for inventory in (tmp_path / "absent", tmp_path / "file"):
        for args in (["validate"], ["test"], ["compile", "--out", tmp_path / "out"]):
            status, _, err = tidegate(args[0], inventory, *args[1:])
            assert (status, err.count("\n")) == (1, 1)
    assert not (tmp_path / "out").exists()


def test_fifos_links_and_odd_file_names_are_told_not_followed(tidegate: Run, copy: Path) -> None:
    os.mkfifo(copy / "groups" / "pipe.yaml")
    (copy / "groups" / "link.yaml").symlink_to("/etc/passwd")
    (copy / "groups" / "a\x1b[2J\n.yaml").write_text("x")
    (os.fsencode(copy / "groups") + b"/\xff.yaml", "x")
    with open(os.fsencode(copy / "groups") + b"/\xff.yaml", "w") as file:  # noqa: PTH123 - bytes are no Path
        file.write("x: [")
    status, out, _ = tidegate("validate", copy)
    assert status == 1
    assert all(line.isprintable() for line in out.splitlines())
    assert {code for code in ("TG001", "TG002", "TG005") if code in out} == {"TG001", "TG002", "TG005"}
    assert "root:" not in out


@pytest.mark.parametrize("command", ["init", "validate", "compile", "test", "explain", "publish", "keys"])
def test_help_has_an_example(tidegate: Run, command: str) -> None:
    status, out, _ = tidegate(command, *(["init"] if command == "keys" else []), "--help")
    assert status == 0
    assert "Example" in out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_bytes_as_any_file_end_in_a_status(tidegate: Run, tmp_path: Path, data: st.DataObject) -> None:
    root = tmp_path / "fuzz"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(EXAMPLE, root)
    victim = data.draw(st.sampled_from(sorted(path for path in root.rglob("*.yaml"))))
    original = victim.read_bytes()
    position = data.draw(st.integers(0, len(original)))
    noise = data.draw(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"[", b"{", b"- ", b": ", b"\n", b"~", b"'"]))
    )
    victim.write_bytes(original[:position] + noise + original[position + data.draw(st.integers(0, 40)) :])
    assert tidegate("validate", root)[0] in (0, 1)
    assert tidegate("test", root)[0] in (0, 1)
    assert tidegate("explain", root, "alice-laptop", "10.20.0.80", "tcp/8080")[0] in (0, 1, 3)


def test_two_new_inventories_share_no_key_and_no_private_key_is_added_to_git(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        assert run(["init", str(tmp_path / name)]) == 0
        texts.append("".join(path.read_text() for path in sorted((tmp_path / name).rglob("*.yaml"))))
    found = [set(re.findall(r"public_key: (\S+)", text)) for text in texts]
    assert len(found[0]) == len(found[1]) == 3
    assert not found[0] & found[1]
    assert run(["keys", "init", str(tmp_path / "keys")]) == 0
    subprocess.run(["git", "-C", str(tmp_path), "init", "-q"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "add", "-A", "keys"], check=True)
    listed = subprocess.run(
        ["git", "-C", str(tmp_path), "ls-files", "keys"], capture_output=True, text=True, check=True
    )
    assert listed.stdout.split() == ["keys/.gitignore", "keys/signing.pub"]


def test_a_signing_key_that_others_may_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "init", str(tmp_path)]) == 0
    (tmp_path / "signing.key").chmod(0o644)
    assert run(["publish", "out", "--to", str(tmp_path / "b"), "--key", str(tmp_path / "signing.key")]) == 1
    assert "others may read" in capsys.readouterr().err


def test_a_public_key_is_no_key_to_sign_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "init", str(tmp_path)]) == 0
    assert run(["publish", "out", "--to", str(tmp_path / "b"), "--key", str(tmp_path / "signing.pub")]) == 1
    assert "not an unencrypted ed25519 private key" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("keys",), ("inventory",), ("inventory", "add")], ids=" ".join)
def test_a_group_by_itself_prints_its_help_on_lines(tidegate: Run, words: tuple[str, ...]) -> None:
    status, out, err = tidegate(*words)
    assert (status, out) == (EXIT_USAGE, "")
    assert err.startswith(f"Usage: {' '.join(('tidegate', *words))} ")
    assert "\nCommands:\n" in err
    assert "\\n" not in err


def test_a_misspelt_command_is_told_the_near_one(tidegate: Run) -> None:
    assert "No such command 'validat'. Did you mean 'validate'?" in tidegate("validat")[2]
    assert tidegate("validat")[0] == EXIT_USAGE
    assert tidegate("xyzzy")[2].endswith("No such command 'xyzzy'.\n")


def test_the_directory_above_an_inventory_is_told_so(tidegate: Run, copy: Path) -> None:
    status, out, _ = tidegate("validate", copy.parent)
    assert status == 1
    assert (
        "inventory:1:1: error TG004 an inventory inside an inventory is not read; name this directory" in out
    )


def test_one_file_is_one_file(tidegate: Run, copy: Path, tmp_path: Path) -> None:
    assert tidegate("compile", copy, "--out", tmp_path / "out")[0] == 0
    (tmp_path / "out/client/alice-laptop/wg0.conf").write_text("")
    assert "; 1 file written, " in tidegate("compile", copy, "--out", tmp_path / "out")[1]


def test_without_an_inventory_it_is_said_what_was_looked_for(
    tidegate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (("fmt",), ("remove", "client", "alice")):
        status, out, err = tidegate("inventory", *command)
        assert (status, out) == (1, "")
        assert "neither overlay.yaml nor inventory/" in err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_traceback(closed: str, tmp_path: Path) -> None:
    """A process that keeps its memory to the end flushes by itself, and then there may be nothing to flush."""
    log = tmp_path / "log"
    command = f"{sys.executable} -m tidegate_schema validate {compilerkit.ROOT / 'inventory'} {closed}"
    done = subprocess.run(["/bin/sh", "-c", f"({command}) >{log} 2>&1"], check=False)
    assert done.returncode == 0
    assert "Traceback" not in log.read_text()


def test_a_full_disk_is_one_line_and_a_failure() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tidegate_schema", "validate", str(compilerkit.ROOT / "inventory")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "tidegate: No space left on device\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_stream_changes_no_exit_status(tmp_path: Path, closed: str) -> None:
    arguments = (sys.executable, EXAMPLE, str(tmp_path / "out"))
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m tidegate_schema compile "$1" --out "$2" {closed}', *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("size", [0, 3, 10, 99])
def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")

    def content() -> bytes:
        with (tmp_path / "file").open("rb") as file:
            return files._content(file.fileno(), size)

    assert content() == b"0123456789"
    monkeypatch.setattr(files, "FILE_MAX_BYTES", 6)  # and one byte more tells that it is too large
    assert content() == b"0123456"
