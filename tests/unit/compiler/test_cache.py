"""The cache saves time and nothing else: it changes no output, and one that is not ours is passed over."""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compilerkit
from bench import fleet
from tidegate_compiler import cache as caching
from tidegate_compiler import cachedrows, load, pipeline, sheets
from tidegate_compiler.cache import Cache
from tidegate_schema.cli import run
from tidegate_schema.keys import LOW_ORDER_KEYS

pytestmark = pytest.mark.usefixtures("own_state")
EXAMPLE = compilerkit.ROOT / "inventory"
PACKAGE = compilerkit.ROOT / "compiler" / "tidegate_compiler"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hold the kinds of the clients' and groups' files that were read the fast way, in order."""
    found: list[str] = []
    real = load._quickly

    def quickly(file: str, data: bytes) -> Any:
        content = real(file, data)
        if content is not None and file.partition("/")[0] in sheets.KINDS:
            found.append(file.partition("/")[0])
        return content

    monkeypatch.setattr(load, "_quickly", quickly)
    return found


def compiled(directory: Path | None, root: Path = EXAMPLE) -> dict[str, bytes]:
    known = None if directory is None else Cache(directory)
    result = pipeline.compile_inventory(root, known)
    assert isinstance(result, pipeline.Compiled)
    if known is not None:
        known.save()
    return dict(result.files)


def test_the_second_run_parses_nothing_and_says_the_same(tmp_path: Path, parsed: list[str]) -> None:
    first = compiled(tmp_path / "cache")
    assert parsed
    parsed.clear()
    assert compiled(tmp_path / "cache") == first
    assert parsed == []
    assert compiled(None) == first
    before = (tmp_path / "cache/rows").stat().st_mtime_ns
    compiled(tmp_path / "cache")
    assert (tmp_path / "cache/rows").stat().st_mtime_ns == before


def test_only_the_file_that_changed_is_parsed(tmp_path: Path, parsed: list[str]) -> None:
    root = tmp_path / "fleet"
    fleet.generate(root, 1200)
    compiled(tmp_path / "cache", root)
    parsed.clear()
    text = (root / "clients/0001.yaml").read_text()
    (root / "clients/0001.yaml").write_text(text.replace(fleet.key("client 700"), fleet.key("another")))
    changed = compiled(tmp_path / "cache", root)
    assert parsed == ["clients"]
    assert changed == compiled(None, root)
    # What is not used any more goes.
    assert (
        len([key for key in table(tmp_path / "cache/rows") if key.startswith(("clients", "groups"))]) == 3 + 6
    )


def table(path: Path) -> dict[str, list[Any]]:
    """Return where the entries of a cache are: offset, length, digest."""
    found: dict[str, list[Any]] = json.loads(path.read_bytes().split(b"\n", 2)[1])
    return found


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _flip(path: Path) -> None:
    head, line, entries = path.read_bytes().split(b"\n", 2)
    path.write_bytes(b"\n".join([head, line.replace(b"0", b"1", 1), entries]))


def _flip_an_entry(path: Path) -> None:
    head, line, entries = path.read_bytes().split(b"\n", 2)
    offset, length, _ = next(found for key, found in table(path).items() if key.startswith("clients"))
    spoilt = bytearray(entries)
    spoilt[offset + length // 2] ^= 1
    path.write_bytes(b"\n".join([head, line, spoilt]))


def _cut_the_entries(path: Path) -> None:
    head, line, _ = path.read_bytes().split(b"\n", 2)
    path.write_bytes(b"\n".join([head, line, b""]))


def _of_another_version(path: Path) -> None:
    head, _, body = path.read_bytes().partition(b"\n")
    words = head.split()
    path.write_bytes(b" ".join([*words[:3], b"0" * 32, words[-1]]) + b"\n" + body)


def _writable_by_others(path: Path) -> None:
    path.chmod(0o666)


def _a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _of_another_user(path: Path) -> None:
    os.chown(path, 65534, 65534)


def _from_another_machine(path: Path) -> None:
    (path.parents[1] / "state/tidegate/cache.key").unlink()


def _secret_for_all_to_read(path: Path) -> None:
    (path.parents[1] / "state/tidegate/cache.key").chmod(0o644)


def _secret_emptied(path: Path) -> None:
    (path.parents[1] / "state/tidegate/cache.key").write_bytes(b"")


@pytest.mark.parametrize(
    "spoil",
    [
        *(
            _cut,
            _flip,
            _flip_an_entry,
            _cut_the_entries,
            _of_another_version,
            _writable_by_others,
            _a_link,
            _a_fifo,
            _of_another_user,
        ),
        *(_from_another_machine, _secret_emptied, _secret_for_all_to_read),
    ],
)
def test_what_is_corrupt_or_foreign_is_passed_over(
    tmp_path: Path, parsed: list[str], spoil: Callable[[Path], None]
) -> None:
    first = compiled(tmp_path / "cache")
    spoil(tmp_path / "cache/rows")
    parsed.clear()
    assert compiled(tmp_path / "cache") == first
    assert parsed


ENTRIES = {f"step {number}": bytes([number]) * 100 for number in range(100)}


def keep(directory: Path, entries: dict[str, bytes], gone: Collection[str] = ()) -> None:
    """Let a run keep all that there is but for what goes, and these entries."""
    cache = Cache(directory)
    cache.use(cache.there)
    cache.forget(gone)
    for key, data in entries.items():
        cache.put(key, data)
    cache.save()


def kept(directory: Path) -> dict[str, bytes | None]:
    cache = Cache(directory)
    return {key: cache.get(key) for key in cache.there}


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a cache that is not written anew where little changes."""
    monkeypatch.setattr(caching, "LARGE", 10_000)
    keep(tmp_path / "cache", ENTRIES)
    return tmp_path / "cache"


