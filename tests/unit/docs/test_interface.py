"""docs/interface.md says what the schemas and the code say, no less and no more."""

from __future__ import annotations

import ast
import configparser
import json
import re

import pytest

from docskit import PAGES, ROOT, fences, read
from doctables import KINDS, fields, table, written
from tidegate_agents.gateway.desired import FIXED
from tidegate_schema import bundle, event, hostevent, release, validation, wgquick
from tidegate_schema.policy import Reason

PAGE = "docs/interface.md"
INVENTORY = ("overlay", "gateways", "clients", "groups", "resources", "policies", "tests")


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_the_schema_s(kind: str) -> None:
    assert written()[kind] == table(kind), "python tests/doctables.py writes it anew"


def test_every_schema_is_in_a_page() -> None:
    assert sorted((*KINDS, *INVENTORY)) == validation.kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_every_public_field_says_what_it_is(kind: str) -> None:
    assert [path for path, field, _ in fields(kind) if not field.get("description")] == []


@pytest.mark.parametrize("kind", INVENTORY)
def test_every_field_of_the_inventory_is_in_its_page(kind: str) -> None:
    def names(schema: object) -> set[str]:
        if isinstance(schema, dict):
            return set(schema.get("properties", {})).union(*map(names, schema.values()))
        return set().union(*map(names, schema)) if isinstance(schema, list) else set()

    page = read("docs/inventory.md")
    missing = {name for name in names(validation.schema(kind)) if f"`{name}`" not in page}
    assert missing <= {"overlay"}  # the one object of its file


@pytest.mark.parametrize("page", PAGES)
def test_examples_are_valid(page: str) -> None:
    for fence in fences(page):
        if fence.language == "json":
            document = json.loads(fence.text)
            if "schema" in fence.words:
                assert validation.errors(fence.words["schema"], document) == [], fence.where
        elif "wgquick" in fence.words:
            wgquick.parse(fence.text.encode())
        elif "unit" in fence.words:
            unit = configparser.ConfigParser()
            unit.read_string(fence.text)
            assert set(unit.sections()) == {"Unit", "Service", "Install"}


def test_every_refusal_is_in_the_page_and_no_other() -> None:
    found = {"invalid-bundle"}
    for package in ("schema", "agents"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ReleaseError":
                    name = node.args[0]
                    if isinstance(name, ast.Constant):
                        found.add(str(name.value))
                    else:  # raised in a loop over (name, value, expected)
                        assert path.name == "bundles.py"
                        found.update(re.findall(r'\("(other-[a-z]+)", ', path.read_text("utf-8")))
    chapter = read(PAGE).partition("### Refusals")[2].partition("\n## ")[0]
    told = {
        name for cell in re.findall(r"^\| (`.*?) \|", chapter, re.M) for name in re.findall("`(.*?)`", cell)
    }
    assert told == found


def test_the_record_is_laid_out_as_the_page_says() -> None:
    chapter = read(PAGE).partition("\n## Events")[2].partition("\n## ")[0]
    rows = [(int(a), int(b)) for a, b in re.findall(r"^\| (\d+) \| (\d+) \|", chapter, re.MULTILINE)]
    ends = [offset + size for offset, size in rows]
    assert [offset for offset, _ in rows] == [0, *ends[:-1]]
    assert ends[-1] == event.RECORD_BYTES == event.LAYOUT.size
    sizes = [size for _, size in rows]
    codes = [int(n or 1) * {"Q": 8, "I": 4, "H": 2, "B": 1, "s": 1, "x": 1}[c] for n, c in _codes()]
    assert sizes == codes
    assert (event.__doc__ or "").count("\n") > len(rows)
    for offset, size in rows:
        assert re.search(rf"^ +{offset} +{size}  ", event.__doc__ or "", re.MULTILINE), offset


def test_the_record_of_a_host_event_is_laid_out_as_the_page_says() -> None:
    chapter = read(PAGE).partition("\n## Host events")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \|", chapter, re.MULTILINE)
    assert rows == re.findall(r"^ +(\d+) +(\d+)  ", hostevent.__doc__ or "", re.MULTILINE)
    assert sum(int(size) for _, size in rows) == hostevent.RECORD_BYTES


def test_every_host_event_is_in_the_page_and_no_other() -> None:
    chapter = read(PAGE).partition("\n## Host events")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[a-z].*?) \|", chapter, re.MULTILINE)
    assert [name for cell in cells for name in re.findall("`(.*?)`", cell)] == list(hostevent.HostEvent)


