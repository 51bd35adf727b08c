"""Hostile strings through every string of every schema, and every command: nothing of them comes out but escaped.

The places are read from the schemas, so a field that is added is driven without a word here. At each place stand
text, pieces that mean something to somebody (wg-quick, a shell, a terminal, a web page, a CI log), and megabytes;
then every command runs. Whatever is emitted is read back by readers that share no code with the compiler.

The normal run takes a sample; `nox -s fuzz` takes everything.
"""

from __future__ import annotations

import copy
import io
import ipaddress
import json
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import wgquickreader
from compilerkit import everything, key, policy
from tidegate_compiler.files import KINDS
from tidegate_schema import validation, wgquick
from tidegate_schema.cli import COMMANDS, EXIT_USAGE, run

LONG = os.environ.get("TIDEGATE_FUZZ") == "long"
SECONDS = (
    30  # of processor time, for all commands on one inventory; a guard against explosion, not a measurement
)

BASE = everything()
PIECES = [
    "\n", "\r", "\r\n", "\n\n[Peer]\nPublicKey = x", "\nPostUp = touch /tmp/x", "[Peer]", "%i", "#", " # comment", ";",
    "\x00", "\x07", "\x1b[2J", "\x1b]0;title\x07", "\x7f", "\x85", "\x9b31m", "\u061c", "\u200b", "\u200e", "\u200f",
    "\u202e", "\u2028", "\u2029", "\u2066", "\ufeff", "\ufffe", "\ud800", "\udcff", "\U000e0041", "\u0430", "\u0661",
    "`id`", "$(id)", "${x}", "{{ 7*7 }}", "{% x %}", "'", '"', "\\", "\\n", ", 0.0.0.0/0", "=", "*", "&a", "!x", "<<",
    "<script>alert(1)</script>", "<!-- x -->", "@team", "[x](http://evil.example)", "|", "```", "&lt;", "]]>",
    "::error::x", "%0A::error::x", "##[error]x", "##vso[task.x]", "../../x", "/etc/passwd", "..", "~", "null", "NaN",
    "-", "", " ", "\t", "A" * 5_000, "é", "e\u0301", "\u05d0", "\u6f22", "\U0001f600", "client:alice", "group:g",
]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a string goes: a path of keys and indexes; `part` is "value", "key" of a mapping, or "file" name."""

    path: tuple[Any, ...]
    part: str = "value"

    def __str__(self) -> str:
        return f"{self.part} {'.'.join(map(str, self.path))}"


NAME = "NAME"  # the last step of a key's path, whose name is the string itself


def places(kind: str) -> Iterator[Place]:
    """Yield every place of a kind's files that takes a string, by its schema; and the files' own names."""
    if kind != "overlay":
        yield Place((kind,), "file")
    yield from _places(validation.schema(kind), (kind,), BASE[kind])


def _places(schema: dict[str, Any], path: tuple[Any, ...], base: Any) -> Iterator[Place]:
    kind = schema.get("type", "string")  # an enum is of strings
    if kind == "string":
        yield Place(path)
    elif kind == "array":
        first = base[0] if isinstance(base, list) and base else None
        yield from _places(schema["items"], (*path, 0), first)
    elif kind == "object":
        yield Place((*path, NAME), "key")  # an object's own name, or a field that there is not
        for field, below in schema.get("properties", {}).items():
            yield from _places(below, (*path, field), base.get(field) if isinstance(base, dict) else None)
        others = schema.get("additionalProperties")
        if isinstance(others, dict):
            name = next(iter(base)) if isinstance(base, dict) and base else "x"
            yield from _places(others, (*path, name), base.get(name) if isinstance(base, dict) else None)


PLACES = [place for kind in ("overlay", *KINDS) for place in places(kind)]


def changed(place: Place, text: str, glue: str) -> dict[str, Any]:
    """Return the base inventory with a string at a place: alone, or before, behind or inside what is there."""
    raw = copy.deepcopy(BASE)
    if place.part == "file":  # nothing is wrong, and everything has something to tell of every file
        raw["policies"]["more"] = policy("client:bob", "10.20.2.0/24")
        raw["policies"]["redundant"] = policy("client:bob", "10.20.2.0/25")
        raw["tests"][0]["expect"] = "deny"
        raw["groups"]["h"] = {"members": ["bob"]}
        return raw
    holder: Any = raw
    for step, following in zip(place.path[:-1], place.path[1:], strict=True):
        if isinstance(holder, dict) and step not in holder:  # a field that the base does not have
            holder[step] = [] if following == 0 else {}
        holder = holder[step]
    last = place.path[-1]
    if place.part == "key":
        name = next(iter(holder), "")
        value = holder.pop(name, None)
        holder[glued(name, text, glue)] = value
        if glue == "alone":  # and beside it
            holder[name] = value
    elif isinstance(holder, list):
        holder[:1] = [glued(holder[0] if holder else "", text, glue)]
    else:
        holder[last] = glued(holder.get(last, ""), text, glue)
    return raw


GLUES = ("alone", "before", "behind", "inside")


def glued(there: Any, text: str, glue: str) -> str:
    was = there if isinstance(there, str) else ""
    middle = len(was) // 2
    return {
        "alone": text,
        "before": text + was,
        "behind": was + text,
        "inside": was[:middle] + text + was[middle:],
    }[glue]


def write(root: Path, raw: dict[str, Any], place: Place, text: str, plain: bool) -> None:
    """Write an inventory as YAML, characters beyond ASCII and controls escaped, or with `plain` as they are."""
    for kind, value in raw.items():
        name = "overlay.yaml" if kind == "overlay" else f"{kind}/all.yaml"
        if place == Place((kind,), "file"):
            name = f"{kind}/f{_file_name(text)}.yaml"
        written = json.dumps(value, ensure_ascii=not plain)
        if plain:
            written = re.sub(
                r"\\(?:u00([01][0-9a-f])|([nrt]))", lambda m: chr(int(m[1], 16)) if m[1] else {
                    "n": "\n", "r": "\r", "t": "\t"}[m[2]], written
            )  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(written.encode("utf-8", "surrogatepass" if plain else "strict"))


def _file_name(text: str) -> str:
    """Return what a file system takes of it."""
    kept = text.replace("/", "_").replace("\0", "_").lstrip(".")
    return kept.encode("utf-8", "replace" if "\ud800" in kept else "surrogateescape")[:200].decode(
        "utf-8", "surrogateescape"
    )


# Running


def tidegate(*args: object) -> tuple[int, str]:
    """Run a command in this process; its exit status, and all that it printed on either stream."""
    written = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(stream, "utf-8", newline="") for stream in written)
    with redirect_stdout(out), redirect_stderr(err):
        status = run([str(arg) for arg in args])
        out.flush()
        err.flush()
    printed = b"".join(stream.getvalue() for stream in written)
    return status, printed.decode("utf-8")


def every_command(base: Path, root: Path, out: Path, text: str) -> Iterator[tuple[str, int, str]]:
    """Run everything that reads an inventory; what was run, its status, its output."""
    junit = root.parent / "junit.xml"
    junit.unlink(missing_ok=True)
    named = text.replace("\0", "_").encode("utf-8", "replace")[:2_000].decode()
    # An argument that begins with a dash would be an option, and click's to answer.
    asked = named if not named.startswith("-") else f"_{named}"
    runs: list[tuple[object, ...]] = [
        *(("validate", root, "--format", form) for form in ("text", "json", "sarif", "github")),
        ("validate", root, "--at", "2040-01-01", "--strict"),
        ("compile", root, "--out", out),
        *(("plan", base, root, "--format", form) for form in ("text", "json", "markdown")),
        ("plan", root, base),
        ("test", root, "--junit", junit),
        ("test", root, "--json"),
        ("explain", root, "alice", "10.20.0.80", "tcp/80"),
        ("explain", root, asked, "10.20.0.80", "tcp/80"),
        ("explain", base, "alice", asked, "tcp/80", "--json"),
        ("explain", base, "alice", "10.20.0.80", asked),
    ]
    if out.exists():
        runs.append(("verify", root, out))
    if "access" in COMMANDS:
        runs += [("access", root), ("access", root, "--json"), ("access", root, "--format", "svg")]
    for args in runs:
        status, printed = tidegate(*args)
        yield str(args[0]), status, printed
    if junit.exists():
        yield "junit", 0, junit.read_text("utf-8")


def hidden(printed: str) -> list[str]:
    """Return the characters that no output may hold: controls, formats, surrogates, separators; newline excepted."""
    return sorted(
        {
            c
            for c in printed
            if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        }
    )


# Judging what came out

_WORD = re.compile(
    r"[a-z0-9][a-z0-9-]{0,62}|(tcp|udp|sctp)/[0-9]{1,5}(-[0-9]{1,5})?|proto/[0-9]{1,3}|sha256:[0-9a-f]{64}|"
    r"[A-Za-z0-9+/]{43}=|[0-9a-f:.]{2,45}/[0-9]{1,3}"
)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def expected_file(raw: dict[str, Any], name: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the sections that a client's file must have, from the raw inventory alone."""

    def prefixes(texts: list[str]) -> list[str]:
        return [
            str(n)
            for n in sorted(map(ipaddress.ip_network, texts), key=lambda n: (n.version, n.network_address))
        ]

    me = raw["clients"][name]
    sections = [
        ("interface", [("address", ", ".join(prefixes(me["addresses"]))), ("postup", wgquick.KEYLESS_POSTUP)])
    ]
    for other in me["gateways"]:
        peer = raw["gateways"][other]
        sections.append(
            (
                "peer",
                [
                    ("publickey", peer["public_key"]),
                    ("endpoint", peer["endpoint"]),
                    ("allowedips", ",".join(prefixes(peer["networks"]))),
                ],
            )
        )
    return sections