def test_a_small_change_leaves_the_rows_as_they_are(large: Path) -> None:
    rows = (large / "rows").read_bytes()
    keep(large, {"step 1": b"other", "step new": b"new"}, ["step 2"])
    assert kept(large) == {key: data for key, data in ENTRIES.items() if key != "step 2"} | {
        "step 1": b"other",
        "step new": b"new",
    }
    keep(large, {"step 2": b"again"}, ["step new", "step 1"])
    assert kept(large) == {key: data for key, data in ENTRIES.items() if key != "step 1"} | {
        "step 2": b"again"
    }
    assert (large / "rows").read_bytes() == rows
    assert "step new" not in table(large / "changes")


@pytest.mark.parametrize("change", [(26, 0), (1, 26), (13, 13)])
def test_a_large_change_is_written_with_the_rows(large: Path, change: tuple[int, int]) -> None:
    keep(large, {"step 99": b""})
    assert (large / "changes").exists()
    new, gone = (
        {f"step {n}": b"x" * 100 for n in range(change[0])},
        [f"step {98 - n}" for n in range(change[1])],
    )
    keep(large, new, gone)
    assert not (large / "changes").exists()
    assert kept(large) == {
        key: data for key, data in (ENTRIES | new | {"step 99": b""}).items() if key not in gone
    }


def test_of_little_all_is_written_each_time(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "LARGE", 10_001)
    keep(large, {"step 1": b"other"})
    assert not (large / "changes").exists()


def _of_other_rows(path: Path) -> None:
    """Of the same user and version, and with entries of the same names."""
    other = path.parents[1] / "other"
    keep(other, ENTRIES | {"step 7": b"x" * 100})
    keep(other, {"step 1": b"other"})
    (other / "changes").rename(path)


def _the_rows_again(path: Path) -> None:
    path.write_bytes((path.parent / "rows").read_bytes())


@pytest.mark.parametrize(
    "spoil",
    [
        *(_cut, _flip, _of_another_version, _writable_by_others, _a_link, _a_fifo, _of_another_user),
        *(_of_other_rows, _the_rows_again),
    ],
)
def test_changes_that_are_corrupt_or_foreign_are_passed_over(
    large: Path, spoil: Callable[[Path], None]
) -> None:
    keep(large, {"step 1": b"other", "step new": b"new" * 100}, ["step 2"])
    assert kept(large) != ENTRIES
    spoil(large / "changes")
    assert kept(large) == ENTRIES
    keep(large, {"step 1": b"other"})
    assert kept(large) == ENTRIES | {"step 1": b"other"}


