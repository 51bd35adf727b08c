"""`tidegate access`: each cell against brute force, partial told as partial, the table, the JSON, the picture."""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, assume, given, settings

import compilerkit
from compilerkit import client, compiled, gateway, inventory, policy
from plankit import holds
from tidegate_compiler.access import picture, table
from tidegate_compiler.access.document import document, ranges
from tidegate_compiler.access.survey import survey
from tidegate_compiler.judge import Packet, judge
from tidegate_compiler.pipeline import Compiled, compile_files
from tidegate_compiler.reach import Reach
from tidegate_compiler.times import format_instant, parse_instant
from tidegate_schema import validation
from tidegate_schema.cli import run
from universekit import ADDRESSES, MOMENTS, WIRE, universes

EXAMPLE = str(compilerkit.ROOT / "inventory")
GOLDEN = compilerkit.ROOT / "tests" / "golden" / "access" / "example.svg"
WEB = {"web": {"addresses": ["10.20.0.80/32", "10.20.7.0/28"], "ports": ["tcp/80", "tcp/443"]}}


def told(files: dict[str, bytes], at: str | None = None, **names: list[str]) -> dict[str, Any]:
    """Return the document; it keeps its schema."""
    found = compiled(files)
    when = None if at is None else parse_instant(at)
    said = document(survey(found.inventory, Reach(found.fleet), when, **names), "inv")
    assert validation.errors("access", said) == []
    return said


def cells(files: dict[str, bytes], name: str = "alice", at: str | None = None) -> dict[str, tuple[Any, ...]]:
    """Return (reach, ways, beyond) of a client by resource."""
    (row,) = (row for row in told(files, at)["rows"] if name in row["clients"])
    return {
        cell["resource"]: (cell["reach"], cell["partial"], cell["beyond_ports"]) for cell in row["resources"]
    }


def web(*policies: dict[str, Any], **kinds: Any) -> tuple[Any, ...] | None:
    named = {f"p{number}": one for number, one in enumerate(policies)}
    return cells(inventory(**{"resources": WEB, "policies": named, **kinds})).get("web")


def test_full_is_every_address_and_every_port_at_all_times() -> None:
    everything = policy(to="resource:web", ports=["tcp/80", "tcp/443"])
    assert web(everything) == ("full", [], False)
    halves = [policy(to="resource:web", ports=[port]) for port in ("tcp/80", "tcp/443")]
    assert web(*halves) == ("full", [], False)
    assert web() is None


@pytest.mark.parametrize(
    ("rules", "ways"),
    [
        ([policy(to="resource:web", ports=["tcp/80"])], ["ports"]),
        ([policy(to="10.20.0.80/32", ports=["tcp/80", "tcp/443"])], ["addresses"]),
        ([policy(to="10.20.0.80/32", ports=["tcp/80"])], ["addresses", "ports"]),
        ([policy(to="resource:web", ports=["tcp/80", "tcp/443"], expires="2031-01-01")], ["time"]),
        (
            [policy(to="10.20.0.80/32", ports=["tcp/80"]), policy(to="10.20.7.0/28", ports=["tcp/443"])],
            ["combinations"],
        ),
        (
            [
                policy(to="resource:web", ports=["tcp/80", "tcp/443"]),
                policy(to="10.20.7.3/32", ports=["tcp/443"], action="deny"),
            ],
            ["combinations"],
        ),
        (
            [
                policy(to="resource:web", ports=["tcp/80", "tcp/443"]),
                policy(to="10.20.7.3/32", ports=["any"], action="deny"),
            ],
            ["addresses"],
        ),
    ],
)
def test_a_part_is_never_told_as_full(rules: list[dict[str, Any]], ways: list[str]) -> None:
    assert web(*rules) == ("partial", ways, False)


def test_one_family_of_two_is_a_part() -> None:
    dual = {"web": {"addresses": ["10.20.0.80/32", "fd20::80/128"], "ports": ["icmp"]}}
    both = policy(to="resource:web", ports=["icmp"])
    assert web(both, resources=dual) == ("full", [], False)
    assert web(policy(to="10.20.0.80/32", ports=["icmp"]), resources=dual) == ("partial", ["family"], False)
    four = client("alice", 11, families=(4,)) | client("bob", 12)
    assert web(both, resources=dual, clients=four) == ("partial", ["family"], False)


def test_a_resource_that_says_no_ports_offers_every_protocol() -> None:
    bare = {"web": {"addresses": ["10.20.0.80/32"]}}
    assert web(policy(to="resource:web", ports=["tcp/1-65535"]), resources=bare) == (
        "partial",
        ["ports"],
        False,
    )
    assert web(policy(to="resource:web", ports=["any"]), resources=bare) == ("full", [], False)