def judge_bundles(raw: dict[str, Any], out: Path) -> None:
    """Read every emitted file back, and compare it with what the inventory says."""
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    names = {kind: sorted(raw[f"{kind}s"]) for kind in ("client", "gateway")}
    assert files == sorted(
        [
            "manifest.json",
            *(f"client/{name}/wg0.conf" for name in names["client"]),
            *(f"gateway/{name}/{file}.json" for name in names["gateway"] for file in ("peers", "policy")),
        ]
    )
    for name in names["client"]:
        data = (out / "client" / name / "wg0.conf").read_bytes()
        assert re.fullmatch(rb"[\n -\"$-~]*", data)  # printable ASCII, and no comment
        read = wgquickreader.read(data)
        assert read.unknown == []
        assert [(section.name, section.entries) for section in read.sections] == expected_file(raw, name)
    for path in files:
        if path.endswith(".json"):
            for word in strings(json.loads((out / path).read_bytes())):
                assert _WORD.fullmatch(word) or word in (
                    "allowed_ips",
                    "client_id",
                    "public_key",
                    "not_before",
                ), word


def drive(tmp: Path, place: Place, text: str, glue: str = "alone", plain: bool = False) -> bool:
    """Put a string at a place, run everything, judge everything; tell whether the inventory compiled."""
    base, root, out = tmp / "base", tmp / "inventory", tmp / "out"
    for directory in (root, out):
        shutil.rmtree(directory, ignore_errors=True)
    if not base.exists():
        write(base, BASE, Place(()), "", False)
    raw = changed(place, text, glue)
    write(root, raw, place, text, plain)
    began = time.process_time()
    for command, status, printed in every_command(base, root, out, text):
        assert status in (0, 1, 2, 3, EXIT_USAGE), command
        assert hidden(printed.replace("\t", "") if command == "access" else printed) == [], command
        assert "Traceback" not in printed, command
        assert len(printed) < 400_000, command
        if command != "junit":  # a file, and nobody's log
            assert re.search(r"##(vso)?\[", printed) is None, command
    assert time.process_time() - began < SECONDS
    if out.exists():
        judge_bundles(raw, out)
    return out.exists()