def test_changes_without_their_rows_are_nothing(large: Path) -> None:
    keep(large, {"step 1": b"other"})
    (large / "changes").rename(large / "rows")
    assert kept(large) == {}


def test_an_entry_of_changes_that_is_damaged_is_not_there(large: Path) -> None:
    keep(large, {"step 1": b"other"})
    data = (large / "changes").read_bytes()
    (large / "changes").write_bytes(data.replace(b"other", b"ether"))
    assert kept(large) == ENTRIES | {"step 1": None}


def test_one_of_another_version_that_says_it_is_of_this_one_is_passed_over(
    tmp_path: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(caching, "__version__", "0.0.0")
        compiled(tmp_path / "cache")
    assert caching.__version__ != "0.0.0"
    head, _, body = (tmp_path / "cache/rows").read_bytes().partition(b"\n")
    words = head.split(b" ")
    words[3] = caching._made_by().encode()
    (tmp_path / "cache/rows").write_bytes(b" ".join(words) + b"\n" + body)
    parsed.clear()
    compiled(tmp_path / "cache")
    assert parsed


def test_one_of_other_code_of_the_same_version_is_passed_over(
    tmp_path: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a working copy, which has a version of its own only when it is released."""
    for place, name in zip(caching._CODE, ["__init__.py"] * 4 + ["clients.schema.json"], strict=True):
        assert name.endswith(place[1])
        assert (place[0] / name).is_file()
    (tmp_path / "code").mkdir()
    (tmp_path / "code/module.py").write_text("one")
    monkeypatch.setattr(caching, "_CODE", ((tmp_path / "code", ".py"),))
    compiled(tmp_path / "cache")
    (tmp_path / "code/module.py").write_text("another")
    parsed.clear()
    compiled(tmp_path / "cache")
    assert parsed


def test_a_user_without_a_home_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container under a number that /etc/passwd does not have."""

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert run(["validate", str(EXAMPLE), "--cache", str(tmp_path / "cache")]) == 0
    assert not (tmp_path / "cache").exists()


def test_a_state_directory_is_never_taken_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    compiled(tmp_path / "cache")
    assert (tmp_path / "home/.local/state/tidegate/cache.key").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "here").exists()


def test_a_secret_that_was_cut_short_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(path: Path, parts: Any) -> None:
        path.touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(caching, "_create", cut)
        with pytest.raises(KeyboardInterrupt):
            compiled(tmp_path / "cache")
    assert list((tmp_path / "state/tidegate").iterdir()) == []
    compiled(tmp_path / "cache")
    assert (tmp_path / "cache/rows").is_file()


def entry(kind: str, **members: Any) -> dict[str, Any]:
    """Return an entry as the cache writes it, with other members put in."""
    rows: Any = {
        "clients": {"a": (bytes(range(32)), (b"\x0a\x40\x00\x01",), ("gw",))},
        "groups": {"g": (("a", "b"), {}, {"a": 7})},
    }[kind]
    return {**cachedrows.WRITERS[kind](rows), **members}


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("clients", {"names": "../../etc"}),
        ("clients", {"names": "a\n"}),
        ("clients", {"names": "a\na"}),
        ("clients", {"names": "A"}),
        ("clients", {"keys": base64.b64encode(bytes(31)).decode()}),
        ("clients", {"keys": base64.b64encode(min(LOW_ORDER_KEYS)).decode()}),
        ("clients", {"addresses": base64.b64encode(bytes(5)).decode()}),
        ("clients", {"shapes": [[5]]}),
        ("clients", {"shapes": [[]], "addresses": ""}),
        ("clients", {"shape": [-1]}),
        ("clients", {"shape": [1]}),
        ("clients", {"list": [7]}),
        ("clients", {"lists": [["gw\n[Peer]"]]}),
        ("clients", {"lists": 3}),
        ("groups", {"members": ["a\nb c"]}),
        ("groups", {"members": ["a\na"]}),
        ("groups", {"members": []}),
        ("groups", {"expires": {"g": {"a": "7"}}}),
        ("groups", {"expires": {"g": {"a": -7}}}),
        ("groups", {"expires": {"g": {"a": True}}}),
        ("groups", {"expires": {"h": {"a": 7}}}),
        ("groups", {"not_before": []}),
    ],
)
def test_an_entry_holds_no_more_than_a_file_could(kind: str, members: dict[str, Any]) -> None:
    assert cachedrows.READERS[kind](entry(kind))
    with pytest.raises((ValueError, IndexError, TypeError, AttributeError, KeyError)):
        cachedrows.READERS[kind](entry(kind, **members))


NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
KEYS = st.binary(min_size=32, max_size=32).filter(lambda key: key not in LOW_ORDER_KEYS)
CLIENTS = st.tuples(
    KEYS,
    st.lists(ADDRESSES, min_size=1, max_size=4).map(tuple),
    st.lists(NAMES, min_size=1, max_size=3, unique=True).map(tuple),
)
TIMES = st.dictionaries(NAMES, st.integers(0, 1 << 40), min_size=1, max_size=3)
GROUPS = st.tuples(
    st.lists(NAMES, min_size=1, max_size=5, unique=True).map(tuple), st.just({}) | TIMES, st.just({}) | TIMES
)


@settings(deadline=None)
@given(st.dictionaries(NAMES, CLIENTS, min_size=1, max_size=8), st.dictionaries(NAMES, GROUPS, min_size=1))
def test_rows_come_back_as_they_were(clients: Any, groups: Any) -> None:
    for kind, rows in (("clients", clients), ("groups", groups)):
        written = json.loads(json.dumps(cachedrows.WRITERS[kind](rows)))
        found = cachedrows.READERS[kind](written)
        assert found == rows
        assert list(found) == list(rows)


def test_what_was_read_of_an_inventory_with_an_error_is_kept(tmp_path: Path, parsed: list[str]) -> None:
    root = shutil.copytree(EXAMPLE, tmp_path / "inventory")
    (root / "clients/operations.yaml").write_text("x: {}\n")
    command = ["compile", str(root), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert run(command) == 1
    assert parsed
    parsed.clear()
    assert run(command) == 1
    assert parsed == []


@pytest.mark.whole
def test_the_commands_take_it_and_deleting_it_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parsed: list[str]
) -> None:
    fleet.generate(tmp_path / "fleet", 600)
    root, cache = str(tmp_path / "fleet"), tmp_path / "cache"
    other = shutil.copytree(root, tmp_path / "other")
    policies = other / "policies/all.yaml"
    policies.write_text(policies.read_text().replace("action: deny", "action: allow", 1))
    commands = {
        "validate": ["validate", root],
        "compile": ["compile", root, "--out"],
        "plan": ["plan", root, str(other)],
    }
    for name, command in commands.items():
        told = []
        for run_number in range(3):  # without any, with one, and after it was deleted
            parsed.clear()
            out = tmp_path / f"out-{run_number}"
            status = run([*command, *([str(out)] if name == "compile" else []), "--cache", str(cache)])
            tree = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
            told.append((status, *capsys.readouterr(), tree if name == "compile" else None))
            assert bool(parsed) == (run_number != 1)
            if run_number == 1:
                (cache / "rows").unlink()
        (cache / "rows").unlink()
        assert told[0] == told[1] == told[2]
        assert told[0][0] == (2 if name == "plan" else 0)


def test_one_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run(["validate", str(EXAMPLE), "--cache", str(tmp_path / "file")]) == 0


def test_publish_and_verify_never_read_one() -> None:
    users = {
        p.relative_to(PACKAGE).as_posix()
        for p in PACKAGE.rglob("*.py")
        if "compiler.cache import" in p.read_text()
    }
    steps = {f"stepwise/{name}.py" for name in ("changes", "notes", "part", "parts", "record", "step")}
    assert users == {"compilecli.py", "load.py", "options.py", "pipeline.py", "plan/cli.py", *steps}
    for command in ("publish", "verify"):
        assert run([command, "--cache", "x"]) == 64


def test_it_is_no_pickle() -> None:
    for path in (PACKAGE / "cache.py", PACKAGE / "cachedrows.py", *(PACKAGE / "stepwise").glob("*.py")):
        assert not any(name in path.read_text() for name in ("pickle", "marshal"))
