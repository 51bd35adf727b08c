"""wg-quick files become an inventory; keys never leave them, and what is not imported is named."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilerkit import key
from tidegate_compiler.edit import wgread
from tidegate_compiler.edit.imported import PER_FILE, Given
from tidegate_compiler.edit.wgimport import convert
from tidegate_compiler.pipeline import validate_files
from tidegate_compiler.yamltree import parse, plain
from tidegate_schema.cli import run
from tidegate_schema.names import is_name

LONG = os.environ.get("TIDEGATE_FUZZ") == "long"
PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
SHARED = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="

SERVER = f"""\
[Interface]
# Name = fra1
Address = 10.8.0.1/24, fd08::1/64
ListenPort = 51820
PrivateKey = {PRIVATE}
PostUp = iptables -A FORWARD -j ACCEPT; echo {PRIVATE}
SaveConfig = true
Table = off

### Client alice
[Peer]
PublicKey = {key("alice")}
PresharedKey = {SHARED}
AllowedIPs = 10.8.0.2/32, fd08::2/128

# bob's PrivateKey: {PRIVATE}
[Peer]
publickey={key("bob")}
AllowedIPs = 10.8.0.3/32,192.168.7.0/24
"""
CLIENT = f"""\
[Interface]
PrivateKey = {PRIVATE} # mine
Address = 10.8.0.2/24
DNS = 1.1.1.1
MTU = 1400

