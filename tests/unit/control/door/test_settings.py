"""The control server's settings: strict, told with their place, and nothing that would be unsafe by oversight."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tidegate_control.settings import KIND, MAX_BYTES, Settings, SettingsError, load
from tidegate_schema import validation

BOTH = "tls_cert: c.pem\ntls_key: k.pem\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.yaml"


def read(path: Path, text: str) -> Settings:
    path.write_text("repository: inventory.git\n" + text)
    return load(path)


def refused(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")
    return str(caught.value).removeprefix(str(path))


def test_the_defaults_are_those_of_the_schema() -> None:
    properties = validation.schema(KIND)["properties"]
    found = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert list(found) == list(properties)
    for name, field in properties.items():
        default: Any = found[name]
        if name != "repository":
            shown = list(default) if isinstance(default, tuple) else default
            assert (str(shown) if isinstance(shown, Path) else shown) == field.get("default"), name


def test_by_default_only_this_machine_may_ask(path: Path) -> None:
    found = read(path, "")
    assert (found.address, found.is_open, found.is_secure) == (("127.0.0.1", 8080), False, False)
    assert found.names == {"127.0.0.1", "localhost", "[::1]"}


def test_a_relative_path_begins_where_the_file_is(path: Path) -> None:
    found = read(path, "state: ../state\ntls_cert: tls/c.pem\ntls_key: /etc/k.pem\n")
    assert found.repository == path.parent / "inventory.git"
    assert found.state == path.parent.parent / "state"
    assert (found.tls_cert, found.tls_key) == (path.parent / "tls/c.pem", Path("/etc/k.pem"))
    assert found.events_url == f"duckdb://{path.parent.parent}/state/intake.duckdb"


def test_a_url_names_the_server_and_says_whether_it_is_safe(path: Path) -> None:
    found = read(path, "url: https://Control.Example.net:8443/\nhosts: [alias.example.net]\n")
    assert (found.origin, found.is_secure) == ("https://control.example.net:8443", True)
    assert {"control.example.net", "alias.example.net", "127.0.0.1"} <= found.names


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:443", "'[::]:443'", "10.0.0.1:8080", "'[fd00::1]:8080'", "8.8.8.8:80"]
)
def test_an_open_address_without_tls_is_refused_unless_that_is_meant(path: Path, listen: str) -> None:
    text = f"repository: r\nurl: https://control.example.net\nlisten: {listen}\n"
    said = refused(path, text)
    assert said.startswith(":3:1: listen: ")
    assert "set tls_cert and tls_key, or plain_http: allow" in said
    path.write_text(text + "plain_http: allow\n")
    assert load(path).is_open
    path.write_text(text + BOTH)
    assert load(path).is_open


@pytest.mark.parametrize("listen", ["localhost:80", "127.9.9.9:8080", "'[::1]:8080'"])
def test_loopback_needs_no_tls(path: Path, listen: str) -> None:
    assert not read(path, f"listen: {listen}\n").is_open


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1:1: settings are a mapping"),
        ("- a\n", ":1:1: settings are a mapping"),
        ("{}\n", ":1:1: 'repository' is a required property"),
        ("repository: r\nlisten: 80\n", ":2:1: listen: write ADDRESS:PORT"),
        ("repository: r\nlisten: example.net:80\n", ":2:1: listen: write ADDRESS:PORT"),
        ("repository: r\nlisten: 999.1.1.1:80\n", ":2:1: listen: write ADDRESS:PORT"),
        ("repository: r\nlisten: 127.0.0.1:65536\n", ":2:1: listen: write ADDRESS:PORT"),
        ('repository: r\nlisten: "127.0.0.1:80\\n"\n', ":2:1: listen: write ADDRESS:PORT"),
        (
            "repository: r\nlisten: '[::]:80'\nplain_http: allow\n",
            ":2:1: listen: by which name will clients ask?",
        ),
        ("repository: r\nlistn: x\n", ":2:1: listn: there is no such setting; did you mean listen?"),
        ("repository: r\nauthz_mode: observe\n", ":2:1: authz_mode: there is no such setting"),
        ("repository: r\nurl: ftp://x\n", ":2:1: url: write https://NAME"),
        ("repository: r\nurl: https://x/path\n", ":2:1: url: write https://NAME"),
        ("repository: r\nurl: https://a@x\n", ":2:1: url: write https://NAME"),
        ("repository: r\nurl: https://x:99999\n", ":2:1: url: write https://NAME"),
        ("repository: r\nurl: 'https://[::1'\n", ":2:1: url: write https://NAME"),
        (f"repository: r\nurl: http://x\n{BOTH}", ":2:1: url: the server speaks TLS"),
        ("repository: r\ntls_cert: c\n", ":2:1: tls_cert: it needs tls_key"),
        ("repository: r\ntls_key: c\n", ":2:1: tls_key: it needs tls_cert"),
        ("repository: r\nhosts: ['a b']\n", ":2:1: hosts.0: "),
        (
            "repository: r\ntrusted_proxies: ['10.0.0.1/8']\n",
            ":2:1: trusted_proxies: 10.0.0.1/8 has host bits",
        ),
        ("repository: r\nbranch: -x\n", ":2:1: branch: "),
        ("repository: r\nremote: --upload-pack=x\n", ":2:1: remote: "),
        ("repository: r\ninventory: /etc\n", ":2:1: inventory: "),
        ("repository: r\nsession_end: 600\n", ":1:1: session_idle: it is longer than session_end"),
        ("repository: r\nbody_limit: 1.0\n", ":2:1: body_limit: "),
        ("repository: r\nrequests: true\n", ":2:1: requests: "),
        ("repository: r\nevents: file:///etc/passwd\n", ":2:1: events: write duckdb"),
        ('repository: r\nevents: "clickhouse://u@[::/d"\n', ":2:1: events: write duckdb"),
        ("repository: r\nevents: clickhouse://u:secret@h/d\n", ":2:1: events: no password in it"),
        ("repository: r\npublish_command: 'rm -rf /'\n", ":2:1: publish_command: "),
        ("repository: r\npublish_command: [x]\npublish_directory: d\n", ":3:1: publish_directory: "),
        ("repository: r\nrepository: s\n", ":2:1: "),
        ("repository: &a r\n", ":1:13: an anchor"),
        ("repository: !!python/object r\n", ":1:13: a tag"),
        ("repository: [\n", ":"),
        ("repository: r\nwrite: push\nlisten: x\n", "(and 1 more)"),
        (b"\xff", ": not UTF-8"),
        ("#" * (MAX_BYTES + 1), f": more than {MAX_BYTES} bytes"),
    ],
)
def test_refused_in_one_line_with_its_place(path: Path, text: str | bytes, said: str) -> None:
    found = refused(path, text)
    assert said in found
    assert "secret" not in found


def test_a_file_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(SettingsError, match=r"control.yaml: No such file.*; write it .*--settings"):
        load(path)
    path.mkdir()
    with pytest.raises(SettingsError, match=r"control.yaml: Is a directory"):
        load(path)
