"""Local settings: strict, bounded, and edited without losing a word."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate_agents.settings import MAX_BYTES, SettingsError, change, defaults, load, parse_value
from tidegate_schema import validation

KINDS = ("client", "gateway")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.yaml"


def refusal(path: Path, text: str | bytes, kind: str = "gateway") -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.process_time()
    with pytest.raises(SettingsError) as caught:
        load(kind, path)
    with pytest.raises(SettingsError):
        change(kind, path, {"listen_port": 51821})
    assert time.process_time() - began < 3
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_file_the_defaults_are_in_force(kind: str, path: Path) -> None:
    assert load(kind, path) == defaults(kind)
    assert validation.errors(f"{kind}-settings", defaults(kind)) == []


def test_a_gateway_enforces_and_logs_nothing_by_default() -> None:
    assert (defaults("gateway")["authz_mode"], defaults("gateway")["logging_enabled"]) == ("enforce", False)


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "{}\n", "null\n"])
def test_an_empty_file_is_no_file(path: Path, text: str) -> None:
    path.write_text(text)
    assert load("gateway", path) == defaults("gateway")


def test_the_file_goes_over_the_defaults(path: Path) -> None:
    path.write_text("authz_mode: observe\nmtu: 1380\nmasquerade: [eth0]\n")
    expected = {"authz_mode": "observe", "mtu": 1380, "masquerade": ["eth0"]}
    assert load("gateway", path) == defaults("gateway") | expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("authz_mode: off\n", "authz_mode: 'off' is not one of"),
        ("authz_mode: [observe]\n", "authz_mode: "),
        ("authz_mode:\n", "authz_mode: None"),
        ("logging_enabled: 1\n", "logging_enabled: 1"),
        ("logging_enabled: on\n", "logging_enabled: 'on'"),
        ("mtu: '1420'\n", "mtu: '1420'"),
        ("mtu: 1279\n", "mtu: 1279"),
        ("mtu: 1420.0\n", "mtu: 1420.0"),
        ("mtu: .nan\n", "mtu: nan"),
        ("flush_usage: .nan\n", "flush_usage: nan"),
        ("post_timeout: .inf\n", "post_timeout: inf"),
        ("interface: 'a b'\n", "interface: "),
        ("interface: \"wg0\\n\"\n", "interface: "),
        ("interface: -x\n", "interface: "),
        ("interface: ..\n", "interface: "),
        ("masquerade: [eth0, 'e\"']\n", "masquerade.1: "),
        ("log_endpoint: file:///etc/shadow\n", "log_endpoint: "),
        ("log_endpoint: \"http://x\\r\\nX: y\"\n", "log_endpoint: "),
        *((f"metrics_listen: {text}\n", "metrics_listen: metrics never leave the host") for text in
          ("0.0.0.0:9469", "10.20.0.1:9469", "'[::]:9469'", "localhost:9469", "127.0.0.1:0", "127.0.0.1:65536",
           "127.0.0.1", "9469", "'[::1]:9469\\n'", "/run/x.sock", '"socket\\n"', "false")),
        ("private_key: x\n", "Additional properties are not allowed ('private_key'"),
        ("authz-mode: observe\n", "Additional properties"),
        ("1: 2\n", "Additional properties"),
        ("? [a]\n: b\n", "Additional properties"),
        ("- authz_mode\n", ":1:1: settings are a mapping"),
        ("observe\n", ":1:1: settings are a mapping"),
        ("authz_mode: observe\n  mtu: 1400\n", ":2:"),
        ("mtu: 1400\nmtu: 1400\n", ":2:1: found duplicate key"),
        ("a: [\n", ":2:1"),
        ("\tmtu: 1\n", ":1:1"),
        ("mtu: 1400\n---\nmtu: 1400\n", ":2:1: but found another document"),
        ("{authz_mode: observe", ":1:"),
        ("mtu: " + "1" * 5000, ": not YAML that can be read"),
        ("\x00", ""),
        ("mtu: \x1b[2J\n", ""),
        (b"\xff\xfe", ": not UTF-8"),
        (b"authz_mode: \xc3\x28\n", ": not UTF-8"),
        ("x" * (MAX_BYTES + 1), "at most"),
    ],
)  # fmt: skip
def test_refused_in_one_line_with_its_place(path: Path, text: str | bytes, said: str) -> None:
    assert said in refusal(path, text)


def test_a_wrong_value_is_told_with_its_line_and_how_many_more_there_are(path: Path) -> None:
    text = "authz_mode: observe\n# ours\nmtu: 1\nflow_timeout: x\nlogging_enabled: 1\n"
    assert f"{path}:3:1: mtu: 1 is less than" in refusal(path, text) or ":4:1: " in refusal(path, text)
    assert refusal(path, text).endswith("(and 2 more)")
    assert ":1:1: Additional properties" in refusal(path, "mtu: 1400\nx: 1\n")


def test_a_change_is_told_by_its_name_and_a_fault_of_the_file_by_its_place(path: Path) -> None:
    path.write_text("mtu: 1400\nflow_timeout: x\n")
    with pytest.raises(SettingsError, match=rf"^{path}:2:1: flow_timeout: "):
        change("gateway", path, {"mtu": 1410})
    with pytest.raises(SettingsError, match=r"^mtu: 1 is less"):
        change("gateway", path, {"mtu": 1})


def test_a_file_that_is_not_there_is_told_when_it_is_set(path: Path, tmp_path: Path) -> None:
    endpoint = {"log_endpoint": "https://logs.example.net/"}
    with pytest.raises(SettingsError, match=r"log_token_file: .*No such file"):
        change("gateway", path, {**endpoint, "log_token_file": str(tmp_path / "token")})
    assert not path.exists()
    (tmp_path / "token").write_text("x")
    (tmp_path / "token").chmod(0o600)
    assert change("gateway", path, {**endpoint, "log_token_file": str(tmp_path / "token")})


@pytest.mark.parametrize("name", ["password", "Token", "api_key"])
def test_a_secret_in_the_url_of_the_endpoint_is_refused(path: Path, name: str) -> None:
    said = refusal(path, f"log_endpoint: 'https://logs.example.net/?query=x&{name}=abcdef'\n")
    assert "use log_token_file" in said
    assert "abcdef" not in said


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, ":1:4: anchors and aliases"),
        (BOMB + "authz_mode: *i\n", ":1:4: anchors and aliases"),
        ("authz_mode: &a enforce\n", ":1:13: anchors"),
        ("logging_enabled: &a true\n", ":1:18: anchors"),
        ("mtu: *a\n", "undefined alias|anchors and aliases"),
        ("<<: {authz_mode: observe}\n", ":1:1: merge keys"),
        ("<<: [{authz_mode: observe}, {mtu: 1400}]\n", ":1:1: merge keys"),
        ("authz_mode: !!str observe\n", ":1:13: tags"),
        ("authz_mode: !x observe\n", "tag"),
        ("mtu: !!int x\n", ":1:6: tags"),
        ("logging_enabled: !!bool x\n", ":1:18: tags"),
        ("!!python/object/apply:os.system [id]\n", "tags"),
        ("a: !!python/object/apply:os.system [id]\n", "tags"),
        ("!!set {mtu}\n", "tags"),
        ("!!omap [mtu: 1400]\n", "tags"),
        ("[" * (MAX_BYTES - 1), "nested too deep"),
        ("{a: " * (MAX_BYTES // 5), "nested too deep"),
        ("- " * (MAX_BYTES // 3), "nested too deep"),
        ("? " * (MAX_BYTES // 3), "nested too deep"),
        ("masquerade: [[[[[eth0]]]]]\n", "nested too deep"),
        ("a" * (MAX_BYTES - 3) + ": 1", "mapping"),
        ("".join(f"k{n}: 1\n" for n in range(2000)), "Additional"),
    ],
    ids=range(22),
)
def test_hostile_yaml_is_refused_quickly(path: Path, text: str, said: str) -> None:
    assert any(word in refusal(path, text) for word in said.split("|"))


PIECES = [
    *(
        "authz_mode",
        "mtu",
        ": ",
        "observe",
        "1400",
        "\n",
        "  ",
        "- ",
        "? ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a ",
        "*a",
        "!",
    ),
    *(
        "!!int ",
        "!!float ",
        "!!set",
        "!<x> ",
        "|",
        ">",
        "'",
        '"',
        "#",
        "%YAML 1.1",
        "%TAG ! x",
        "---",
        "...",
        "<<",
    ),
    *(
        "\t",
        "\\",
        "\x85",
        "\u2028",
        "\ufeff",
        "0x10",
        "0b2",
        "1e9",
        "1_0",
        "2027-01-01",
        ".nan",
        "~",
        "=",
        "@",
        "`",
    ),
]


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=30))
def test_any_text_is_settings_or_a_settings_error(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    problem = ""
    try:
        found = load("gateway", path)
    except SettingsError as error:
        problem = str(error)
    else:
        assert validation.errors("gateway-settings", found) == []
        assert change("gateway", path, {"mtu": 1400}) == found | {"mtu": 1400}
        assert load("gateway", path) == found | {"mtu": 1400}
    assert "\n" not in problem


def test_a_link_or_a_directory_is_no_settings_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("authz_mode: observe\n")
    path.symlink_to("real")
    with pytest.raises(SettingsError):
        load("gateway", path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SettingsError):
        load("gateway", path)
    with pytest.raises(SettingsError):
        change("gateway", path, {"mtu": 1400})


# Changing -----------------------------------------------------------------------------------------------------

WRITTEN = """\
# why this gateway only watches: see ticket 12
authz_mode: observe   # until March

