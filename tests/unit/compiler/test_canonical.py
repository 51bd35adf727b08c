"""Files recognised without a parser, against both readers that have one: they say the same, and find nothing wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import fleet
from tidegate_compiler import canonical, files, quick, sheets
from tidegate_compiler.check.structure import structure
from tidegate_compiler.edit.add import add
from tidegate_compiler.edit.form import form
from tidegate_compiler.edit.survey import survey
from tidegate_compiler.load import Document, load
from tidegate_compiler.pipeline import validate_files
from tidegate_compiler.scaffold import inventory_files
from tidegate_schema import validation
from tidegate_schema.keys import CANONICAL_PATTERN, LOW_ORDER_KEYS

reading = import_module("tidegate_compiler.check.read")  # the package gives its name to its function

KEY, OTHER = fleet.key("one"), fleet.key("two")
CLIENTS = [
    fleet.client(1, 2) + fleet.client(70000, 3),
    f'a: {{public_key: {KEY}, addresses: ["10.64.0.1/32"], gateways: [fra1]}}\n'
    f'\n# b\nb-2: {{public_key: "{OTHER}", addresses: ["FD64::a/128", 10.64.0.2/32, 10.64.0.3/32], gateways: [m]}}\n',
    f"# yaml-language-server: $schema=../.schemas/clients.schema.json\n\na:\n  public_key: {KEY}\n"
    '  addresses: [10.64.0.1/32, "fd64::1/128"]\n  gateways: [fra1, nyc1]\n\n'
    f'1b:\n  public_key: "{OTHER}"\n  addresses:\n    - 10.64.0.2/32\n    - "fd64::2/128"\n'
    "  gateways:\n    - fra1\n#\n",
]
GROUPS = [
    "a: {members: [b]}\n# c: {members: [d]}\n# e\n",
    "a: {members: [b, c-1]}\n# d\nd: {members: [yes-b]}\n",
    "a:\n  members: [b, 2c]\n\n\nd:\n  members:\n    - b\n    - c\n",
]
FILES = [("clients", text) for text in CLIENTS] + [("groups", text) for text in GROUPS]
PIECES = [
    *(
        "a: ",
        "b:",
        ": ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ",",
        "#",
        " #",
        "# a\n",
        "\n",
        "\n\n",
        " ",
        "  ",
        "\t",
        "\r",
    ),
    *(
        '"',
        "'",
        "\\",
        "&x ",
        "*x",
        "!t ",
        "<<",
        "---\n",
        "...\n",
        "|\n",
        "? ",
        "%",
        "\u00e9",
        "\u2028",
        "\x00",
    ),
    *(
        "null",
        "~",
        "true",
        "on",
        "y",
        "1",
        "1e3",
        "0x1f",
        "0123",
        "1_000",
        "12:30:45",
        "2027-01-31",
        "-",
        "0",
        "/24",
    ),
    *(
        "::ffff:a00:1",
        "010.0.0.1/32",
        "::1/128",
        "fd64::1/128",
        "10.64.0.1/32",
        "AAAA",
        "=",
        "+",
        "B=",
        "\n  ",
    ),
    *(
        "members: ",
        "expires: {b: 2027-01-31}",
        "    - b\n",
        "\n    - ",
        "a: {members: [b]}\n",
        "private_key: x",
        "b, b",
    ),
]


def careful(kind: str, text: str) -> Mapping[str, Any]:
    """Return the rows that the careful reader makes of a text in which it finds nothing wrong."""
    documents, problems = load({f"{kind}/a.yaml": text.encode()}, careful=[f"{kind}/a.yaml"])
    for document in documents:
        assert isinstance(document, Document)
        assert structure(document) == ([], [])
    inventory = reading.read(documents, problems, set())
    assert problems == []
    rows: Mapping[str, Any] = inventory.client_rows if kind == "clients" else inventory.group_rows
    return rows


def recognised(kind: str, text: str) -> bool:
    """Tell whether a text is recognised, having made sure that both readers say the same of it."""
    if any(problem.code == "TG003" for problem in load({f"{kind}/a.yaml": text.encode()})[1]):
        return False  # not text, as an inventory's has to be: no reader sees it
    rows = canonical.rows(kind, text)
    if rows is None:
        return False
    objects = quick.read(kind, text)
    assert objects is not None
    assert rows == sheets.read(kind, objects)
    assert list(rows) == list(objects)
    assert rows == careful(kind, text)
    return True


@pytest.mark.parametrize(("kind", "text"), FILES)
def test_the_forms_are_recognised(kind: str, text: str) -> None:
    assert recognised(kind, text)


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_is_recognised_both_readers_read_the_same_way(data: st.DataObject) -> None:
    kind, text = data.draw(st.sampled_from(FILES))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 6))
        copied = data.draw(st.integers(0, len(text)))
        length = data.draw(st.sampled_from([1, 5, 40, 200]))
        piece = data.draw(st.sampled_from([*PIECES, "", text[copied : copied + length]]))
        text = text[:at] + piece + text[at + cut :]
    recognised(kind, text)


NAMES = st.one_of(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,5}", fullmatch=True),
    st.from_regex(
        r"[0-9]{1,4}(e-?[0-9]{1,2})?|0[xob][0-9a-f]{1,4}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}", fullmatch=True
    ),
    st.sampled_from(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "a" * 63]),
)
ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(lambda address: f"{address}/32"),
    st.ip_addresses(v=6).map(lambda address: f'"{address}/128"'),
    st.ip_addresses(v=6).map(lambda address: f'"{address.exploded.upper()}/128"'),
    st.from_regex(r'"[0-9a-fA-F:.]{2,9}/(32|128|64)"|[0-9.]{1,15}/32', fullmatch=True),
)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(NAMES, st.lists(NAMES, min_size=1, max_size=4), st.booleans())
def test_any_names_are_read_the_same_way(name: str, members: list[str], in_brackets: bool) -> None:
    if in_brackets:
        recognised("groups", f"{name}: {{members: [{', '.join(members)}]}}\n")
    else:
        recognised("groups", f"{name}:\n  members:\n" + "".join(f"    - {member}\n" for member in members))


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.from_regex(rf"{CANONICAL_PATTERN}|[A-Za-z0-9+/]{{43}}=", fullmatch=True),
    st.lists(ADDRESSES, max_size=3),
)
def test_any_keys_and_addresses_are_read_the_same_way(key: str, addresses: list[str]) -> None:
    recognised("clients", f"a: {{public_key: {key}, addresses: [{', '.join(addresses)}], gateways: [g]}}\n")


def client(key: str = KEY, addresses: str = "10.64.0.1/32", gateways: str = "g") -> str:
    return f"a: {{public_key: {key}, addresses: [{addresses}], gateways: [{gateways}]}}\n"


GROUP = "a: {members: [b]}\n"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("groups", ""),
        ("groups", "# a\n"),
        ("groups", GROUP + GROUP),
        ("groups", GROUP + "c:\n  members: [d]\n"),
        ("groups", GROUP + "c:\n"),
        ("groups", GROUP.removesuffix("\n")),
        ("groups", GROUP + "# c"),
        ("groups", GROUP.replace("\n", "\r\n")),
        ("groups", GROUP.replace("\n", " # c\n")),
        ("groups", "---\n" + GROUP),
        ("groups", GROUP + "...\n"),
        ("groups", " " + GROUP),
        ("groups", "a:\n  members: [b]\n# c:\n  members: [d]\n# e\n"),
        ("groups", "# " + GROUP),
        ("groups", GROUP + " # c\n"),
        ("groups", GROUP + "  \n"),
        ("groups", GROUP + "\u00e9: {members: [b]}\n"),
        ("groups", "a: {members: [b, b]}\n"),
        ("groups", "a:\n  members:\n    - b\n    - b\n"),
        ("groups", "a: {members: []}\n"),
        ("groups", "a: {members: [b,c]}\n"),
        ("groups", "a: {members: [b, ]}\n"),
        ("groups", "a: {members: [b], expires: {b: 2027-01-31}}\n"),
        ("groups", "a:\n  members:\n    - b\n  expires:\n    b: '2027-01-31'\n"),
        ("groups", "a:\n  members:\n  - b\n"),
        ("groups", "a:\n  members:\n    - b\n\n    - c\n"),
        ("groups", f"{'a' * 64}: {{members: [b]}}\n"),
        ("groups", f"a: {{members: [{'b' * 64}]}}\n"),
        ("groups", "a: {members: [B]}\n"),
        ("groups", "a: {members: [-b]}\n"),
        ("groups", "a: {members: [group:b]}\n"),
        *(("groups", f"{word}: {{members: [b]}}\n") for word in sorted(canonical._WORDS)),
        *(("groups", f"a: {{members: [b, {word}]}}\n") for word in sorted(canonical._WORDS)),
        *(
            ("groups", f"a: {{members: [{n}]}}\n")
            for n in ("1234", "0123", "1e3", "1e-3", "0x1f", "0x-f", "0o17", "0o-7", "2027-01-31")
        ),
        *(
            ("groups", f"a: {{members: [{n}]}}\n")
            for n in ("1_000", "12:30:45", "~", '"b"', "'b'", "&b", "*b", "!b")
        ),
        (
            "clients",
            client() + client().replace("a:", "b:", 1).replace(KEY, OTHER),
        ),  # one address, two clients
        ("clients", client(gateways="g, g")),
        ("clients", client(gateways="g, no")),
        ("clients", client(addresses="")),
        ("clients", client(addresses='10.64.0.1/32, "10.64.0.1/32"')),
        ("clients", client(addresses=", ".join(f"10.64.0.{n}/32" for n in range(17)))),
        ("clients", client(addresses="010.64.0.1/32")),
        ("clients", client(addresses="10.64.0.256/32")),
        ("clients", client(addresses="10.64.1/32")),
        ("clients", client(addresses='"10.64.0.0/24"')),
        ("clients", client(addresses='"::ffff:a40:1/128"')),
        ("clients", client(addresses='"fd64:::1/128"')),
        ("clients", client(addresses="fd64::1/128")),  # which an old parser may take for something else
        ("clients", client(addresses='"10.64.0.1/32')),
        ("clients", client(addresses='10.64.0.1/32"')),
        ("clients", client(addresses="'10.64.0.1/32'")),
        ("clients", client(key=f'"{KEY}')),
        ("clients", client(key=f'{KEY}"')),
        ("clients", client(key=KEY[:-2] + "B=")),
        ("clients", client(key=KEY[:-1])),
        ("clients", client(key="=" + KEY[1:])),
        *(("clients", client(key=fleet.base64.b64encode(low).decode())) for low in sorted(LOW_ORDER_KEYS)),
        ("clients", client().replace("gateways", "private_key: x, gateways")),
        ("clients", client().replace("public_key", "publickey")),
    ],
)
def test_anything_else_is_left_to_the_readers(kind: str, text: str) -> None:
    assert canonical.rows(kind, text) is None


@pytest.mark.parametrize(
    "address", ["010.64.0.1/32", "10.64.0.00/32", "00.0.0.0/32", "10.64.0.1.0/32", "10.64.1/32"]
)
def test_no_address_is_recognised_that_systems_differ_on(address: str) -> None:
    """Some read a leading zero as octal; the one under this test may refuse it by itself."""
    assert re.fullmatch(canonical._ADDRESS, address) is None


def test_the_forms_name_every_field_that_a_schema_requires() -> None:
    """And no other: one that is optional makes a file none of these."""
    for kind, fields in canonical._FIELDS.items():
        assert set(fields) == set(validation.schema(kind)["additionalProperties"]["required"])


def of_kinds(inventory: Mapping[str, bytes]) -> list[tuple[str, str]]:
    kinds = [(path.partition("/")[0], data.decode()) for path, data in inventory.items()]
    return [(kind, text) for kind, text in kinds if kind in sheets.KINDS]


def test_the_files_of_the_bench_and_of_a_new_inventory_are_recognised(tmp_path: Path) -> None:
    """So that nobody loses the speed unseen."""
    fleet.generate(tmp_path, 600)
    for found in (files.read(tmp_path)[0], inventory_files()):
        for kind, text in of_kinds(found):
            assert recognised(kind, text)
            assert recognised(kind, form(text))


def test_loading_takes_what_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And asks no parser then, nor a schema."""
    fleet.generate(tmp_path, 600)
    found = {
        path: data for path, data in files.read(tmp_path)[0].items() if path.startswith(("clients", "groups"))
    }
    wanted = [canonical.rows(kind, text) for kind, text in of_kinds(found)]
    monkeypatch.setattr(quick, "read", lambda kind, text: None)
    assert [getattr(document, "content", None) for document in load(found)[0]] == wanted


def test_what_add_and_fmt_write_is_recognised() -> None:
    fields: dict[str, Any] = {
        "public_key": KEY,
        "addresses": ["10.64.9.1/32", "fd64::9/128"],
        "gateways": ["fra1"],
    }
    for kind, text in FILES:
        assert recognised(kind, form(text))
    for text in ("", *CLIENTS):
        before = {"clients/a.yaml": text.encode(), "groups/b.yaml": GROUPS[1].encode()} | {
            "gateways/c.yaml": b'fra1: {public_key: "x", endpoint: "203.0.113.1:1", networks: [10.20.0.0/16]}\n'
        }
        after = add(
            before,
            survey(before, validate_files(before)),
            "client",
            "new",
            fields,
            "clients/a.yaml",
            ["a", "d"],
        ).change.after
        assert all(recognised(kind, text) for kind, text in of_kinds(after))