[Peer]
PublicKey = {key("fra1")}
PresharedKey={SHARED}
Endpoint = 203.0.113.10:51820
AllowedIPs = 10.8.0.0/24, 10.20.5.1/16
PersistentKeepalive = 25
"""


def converted(*sources: tuple[str, str], **more: Any) -> tuple[str, list[str], list[str]]:
    made = convert([(path, text.encode()) for path, text in sources], Given(**more))
    return "".join(data.decode() for data in made.files.values()), list(made.left_out), list(made.missing)


def test_a_gateway_and_a_client_complete_each_other() -> None:
    made = convert([("wg0.conf", SERVER.encode()), ("alice.conf", CLIENT.encode())], Given(fleet="acme"))
    assert made.missing == ()
    checked = validate_files(made.files)
    assert checked.diagnostics == ()
    inventory = checked.inventory
    assert inventory is not None
    assert inventory.overlay.fleet == "acme"
    assert [str(p.value) for p in inventory.overlay.prefixes] == ["10.8.0.0/24", "fd08::/64"]
    gateway = inventory.gateways["fra1"]
    assert gateway.endpoint is not None
    assert gateway.endpoint.value.text == "203.0.113.10:51820"
    assert [str(n.value) for n in gateway.networks] == ["10.20.0.0/16"]
    assert {name: [str(a.value) for a in c.addresses] for name, c in inventory.clients.items()} == {
        "alice": ["10.8.0.2/32", "fd08::2/128"],
        "client-10-8-0-3": ["10.8.0.3/32"],
    }
    assert inventory.policies == {}
    assert not inventory.has_policy


def test_everything_left_out_is_named_with_its_line() -> None:
    _, left, _ = converted(("wg0.conf", SERVER), ("alice.conf", CLIENT))
    places = {line.partition(": ")[0]: line.partition(": ")[2] for line in left}
    for place, what in {
        "wg0.conf:5": "a private key",
        "wg0.conf:6": "PostUp",
        "wg0.conf:7": "SaveConfig",
        "wg0.conf:8": "Table",
        "wg0.conf:13": "a preshared key",
        "wg0.conf:19": "AllowedIPs '192.168.7.0/24'",
        "alice.conf:2": "a private key",
        "alice.conf:4": "DNS",
        "alice.conf:5": "MTU",
        "alice.conf:9": "a preshared key",
        "alice.conf:11": "AllowedIPs 10.8.0.0/24 overlaps the overlay",
        "alice.conf:12": "PersistentKeepalive",
    }.items():
        assert places.pop(place).startswith(what)
    assert places == {}


def test_what_no_file_gives_is_missing_until_it_is_given() -> None:
    _, _, missing = converted(("wg0.conf", SERVER))
    assert [line.partition(":")[0] for line in missing] == [
        "gateway fra1 has no public key",
        "gateway fra1 has no endpoint",
        "gateway fra1 has no networks",
    ]
    from ipaddress import ip_network

    made = convert(
        [("wg0.conf", SERVER.encode())],
        Given(
            keys={"fra1": key("fra1")},
            endpoints={"fra1": "203.0.113.10:51820"},
            networks={"fra1": (ip_network("10.20.0.0/16"),)},
        ),
    )
    assert made.missing == ()
    assert validate_files(made.files).diagnostics == ()
    _, _, missing = converted(("alice.conf", CLIENT), keys={"nobody": key("x")})
    assert any("client alice has no public key" in line for line in missing)
    assert any("--public-key names 'nobody'" in line for line in missing)


def test_names_full_tunnels_and_host_names_are_told() -> None:
    text = CLIENT.replace("203.0.113.10", "vpn.example.net").replace(
        "10.8.0.0/24, 10.20.5.1/16", "0.0.0.0/0, ::/0"
    )
    _, left, missing = converted(("wg0.conf", SERVER), ("alice.conf", text))
    assert any("'vpn.example.net:51820'" in line and "--endpoint fra1=" in line for line in left)
    assert sum("a tunnel for everything" in line and "--network fra1=" in line for line in left) == 2
    assert len(missing) == 2


def test_two_gateways_are_told_apart_by_port_and_the_clients_order_is_kept() -> None:
    def server(port: int) -> str:
        peer = f"[Peer]\nPublicKey = {key('alice')}\nAllowedIPs = 10.8.0.2/32\n"
        return f"[Interface]\nListenPort = {port}\nPrivateKey = {PRIVATE}\n\n{peer}"

    def peer(name: str, number: int) -> str:
        return (
            f"[Peer]\nPublicKey = {key(name)}\nEndpoint = 203.0.113.{number}:{number}\n"
            f"AllowedIPs = 10.{number}.0.0/16\n"
        )

    client = f"[Interface]\nAddress = 10.8.0.2/32\nPrivateKey = {PRIVATE}\n{peer('two', 20)}{peer('one', 10)}"
    made = convert(
        [("one.conf", server(10).encode()), ("two.conf", server(20).encode()), ("a.conf", client.encode())],
        Given(),
    )
    assert made.missing == ()
    inventory = validate_files(made.files).inventory
    assert inventory is not None
    assert [str(n.value) for n in inventory.gateways["one"].networks] == ["10.10.0.0/16"]
    assert [g.value for g in inventory.clients["a"].gateways] == ["two", "one"]


@pytest.mark.parametrize(
    "line",
    [
        f"PrivateKey = {PRIVATE}",
        f"privatekey={PRIVATE}",
        f"PrivateKey {PRIVATE}",
        f"PrivateKey: {PRIVATE}",
        f"# {PRIVATE}",
        f"# Name = {PRIVATE}",
        f"### Client {PRIVATE}",
        f"# my psk is {SHARED}",
        f"#PrivateKey={PRIVATE}",
        f"PostUp = wg set %i private-key <(echo {PRIVATE})",
        f"Pr\u0131vatekey = {PRIVATE}",
        PRIVATE,
        f"[{PRIVATE}]",
        f"Foo = {SHARED}",
    ],
)
@pytest.mark.parametrize("where", [0, 1, 9, 10])
def test_a_key_is_nowhere_in_what_comes_out(line: str, where: int) -> None:
    lines = SERVER.split("\n")
    lines.insert(where, line)
    text, left, missing = converted(("wg0.conf", "\n".join(lines)), ("alice.conf", CLIENT))
    told = "\n".join((text, *left, *missing)).lower()
    for secret in (PRIVATE, SHARED):
        folded = re.sub(r"[^a-z0-9]+", "-", secret.lower()).strip("-")
        for piece in (secret[:12], secret[12:24], secret[-16:], folded[:12]):
            assert piece.lower() not in told


def test_the_reader_holds_no_key() -> None:
    held = repr(wgread.read(SERVER.encode())) + repr(wgread.read(CLIENT.encode()))
    assert PRIVATE[:10] not in held
    assert SHARED[:10] not in held


@settings(max_examples=20_000 if LONG else 150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [*SERVER.splitlines(), *CLIENT.splitlines(), "[Peer]", "[Interface]", "Address = ,/"]
            ),
            st.text(max_size=30),
        ),
        max_size=25,
    )
)
def test_any_text_is_taken_without_a_traceback(lines: list[str]) -> None:
    made = convert(
        [("a.conf", "\n".join(lines).encode("utf-8", "replace")), ("b.conf", CLIENT.encode())], Given()
    )
    assert all(line.isprintable() for line in (*made.left_out, *made.missing))
    assert "TG005" not in [d.code for d in validate_files(made.files).diagnostics]


@settings(max_examples=20_000 if LONG else 100, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=70),
        min_size=1,
        max_size=6,
    )
)
def test_names_are_legal_and_unique(labels: list[str]) -> None:
    peers = "".join(
        f"# {label.splitlines()[0] if label.splitlines() else ''}\n[Peer]\nPublicKey = {key(str(i))}\n"
        f"AllowedIPs = 10.8.0.{i + 2}/32\n\n"
        for i, label in enumerate(labels)
    )
    made = convert([("wg0.conf", f"[Interface]\nListenPort = 1\n\n{peers}".encode())], Given())
    inventory = parse(made.files["clients/imported.yaml"].decode())[0]
    assert inventory is not None
    found = list(plain(inventory))
    assert len(found) == len(set(found)) == len(labels)
    assert all(map(is_name, found))


def test_many_clients_are_spread_over_files_that_are_small_enough() -> None:
    peers = "".join(
        f"[Peer]\nPublicKey = {key(str(i))}\nAllowedIPs = 10.{8 + (i >> 8)}.{i & 255}.2/32\n\n"
        for i in range(2, PER_FILE * 2 + 3)
    )
    made = convert([("wg0.conf", f"[Interface]\nListenPort = 1\n\n{peers}".encode())], Given())
    of_clients = sorted(path for path in made.files if path.startswith("clients/"))
    assert of_clients == [f"clients/imported-{n:03}.yaml" for n in (1, 2, 3)]
    found = [parse(made.files[path].decode())[0] for path in of_clients]
    assert [len(plain(tree)) for tree in found if tree is not None] == [PER_FILE, PER_FILE, 1]


# The command ------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wg0.conf").write_text(SERVER)
    (tmp_path / "alice.conf").write_text(CLIENT)
    return tmp_path


def test_the_command_writes_a_valid_inventory(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inventory", "import", "wg0.conf", "alice.conf", "--into", "made"]) == 0
    told = capsys.readouterr()
    assert "every gateway in enforce denies everything" in told.out
    assert "wg0.conf:5: a private key" in told.err
    assert PRIVATE[:8] not in told.out + told.err
    assert not any(PRIVATE[:8] in path.read_text() for path in (desk / "made").rglob("*.yaml"))
    assert run(["validate", "made", "--strict"]) == 0
    assert run(["inventory", "fmt", "--check", "made"]) == 0


def test_the_command_says_what_is_missing(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inventory", "import", "wg0.conf", "--into", "made"]) == 1
    assert "missing: gateway fra1 has no public key: say it with --public-key fra1=KEY" in (
        told := capsys.readouterr().err
    )
    assert told.endswith(
        "write what is missing into made, or remove made and import again with these options\n"
    )


def test_files_of_another_sort_write_nothing(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "notes").write_text("hello\n")
    assert run(["inventory", "import", "notes", "--into", "made"]) == 1
    assert "no gateway and no client is in these files; nothing is written" in capsys.readouterr().err
    assert not (desk / "made").exists()


def test_an_inventory_is_never_overwritten(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "made").mkdir()
    (desk / "made/overlay.yaml").write_text("mine")
    assert run(["inventory", "import", "wg0.conf", "--into", "made"]) == 1
    assert "made: not an empty directory" in capsys.readouterr().err
    (desk / "link").symlink_to(desk / "made")
    assert run(["inventory", "import", "wg0.conf", "--into", "link"]) == 1
    assert (desk / "made/overlay.yaml").read_text() == "mine"
    (desk / "empty").mkdir()
    (desk / "link").unlink()
    (desk / "link").symlink_to("empty")
    assert run(["inventory", "import", "wg0.conf", "--into", "link"]) == 1
    assert list((desk / "empty").iterdir()) == []


def test_hostile_files_are_one_line_each(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(desk / "fifo")
    (desk / "link").symlink_to("wg0.conf")
    (desk / "big").write_bytes(b"#" * (5 << 20))
    reasons = {"fifo": "not a regular file", "link": "a symbolic link", "big": "larger than", ".": "regular"}
    for name, why in reasons.items():
        assert run(["inventory", "import", name, "--into", "made"]) == 1
        err = capsys.readouterr().err
        assert why in err
        assert err.count("\n") == 1
    for data in (
        b"[Interface]\0",
        b"\xff\xfe",
        b"",
        b"x" * (1 << 20),
        b"[Interface]\nAddress = " + b"1" * (1 << 20),
    ):
        (desk / "odd").write_bytes(data)
        run(["inventory", "import", "odd", "--into", "made"])
        err = capsys.readouterr().err
        assert "odd:" in err
        assert all(len(line) < 300 for line in err.splitlines())
        for path in sorted((desk / "made").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