def test_other_ports_than_its_own_are_told_apart() -> None:
    assert web(policy(to="10.20.0.0/16", ports=["tcp/22"])) == ("none", [], True)
    assert web(policy(to="10.20.0.0/16", ports=["any"])) == ("full", [], True)
    assert web(policy(to="10.20.0.0/16", ports=["tcp/22-80"])) == ("partial", ["ports"], True)


def test_at_asks_about_one_moment() -> None:
    ends = policy(to="resource:web", ports=["tcp/80", "tcp/443"], expires="2031-01-01")
    files = inventory(resources=WEB, policies={"p": ends})
    assert cells(files, at="2030-12-31T23:59:59Z") == {"web": ("full", [], False)}
    assert cells(files, at="2031-01-01") == {}
    (access,) = told(files)["rows"][0]["resources"][0]["access"]
    assert (access["not_before"], access["expires"]) == (None, "2031-01-01T00:00:00Z")


def test_only_the_gateway_that_a_client_is_routed_to_counts() -> None:
    """The wide gateway may allow it; the packets go to the narrow one, which has no such client rule."""
    gateways = gateway("wide", "10.0.0.0/10") | gateway("gw", "10.20.0.0/17")
    files = inventory(
        gateways=gateways,
        clients=client("alice", 11, "wide", "gw", families=(4,)) | client("bob", 12, "gw", families=(4,)),
        resources={"far": {"addresses": ["10.20.200.0/24"]}, "near": {"addresses": ["10.20.0.0/24"]}},
        policies={"p": policy("all-clients", ["10.20.0.0/24", "10.20.200.0/24"])},
    )
    assert sorted(cells(files)) == ["far", "near"]
    assert sorted(cells(files, "bob")) == ["near"]  # no route to far


def test_what_is_in_no_resource_is_told_too() -> None:
    files = inventory(resources=WEB, policies={"p": policy(to="10.20.7.0/27", ports=["tcp/22"])})
    (alice, bob) = told(files)["rows"]
    assert [(one["to"], one["ports"]) for one in alice["elsewhere"]] == [(["10.20.7.16/28"], ["tcp/22"])]
    assert (bob["clients"], bob["resources"], bob["elsewhere"]) == (["bob"], [], [])
    assert told(files, resources=["web"])["rows"][0]["elsewhere"] == []


def test_clients_that_reach_the_same_are_one_row_and_keep_their_group() -> None:
    kinds = {
        "clients": client("alice", 11) | client("bob", 12) | client("carol", 13),
        "groups": {"g": {"members": ["alice", "bob"]}},
        "policies": {"one": policy("group:g"), "two": policy("client:carol", "10.30.0.0/16")},
        "gateways": gateway("gw", "10.20.0.0/16", "10.30.0.0/16"),
    }
    rows = told(inventory(**kinds))["rows"]
    assert [(row["clients"], row["group"]) for row in rows] == [
        (["alice", "bob"], "group:g"),
        (["carol"], None),
    ]


def test_equal_access_by_different_policies_is_told_by_its_own_policy() -> None:
    rules = {"one": policy("client:alice"), "two": policy("client:bob", ["10.20.0.0/17", "10.20.128.0/17"])}
    rows = told(inventory(policies=rules))["rows"]
    by = {row["clients"][0]: [one["name"] for one in row["elsewhere"][0]["policies"]] for row in rows}
    assert by == {"alice": ["one"], "bob": ["two"]}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(universes())
def test_the_document_equals_the_verdict_at_every_point(raw: dict[str, Any]) -> None:
    made = compile_files(inventory(**raw))
    assume(isinstance(made, Compiled))
    assert isinstance(made, Compiled)
    reach = Reach(made.fleet)
    said = document(survey(made.inventory, reach), "inv")
    assert validation.errors("access", said) == []
    of = {name: row for row in said["rows"] for name in row["clients"]}
    inside = {
        name: [ipaddress.ip_network(prefix) for prefix in resource["addresses"]]
        for name, resource in raw["resources"].items()
    }
    for name, to in itertools.product(raw["clients"], map(ipaddress.ip_address, ADDRESSES)):
        mine = {cell["resource"]: cell["access"] for cell in of[name]["resources"]}
        homes = [
            resource for resource, prefixes in inside.items() if any(to in prefix for prefix in prefixes)
        ]
        places = [mine.get(resource, []) for resource in homes] or [of[name]["elsewhere"]]
        for wire, now in itertools.product(WIRE, MOMENTS):
            judgement = judge(reach.court, Packet(name, to, *wire, at=now))
            at = format_instant(int(now))
            for place in places:
                found = [
                    entry
                    for entry in place
                    if any(to in ipaddress.ip_network(prefix) for prefix in entry["to"])
                    and any(holds(text, to.version, *wire) for text in entry["ports"])
                    and (entry["not_before"] or "") <= at < (entry["expires"] or "z")
                ]
                assert len(found) == judgement.allow
                assert all(judgement.policy in {one["name"] for one in entry["policies"]} for entry in found)