mtu: 1380
masquerade:
- eth0  # uplink
"""


def test_a_change_keeps_everything_else(path: Path) -> None:
    path.write_text(WRITTEN)
    found = change("gateway", path, {"authz_mode": "enforce", "listen_port": 51821})
    assert path.read_text() == WRITTEN.replace("observe ", "enforce ") + "listen_port: 51821\n"
    assert found == load("gateway", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("text", [None, "", "# a comment\n", "{}\n", "---\n"])
def test_a_change_makes_the_file(path: Path, text: str | None) -> None:
    if text is not None:
        path.write_text(text)
    change("gateway", path, {"logging_enabled": True})
    assert load("gateway", path) == defaults("gateway") | {"logging_enabled": True}


@pytest.mark.parametrize("changes", [{"authz_mode": "off"}, {"nonsense": 1}, {"mtu": "1400"}, {"mtu": 1}])
def test_a_change_that_would_be_invalid_changes_nothing(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(WRITTEN)
    with pytest.raises(SettingsError):
        change("gateway", path, changes)
    assert path.read_text() == WRITTEN
    assert list(path.parent.iterdir()) == [path]


def test_an_invalid_file_is_not_changed(path: Path) -> None:
    path.write_text("authz_mode: [\n")
    with pytest.raises(SettingsError):
        change("gateway", path, {"mtu": 1400})
    assert path.read_text() == "authz_mode: [\n"


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "authz_mode": st.sampled_from(["observe", "enforce"]),
            "logging_enabled": st.booleans(),
            "mtu": st.integers(1280, 65535),
            "flush_usage": st.floats(0.01, 1),
            "masquerade": st.lists(st.sampled_from(["eth0", "on", "no", "null", "y"]), unique=True),
            "interface": st.sampled_from(["on", "null", "true", "e1", "wg0"]),
        },
    )
)
def test_what_is_changed_is_what_is_loaded(path: Path, changes: dict[str, Any]) -> None:
    path.unlink(missing_ok=True)
    change("gateway", path, changes)
    assert load("gateway", path) == defaults("gateway") | changes


# Values on the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("logging_enabled", text, True) for text in ("true", "on", "yes", "ON", "Yes", "True")),
        *(("logging_enabled", text, False) for text in ("false", "off", "no", "OFF")),
        ("mtu", "1400", 1400),
        ("flush_usage", "0.5", 0.5),
        ("masquerade", "[eth0, eth1]", ["eth0", "eth1"]),
        ("authz_mode", "observe", "observe"),
        ("interface", "on", "on"),
        ("metrics_listen", "off", "off"),
        ("metrics_listen", "127.0.0.1:9469", "127.0.0.1:9469"),
        ("metrics_listen", "[::1]:9469", "[::1]:9469"),
        ("log_endpoint", "https://logs.example.net/v1/events", "https://logs.example.net/v1/events"),
    ],
)
def test_a_value_is_read_as_in_the_file(name: str, text: str, value: object) -> None:
    found = parse_value("gateway", name, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("nonsense", "1"), ("", "1"), ("mtu", "["), ("mtu", "\udcff"), ("\udcff", "1"), ("masquerade", "[" * 5000),
     ("authz_mode", "&a observe"), ("authz_mode", "!!str observe"), ("mtu", "!!int x"), ("mtu", "a\n---\nb")],
)  # fmt: skip
def test_a_value_that_is_none_is_refused_in_one_line(name: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_value("gateway", name, text)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"authz_mode.*logging_enabled"):
        parse_value("gateway", "zzz", "observe")


def test_a_name_that_is_nearly_one_is_answered_with_it() -> None:
    with pytest.raises(SettingsError, match=r"'authz_mod'; did you mean 'authz_mode'\?"):
        parse_value("gateway", "authz_mod", "observe")


def test_nothing_takes_a_setting_out(path: Path) -> None:
    path.write_text("# mine\nlog_endpoint: http://localhost/  # here\nmtu: 1400\n")
    assert parse_value("gateway", "log_endpoint", "") is None
    assert "log_endpoint" not in change("gateway", path, {"log_endpoint": None, "flow_timeout": None})
    assert path.read_text() == "# mine\nmtu: 1400\n"


def test_where_nothing_can_be_written_the_file_is_named_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "none" / "gateway.yaml"
    with pytest.raises(SettingsError) as caught:
        change("gateway", path, {"mtu": 1400})
    said = f"{path}: cannot be written: No such file or directory; run 'tidegate gateway init' first"
    assert str(caught.value) == said
