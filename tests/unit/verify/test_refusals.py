"""Inventories that verify refuses rather than guesses about; and its readers against the values they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compilerkit import client, gateway, inventory, key, policy
from tidegate_compiler.times import parse_instant
from tidegate_compiler.verify import RefusalError, sources, tree, wgfile, words
from tidegate_compiler.verify import inventory as reader
from tidegate_compiler.verify.space import Span
from tidegate_schema import keys


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        ({"policies": {"p": policy("client:nobody")}}, "p: there is no client nobody"),
        ({"policies": {"p": policy("group:none")}}, "p: there is no group none"),
        ({"policies": {"p": policy(to="resource:none")}}, "p: there is no resource:none"),
        ({"policies": {"p": policy(authz_mode="observe")}}, "breaks the schema"),
        ({"policies": {"p": policy(to="10.20.0.1/16")}}, "p: '10.20.0.1/16' is not a prefix"),
        ({"policies": {"p": policy(ports=["tcp/9-1"])}}, "p: 'tcp/9-1' is not a protocol with ports"),
        ({"policies": {"p": policy(ports=["proto/256"])}}, "p: 'proto/256' is not a protocol with ports"),
        ({"policies": {"p": policy(expires="2027-02-30")}}, "p: '2027-02-30' is not a point in time"),
        ({"policies": {"p": policy(expires="1969-12-31")}}, "p: '1969-12-31' is before 1970"),
        ({"policies": {"p": {k: v for k, v in policy().items() if k != "ports"}}}, "says ports"),
        ({"clients": client("alice", 1, "none")}, "alice: there is no gateway none"),
        ({"clients": {"a": client("alice", 1)["alice"], "b": client("alice", 2)["alice"]}}, "one key"),
        ({"clients": client("alice", 1) | client("bob", 1)}, "one key or one address"),
        ({"clients": client("gw", 1)}, "one key or one address"),
        ({"clients": {"a": client("a", 1)["a"] | {"addresses": ["10.64.0.0/24"]}}}, "a: a client has single"),
        ({"clients": {"a": client("a", 1)["a"] | {"public_key": "A" * 42 + "B="}}}, "a: not a public key"),
        ({"gateways": gateway("gw", endpoint="203.0.113.1:0")}, "gw: '203.0.113.1:0' is not an endpoint"),
        ({"groups": {"g": {"members": ["alice"], "expires": {"bob": "2027-01-01"}}},
          "policies": {"p": policy("group:g")}},
         "p: bob has a time in group g"),
        ({"gateways": gateway("gw", "10.20.0.0/16", "10.30.0.0/16") | gateway("two", "10.20.0.0/16"),
          "clients": client("alice", 1, "gw", "two")}, "alice: two of its gateways have a network in common"),
    ],
)  # fmt: skip
def test_an_open_meaning_is_refused(kinds: dict[str, Any], reason: str) -> None:
    with pytest.raises(RefusalError) as refusal:
        reader.facts(inventory(**kinds))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_name_in_two_files_is_refused() -> None:
    files = inventory()
    with pytest.raises(RefusalError, match="alice is in another file too"):
        reader.facts(files | {"clients/more.yaml": files["clients/all.yaml"]})


@pytest.mark.parametrize(
    "text",
    [
        "a: &x b", "a: [&x b, *x]", "&x a: b", "a: !!int '1'", "a: !!str 1", "!t {a: b}", "a: !t b",
        "%YAML 1.1\n---\na: b",
        "a: b\n---\nc: d", "a: b\na: c", "<<: {a: b}", "? [a]\n: b", "a: 1", "a: no\nb: 0x10", "a: ~", "a:", "a: true",
        "a: 1e3", "a: .inf", "a: [", "a: b\u2028c: d", "a: b\x85c: d", "a: b\rc: d", "\x00", "[" * 5000, "a: 'b",
    ],
)  # fmt: skip
def test_yaml_that_parsers_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(RefusalError):
        tree.parse(text.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(RefusalError, match="UTF-8"):
        tree.parse(b"\xff")


def test_every_scalar_is_text() -> None:
    assert tree.parse(b"no: 2027-01-01\n1e3: '5'\n~: [\"true\", a b, tcp/80]\n") == {
        "no": "2027-01-01",
        "1e3": "5",
        "~": ["true", "a b", "tcp/80"],
    }
    assert [tree.parse(text) for text in (b"", b"# nothing\n", b"---\n")] == [None, None, None]


@pytest.mark.parametrize(
    "path", ["policy.yaml", "polices/all.yaml", "clients/a.yml", "clients/sub/x", "clients/a.json"]
)
def test_a_file_that_looks_like_a_part_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("")
    with pytest.raises(RefusalError, match="looks like one"):
        sources.read(tmp_path)


def test_what_is_no_part_is_passed_over(tmp_path: Path) -> None:
    for path in ("README.md", ".git/x.yaml", "clients/.x.yaml", "clients/notes.txt", "docs/page.md"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    assert sources.read(tmp_path) == {}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "clients").symlink_to(tmp_path)
    with pytest.raises(RefusalError, match="symbolic link"):
        sources.read(tmp_path)
    (tmp_path / "clients").unlink()
    (tmp_path / "overlay.yaml").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="overlay"):
        sources.read(tmp_path)


@pytest.mark.parametrize("text", ["1970-01-01", "2027-06-30", "2028-02-29T18:00Z", "9999-12-31T23:59:59Z"])
def test_both_readers_agree_on_times(text: str) -> None:
    assert words.instant(text) == parse_instant(text)


def test_both_readers_agree_on_client_ids() -> None:
    raw = keys.parse_public_key(key("alice"))
    assert words.key(key("alice")) == raw
    assert words.client_id(raw) == keys.client_id(raw)


@pytest.mark.parametrize(
    ("text", "family", "span"),
    [
        ("any", 4, (0, 1 << 24)),
        ("icmp", 4, (1 << 16, 2 << 16)),
        ("icmp", 6, (58 << 16, 59 << 16)),
        ("proto/255", 6, (255 << 16, 1 << 24)),
        ("tcp/0-65535", 4, (6 << 16, 7 << 16)),
        ("udp/53", 4, ((17 << 16) + 53, (17 << 16) + 54)),
        ("sctp/1-2", 6, ((132 << 16) + 1, (132 << 16) + 3)),
    ],
)
def test_services_are_intervals(text: str, family: int, span: tuple[int, int]) -> None:
    assert words.service(text, family) == Span(*span)


@pytest.mark.parametrize("text", ["[Peer]\n", "[Interface]\nAddress = 10.64.0.1/32\n\n[Interface]\n"])
def test_a_client_file_has_one_interface_and_it_comes_first(text: str) -> None:
    with pytest.raises(RefusalError, match=r"one \[Interface\], and it comes first"):
        wgfile.parse(text.encode())


@pytest.mark.parametrize("text", ["", "\n", "Address = 10.64.0.1/32\n", "[Interface]\n", "[interface]\n"])
def test_a_client_file_without_an_address_is_refused(text: str) -> None:
    with pytest.raises(RefusalError):
        wgfile.parse(text.encode())