def test_ranges_join_neighbours_and_keep_prefixes() -> None:
    assert ranges(["10.0.0.0/31", "10.0.0.2/32", "10.0.1.0/24", "fd00::/64"]) == [
        "10.0.0.0-10.0.0.2", "10.0.1.0/24", "fd00::/64",
    ]  # fmt: skip
    assert ranges(["255.255.255.255/32", "::/128"]) == ["255.255.255.255/32", "::/128"]


# The command -----------------------------------------------------------------------------------------------------


def test_a_pipe_gets_a_line_for_every_piece_of_access(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["access", EXAMPLE]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert tuple(lines[0]) == table.TITLES
    assert {len(line) for line in lines} == {7}
    assert [
        "ci-runner", "backup", "part of it: one family only, some ports", "10.30.8.0/24", "tcp/873", "always",
        f"ci-writes-backups ({EXAMPLE}/policies/operations.yaml:14)",
    ] in lines  # fmt: skip


def test_names_filter_and_unknown_ones_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            [
                "access",
                EXAMPLE,
                "--client",
                "carol-laptop",
                "--client",
                "monitor",
                "--resource",
                "web",
                "--json",
            ]
        )
        == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert [row["clients"] for row in said["rows"]] == [["carol-laptop"], ["monitor"]]
    assert [one["name"] for one in said["resources"]] == ["web"]
    for option, word in (("--client", "carol-lptop"), ("--resource", "wbe\x1b[2J")):
        assert run(["access", EXAMPLE, option, word]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert err.removesuffix("\n").isprintable()
    assert run(["access", EXAMPLE, "--client", "carol-lptop"]) == 1
    assert "did you mean 'carol-laptop'?" in capsys.readouterr().err
    assert run(["access", "--help"]) == 0
    assert "Example" in capsys.readouterr().out


def on_terminal(columns: int, *args: str) -> str:
    """Run the command on a terminal of so many columns."""
    primary, secondary = pty.openpty()
    environment = os.environ | {
        "COLUMNS": str(columns),
        "LINES": "50",
        "TERM": "xterm",
        "PYTHONPATH": ":".join(sys.path),
    }
    command = [sys.executable, "-m", "tidegate_schema", "access", EXAMPLE, *args]
    with subprocess.Popen(command, stdout=secondary, stderr=subprocess.PIPE, env=environment):
        os.close(secondary)
        told = b""
        while True:
            try:
                data = os.read(primary, 65536)
            except OSError:  # EIO: nobody has the other end any more
                break
            told += data
    os.close(primary)
    return re.sub(r"\x1b\[[0-9;]*m", "", told.decode())


def test_a_terminal_gets_a_matrix_where_it_fits_and_lines_where_not() -> None:
    wide = on_terminal(120)
    assert re.search(r"clients +. backup +. git +. prod-db +. web +. elsewhere", wide)
    assert re.search(r"alice-laptop, dave-laptop +. - +. all +. part +. all +. -", wide)
    assert re.search(r"erin-desktop +. part +. all\+ +. part\+ +. all\+ +. part", wide)
    assert "all: everything the resource offers" in wide
    assert "all: everything" not in on_terminal(50)
    assert "…" not in on_terminal(50)  # a narrow one folds the words, and leaves none out
    assert re.search(r"clients +. resource +. reach", on_terminal(200, "--client", "erin-desktop"))


# The picture -----------------------------------------------------------------------------------------------------


def fleet(clients: int, resources: int) -> dict[str, bytes]:
    people: dict[str, Any] = {}
    for number in range(1, clients + 1):
        people |= client(f"c{number}", number)
    things = {f"r{n}": {"addresses": [f"10.20.{n}.0/28"], "ports": ["tcp/80"]} for n in range(resources)}
    rules = {
        f"p{n}": policy(f"client:c{n % clients + 1}", f"resource:r{n}", ports=["tcp/80"])
        for n in range(resources)
    }
    return inventory(clients=people, resources=things, policies=rules)


SVG = "{http://www.w3.org/2000/svg}"


def tips(drawn: str) -> list[str]:
    root = ElementTree.fromstring(drawn)
    return [title.text or "" for title in root.iter(f"{SVG}title")]


def test_the_picture_of_the_example_is_the_golden_one(capsys: pytest.CaptureFixture[str]) -> None:
    """To accept another one, look at it in a browser and run this with TIDEGATE_ACCEPT=1."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(compilerkit.ROOT)
        assert run(["access", "inventory", "--format", "svg"]) == 0
    drawn = capsys.readouterr().out
    if os.environ.get("TIDEGATE_ACCEPT"):
        GOLDEN.write_text(drawn)
    actual = GOLDEN.with_suffix(".svg.actual")
    if GOLDEN.read_text() == drawn:
        actual.unlink(missing_ok=True)
    else:
        actual.write_text(drawn)
    assert GOLDEN.read_text() == drawn


def test_the_picture_has_a_mark_for_every_client_and_resource() -> None:
    drawn = picture.svg(told(fleet(30, 20)))
    found = [tip.splitlines() for tip in tips(drawn)]
    marks = [lines for lines in found if re.match(r"c\d+ to r\d+: ", lines[0])]
    assert len(marks) == 30 * 20
    full = [lines for lines in marks if lines[0].endswith(": all it offers")]
    assert len(full) == 20
    assert ["c1 to r0: all it offers", "tcp/80 to 10.20.0.0/28, by p0 (inv/policies/all.yaml:1)"] in full
    assert drawn == picture.svg(told(fleet(30, 20)))


def test_the_picture_needs_nothing_else_and_does_nothing() -> None:
    drawn = picture.svg(told(fleet(3, 2)))
    root = ElementTree.fromstring(drawn)
    assert {node.tag for node in root.iter()} <= {
        SVG + tag for tag in ("svg", "title", "rect", "text", "path", "circle", "g")
    }
    assert not [
        name for node in root.iter() for name in node.attrib if "href" in name or name.startswith("on")
    ]
    assert re.findall(r"https?://[^\"]*", drawn) == ["http://www.w3.org/2000/svg"]
    assert "url(" not in drawn


def test_no_mark_is_told_by_its_colour_alone() -> None:
    shapes = {
        (reach, beyond): re.sub(
            r'fill="#\w+"|stroke="#\w+"', "", "".join(picture._shape(reach, beyond, 0, 0))
        )
        for reach, beyond in (
            ("full", False),
            ("partial", False),
            ("none", False),
            ("full", True),
            ("none", True),
        )
    }
    assert len(set(shapes.values())) == len(shapes)


def test_everything_is_inside_the_picture() -> None:
    """Long names are cut, and no mark or text begins outside; widths are of letters as wide as the font's widest."""
    name = "x" * 63
    files = inventory(
        clients=client(name, 11),
        resources={name: {"addresses": ["10.20.0.0/28"]}},
        policies={"p": policy(f"client:{name}")},
    )
    root = ElementTree.fromstring(picture.svg(told(files)))
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    for node in root.iter():
        x, y = node.attrib.get("x"), node.attrib.get("y")
        if x is not None and y is not None:
            assert 0 <= int(x) <= width
            assert 0 <= int(y) <= height
    assert all(len(node.text or "") <= 80 for node in root.iter(f"{SVG}text"))


def test_many_clients_become_a_row_for_each_kind_and_too_many_a_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = picture.svg(told(fleet(70, 3)))
    assert "c12, c13, c14" in drawn or "and 63 more" in drawn
    assert any(tip.startswith("c10, c11") for tip in tips(drawn))
    for path, data in fleet(100, 90).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    assert run(["access", str(tmp_path), "--format", "svg"]) == 1
    err = capsys.readouterr().err
    assert "name some with --client or --resource" in err
    assert err.count("\n") == 1
    assert run(["access", str(tmp_path), "--format", "svg", "--resource", "r1"]) == 0


@pytest.mark.parametrize(
    "value", ["</text><script>", "a\x00\x1b[2J", "\u202e\ud800\uffff", "\"' onload='x", "&amp;]]>"]
)
def test_hostile_text_anywhere_in_the_document_stays_text(value: str) -> None:
    def poison(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: poison(below) for name, below in node.items()}
        if isinstance(node, list):
            return [poison(below) for below in node]
        words = ("full", "partial", "none", "ports", "time")
        return value if isinstance(node, str) and node not in words and "/" not in node else node

    drawn = picture.svg(poison(told(fleet(3, 2))))
    assert drawn.isascii()
    assert "<script" not in drawn
    assert all(re.fullmatch(r"[ -~\n]*", tip) for tip in tips(drawn))


def test_a_hostile_file_name_stays_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, data in fleet(2, 1).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    bad = "</title><script>alert(1)<!-- \x1b]\u202e\udcff &amp;.yaml".replace("/", "")
    (tmp_path / "policies" / "all.yaml").rename(tmp_path / "policies" / bad)
    assert run(["access", str(tmp_path), "--format", "svg"]) == 0
    drawn = capsys.readouterr().out
    assert "<script" not in drawn
    assert drawn.isascii()
    assert any("<script>alert(1)<!--" in tip for tip in tips(drawn))
    for args in ([], ["--json"]):
        assert run(["access", str(tmp_path), *args]) == 0
        assert all(line.replace("\t", "").isprintable() for line in capsys.readouterr().out.splitlines())