def _codes() -> list[tuple[str, str]]:
    """Return count and code of each member of the layout; a count before Q, I, H or B repeats it, which is not used."""
    found: list[tuple[str, str]] = re.findall(r"(\d*)([QIHBsx])", event.LAYOUT.format)
    assert all(code in "sx" for count, code in found if count)
    return found


def test_every_reason_is_in_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| `([a-z-]+)` \|", read(PAGE), re.MULTILINE)
    assert [(int(number), name) for number, name in rows] == [
        (reason.value, reason.name.lower().replace("_", "-")) for reason in Reason
    ]


def test_an_event_says_what_the_schema_says_and_no_more() -> None:
    names: set[str] = set()
    for kind in event.Kind:
        record = event.LAYOUT.pack(
            *(7, 1, 2, 3, 0, bytes(15) + b"\1", event.mapped(bytes(4)), event.mapped(bytes(4))),
            *(1, 2, kind, 1, 1, Reason.ALLOWED, 6, 2, 3, event.VERSION, 1, 1, 60, 1, 60, 5),
        )
        told = event.to_json(event.unpack(record), "gw1", "0" * 16, ["a-policy"])
        assert validation.errors("event", told) == []
        names |= set(told)
    every = {"name": "replayed", "message": "why", "digest": "ab" * 32}
    entry = hostevent.Entry(
        1, 2, {"event": "rolled-back", **dict.fromkeys(hostevent.FIELDS.keys() - {"event"}, 3), **every}
    )
    told = hostevent.to_json(hostevent.unpack(hostevent.pack(7, 1, entry)), "gw1", "0" * 16)
    assert validation.errors("event", told) == []
    names |= set(told)
    assert names == set(validation.schema("event")["properties"])  # every field, and nothing beside them


def test_the_settings_that_need_a_new_start_are_named() -> None:
    sentence = re.search(
        r"These take effect at the next start of the agent: (.*?)\.\n", read(PAGE), re.DOTALL
    )
    assert sentence is not None
    assert sorted(re.findall("`(.*?)`", sentence[1])) == sorted(FIXED)


def test_the_limits_of_a_release_are_the_page_s() -> None:
    assert release.ENVELOPE_MAX_BYTES == 64 << 10
    assert bundle.FILE_MAX_BYTES == {"wg0.conf": 1 << 20, "peers.json": 64 << 20, "policy.json": 64 << 20}
    assert "at most 64 KiB of `release.json`, 1 MiB of `wg0.conf` and 64 MiB of each" in read(PAGE)


def test_the_table_of_names_has_each_field_of_a_record_and_of_an_event_once() -> None:
    """And says whose each name is: what is ours alone begins with `tidegate.`."""
    rows = []
    for table_of, of_record in (
        ("names", event.Event._fields),
        ("names of host", ("number", *hostevent.FIELDS)),
    ):
        text = read("docs/events.md").partition(f"<!-- {table_of} -->\n")[2].partition("<!-- end -->")[0]
        found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
        told = [re.findall(r"`([^`]+)`", record) for record, _, _ in found]
        assert [name for names in told for name in names] == list(of_record)
        rows += found
    names = [name for _, cell, _ in rows for name in re.findall(r"`([^`]+)`", cell)]
    assert sorted(names) == sorted(validation.schema("event")["properties"])
    for _, cell, origin in rows:
        for name in re.findall(r"`([^`]+)`", cell):
            assert name.startswith("tidegate.") == (origin == "own"), name
            fields_of = "base" if name in ("@timestamp", "message") else name.split(".")[0]
            assert origin == "own" or f"ECS {fields_of}" in origin, name