# The tests


def test_the_base_compiles_and_the_places_are_all_there(tmp_path: Path) -> None:
    assert drive(tmp_path, Place(("overlay", "overlay", "fleet")), "", "behind")
    found = {str(place) for place in PLACES if place.part == "value"}
    assert {
        "value clients.alice.public_key", "value clients.alice.addresses.0", "value gateways.gw.endpoint",
        "value groups.g.expires.alice", "value policies.p.action", "value tests.0.expect",
        "value overlay.overlay.fleet",
    } <= found  # fmt: skip
    assert len([place for place in PLACES if place.part == "key"]) >= 2 * len(KINDS)


def test_a_new_field_is_driven_without_a_word_here(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = copy.deepcopy(validation.schema("clients"))
    schema["additionalProperties"]["properties"]["notes"] = {
        "type": "array", "items": {"type": "object", "properties": {"text": {"type": "string"}}}
    }  # fmt: skip
    monkeypatch.setattr(validation, "schema", lambda kind: schema)
    place = Place(("clients", "alice", "notes", 0, "text"))
    assert place in list(places("clients"))


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_every_piece_at_once_at_every_place(tmp_path: Path, place: Place) -> None:
    """All pieces in one string, so that no sample passes a place over; in the long run each piece alone, too."""
    together = "".join(PIECES)
    assert place.part == "file" or not drive(tmp_path, place, together, "behind")
    if LONG:
        for piece in PIECES:
            for glue in GLUES:
                for plain in (False, True):
                    drive(tmp_path, place, piece, glue, plain)


@pytest.mark.parametrize("place", PLACES if LONG else PLACES[1::23], ids=str)
def test_a_megabyte_at_a_place(tmp_path: Path, place: Place) -> None:
    for text in ("A" * 1_000_000, "\u202e" * 300_000) if LONG else ("A" * 1_000_000,):
        drive(tmp_path, place, text)


@settings(
    max_examples=5_000 if LONG else 40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    place=st.sampled_from(PLACES),
    text=st.one_of(
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join),
        st.text(max_size=40),
        st.sampled_from(["a", "x-1", "10.64.0.99/32", "tcp/1-2", "2029-01-01", key("other")]),
    ),
    glue=st.sampled_from(GLUES),
    plain=st.booleans(),
)
@example(place=Place(("policies",), "file"), text="##[error]x\x1b\u202e", glue="alone", plain=False)
@example(place=Place(("clients", NAME), "key"), text="\n[Peer]", glue="behind", plain=False)
def test_any_string_at_any_place(tmp_path: Path, place: Place, text: str, glue: str, plain: bool) -> None:
    drive(tmp_path, place, text, glue, plain)


