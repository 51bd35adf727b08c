"""The fast path of loading against the careful one: what the first accepts, the second reads the same way."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate_compiler import canonical, pipeline, quick
from tidegate_compiler.load import load
from tidegate_compiler.yamltree import parse, plain
from tidegate_schema import validation

EXAMPLE = Path(__file__).parents[3] / "inventory"
FILES = [
    (path.parent.name, path.read_text())
    for path in sorted(EXAMPLE.rglob("*.yaml"))
    if path.parent.name in quick.KINDS
]
GOOD = [
    ("overlay", "# ours\noverlay:\n  fleet: 'small'\n  prefixes: [10.64.0.0/16, \"fd64::/48\"]\n"),
    ("groups", "a: {members: [b, c]}\nd:\n  members:\n    - b\n    - 'c'\n  expires: {b: 2027-01-31}\n"),
    (
        "policies",
        "p: {from: [group:a], to: [10.0.0.0/8], action: allow, ports: [tcp/1-2, any], expires: '2027-01-31'}\n",
    ),
    ("groups", "\n# a\na:\n    members: [b]\nc: {members: [d]}\n"),
    ("resources", "r: {addresses: [10.0.0.0/8, ::/0]}\ns:\n  addresses:\n  - ::/0\n"),
    ("resources", "# r\nr:  # here\n  addresses: ['fd20::/64',\n    10.0.0.0/8]\n  ports: [icmp]\n"),
]
PIECES = [
    *(
        "a: ",
        "b:",
        ": ",
        ":",
        "- ",
        "? ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ",",
        "#",
        " #",
        "\n",
        "\n\n",
        " ",
        "  ",
        "\t",
        "\r",
    ),
    *(
        "&x ",
        "*x",
        "!t ",
        "<<",
        "---\n",
        "...\n",
        "%YAML 1.1\n",
        "|\n",
        ">\n",
        '"',
        "'",
        "\\",
        "null",
        "~",
        "true",
        "1",
    ),
    *(
        "0x1ffffffffffffffffff",
        "1e3",
        "0o17",
        ".5",
        "=",
        "@",
        "`",
        "\u2028",
        "\u00e9",
        "\x00",
        "members: ",
        "expires: ",
    ),
]


def _agree(kind: str, text: str) -> bool:
    """Tell whether the fast path accepts a text, having made sure that the careful one says the same of it."""
    if any(problem.code == "TG003" for problem in load({"clients/a.yaml": text.encode()})[1]):
        return False  # not text, as an inventory's has to be: no reader sees it
    found = quick.read(kind, text)
    if found is None:
        return False
    root, flaws = parse(text)
    assert not flaws
    assert root is not None
    assert plain(root) == found
    assert validation.errors(kind, found) == []
    assert isinstance(root.value, dict)
    assert quick.places(text, found) == {n: (member.line, member.column) for n, member in root.value.items()}
    return True


def test_the_example_inventory_takes_the_fast_path() -> None:
    assert all(_agree(kind, text) for kind, text in [*FILES, *GOOD])


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_the_fast_path_accepts_the_careful_one_reads_the_same_way(data: st.DataObject) -> None:
    kind, text = data.draw(st.sampled_from([*FILES, *GOOD]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 6))
        copied = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.sampled_from([*PIECES, "", text[copied : copied + 40]]))
        text = text[:at] + piece + text[at + cut :]
    _agree(kind, text)


@pytest.mark.parametrize(
    "text",
    [
        "a: {members: [b]}\na: {members: [c]}\n",
        "a: {members: [b], members: [c]}\n",
        "a: {members: [b]}\n---\nc: {members: [d]}\n",
        "a: {members: [b]}\n...\nc: {members: [d]}\n",
        "a: &x {members: [b]}\nc: *x\n",
        "a: !x {members: [b]}\n",
        "a: {<<: {members: [b]}}\n",
        '"a": {members: [b]}\n',
        'a: {"members":[b]}\n',
        'a: {members: [b], members: [c], "expires" :{b: 2027-01-01}}\n',
        "a: {members: [b], members: [c], 'expires' # x\n  :{b: 2027-01-01}}\n",
        'a: {members: [b], "expires" ::2027}\n',
        "a: {members: [b], expires: {b\n  : 2027-01-01}}\n",
        "a: {members: [b], expires, expires: {b: 2027-01-01}}\n",
        "a: {expires, expires: {b: 2027-01-01}, members: [b]}\n",
        "a: {expires, expires, expires: {b: 2027-01-01}, members: [b]}\n",
        "a: {members: [b], expires:, expires: {b: 2027-01-01}}\n",
        "a: {members: [b], expires: {b, b:\n 2027-01-01}}\n",
        "  a: {members: [b]}\n~\n",
        "\n # b\n a: {members: [b]}\n- c\n",
        "a: {members: [b]}\n\tc: {members: [d]}\n",
        "a: {members: [null]}\n",
        "a: {members: [1]}\n",
        "a: {members: []}\n",
        "a: {members: [b], private_key: c}\n",
        "{a: {members: [b]}}\n",
        "{a: {members: [b]}}---\n",
        "a: {members: [\u00e9]}\n",
        "a: {members: [b\r\n]}\n",
        "a: " + "[" * 100_000,
        "a:\n  " + "- " * 100_000 + "b\n",
        "".join(" " * n + "a:\n" for n in range(2000)),
        "",
        "- a\n",
    ],
)
def test_what_is_wrong_or_in_doubt_is_left_to_the_careful_path(text: str) -> None:
    assert quick.read("groups", text) is None


def test_all_but_tests_take_the_fast_path() -> None:
    assert quick.read("overlay", "overlay: {prefixes: [10.64.0.0/16]}\n") == {
        "overlay": {"prefixes": ["10.64.0.0/16"]}
    }
    assert quick.read("tests", "[]\n") is None


def test_diagnostics_of_both_paths_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over every bad inventory: the files that are wrong are read again, with every position."""
    roots = sorted(path for path in (EXAMPLE.parent / "tests/inventories/bad").iterdir() if path.is_dir())
    fast = [pipeline.validate(root, 1893456000).diagnostics for root in roots]
    for module, reader in ((canonical, "rows"), (quick, "read")):
        monkeypatch.setattr(module, reader, lambda kind, text: None)
    assert fast == [pipeline.validate(root, 1893456000).diagnostics for root in roots]
    assert any(fast)