# The reader that judges must itself be right


def test_the_reader_reads_as_wg_quick_and_wg_do() -> None:
    read = wgquickreader.read(
        b"[Interface] # mine\n address=10.0.0.1/32, fd::1/128 # PostUp = x\nPOSTUP = wg set %i x\n"
        b"MTU = 1280\r\nListenPort = 1\n\n[PEER]\nPublic Key = a b\nAllowedIPs = 10.0.0.0/8 ,\tfd::/16\n"
        b"Address = 1.2.3.4/32\nPostUp = id\nnonsense\n[Else]\nPostUp = id\n"
    )
    assert [(section.name, section.entries) for section in read.sections] == [
        (
            "interface",
            [
                ("address", "10.0.0.1/32, fd::1/128"),
                ("postup", "wg set %i x"),
                ("mtu", "1280"),
                ("listenport", "1"),
            ],
        ),
        ("peer", [("publickey", "ab"), ("allowedips", "10.0.0.0/8,fd::/16")]),
    ]
    assert read.unknown == ["Address = 1.2.3.4/32", "PostUp = id", "nonsense", "[Else]", "PostUp = id"]
    assert wgquickreader.read(b"Post\0Up = id\n[Interface]\nPost\0Up = id\n").sections[0].entries == [
        ("postup", "id")
    ]


@pytest.mark.parametrize("injected", ["\nPostUp = id", "\n[Peer]\nPublicKey = x", " # x", "\r\nPostUp=id"])
def test_the_judge_sees_a_line_that_got_through(tmp_path: Path, injected: str) -> None:
    drive(tmp_path, Place(("overlay", "overlay", "fleet")), "", "behind")
    path = tmp_path / "out" / "client" / "alice" / "wg0.conf"
    text = path.read_text()
    path.write_text(text.replace("51820\n", f"51820{injected}\n", 1))
    with pytest.raises(AssertionError):
        judge_bundles(BASE, tmp_path / "out")


def test_the_watch_sees_what_must_not_be_printed() -> None:
    assert hidden("a\nb \u6f22") == []
    for piece in ("\x1b", "\r", "\t", "\x00", "\u202e", "\u200f", "\ufeff", "\udc80", "\u2028", "\U000e0041"):
        assert hidden(f"a{piece}b") == [piece]
