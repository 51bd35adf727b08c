"""A host's papers: its key stays where it is made, its identity stays what it is, and it never forgets."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_agents import host
from tidegate_agents.host import HostError, Memory, Places
from tidegate_schema import cli, release
from unit.agents.kit import PUBLIC

needs_wg = pytest.mark.needs_tools("wg")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places("client", tmp_path / "etc", tmp_path / "state", tmp_path / "run")


def init(places: Places, name: str = "alice-laptop", fleet: str = "example") -> str:
    return host.init(places, fleet, name, [PUBLIC])


@needs_wg
def test_init_makes_a_private_key_and_tells_the_public_one(places: Places) -> None:
    public = init(places)
    info = places.key.stat()
    assert stat.S_IMODE(info.st_mode) == 0o600
    assert stat.S_IMODE(places.etc.stat().st_mode) == 0o700
    private = places.key.read_bytes()
    expected = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, check=True).stdout
    assert public == expected.decode().strip()
    assert private.decode().strip() not in places.identity.read_text()
    found = host.load_identity(places)
    assert (found.fleet, found.kind, found.host, len(found.trusted)) == (
        "example",
        "client",
        "alice-laptop",
        1,
    )
    assert len(host.own_client_id(places)) == 32


@needs_wg
def test_a_lenient_umask_opens_nothing(places: Places) -> None:
    before = os.umask(0)
    try:
        init(places)
    finally:
        os.umask(before)
    assert stat.S_IMODE(places.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(places.etc.stat().st_mode) == 0o700


@needs_wg
def test_init_again_changes_nothing(places: Places) -> None:
    first = init(places)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in places.etc.iterdir()}
    assert init(places) == first
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in places.etc.iterdir()} == before


@needs_wg
@pytest.mark.parametrize(("name", "fleet"), [("bob-laptop", "example"), ("alice-laptop", "other")])
def test_another_identity_is_refused_and_nothing_changes(places: Places, name: str, fleet: str) -> None:
    init(places)
    before = {path: path.read_bytes() for path in places.etc.iterdir()}
    with pytest.raises(HostError, match="says otherwise already"):
        init(places, name, fleet)
    with pytest.raises(HostError, match="says otherwise already"):
        host.init(places, "example", "alice-laptop", [release.generate_key()[1]])
    assert {path: path.read_bytes() for path in places.etc.iterdir()} == before


@needs_wg
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620, 0o601, 0o666])
def test_a_key_that_others_may_touch_is_refused(places: Places, mode: int) -> None:
    init(places)
    places.key.chmod(mode)
    with pytest.raises(HostError, match="chmod 600"):
        host.public_key(places)
    with pytest.raises(HostError, match="chmod 600"):
        init(places)


@needs_wg
@pytest.mark.parametrize("content", [b"", b"\n", b"not a key\n", b"\xff" * 44, b"A" * 2000])
def test_a_file_that_is_no_key_is_refused_and_kept(places: Places, content: bytes) -> None:
    init(places)
    places.key.write_bytes(content)
    for call in (host.public_key, init):
        with pytest.raises(HostError, match="private key") as caught:
            call(places)
        assert "\n" not in str(caught.value)
    assert places.key.read_bytes() == content


@needs_wg
def test_a_linked_key_is_refused(places: Places, tmp_path: Path) -> None:
    init(places)
    places.key.rename(tmp_path / "elsewhere")
    places.key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError):
        host.public_key(places)


def test_without_a_key_the_way_to_one_is_told(places: Places) -> None:
    with pytest.raises(HostError, match="run 'tidegate client init' first"):
        host.public_key(places)


@needs_wg
@pytest.mark.parametrize("as_json", [True, False])
def test_the_private_key_is_never_printed(
    places: Places, tmp_path: Path, capfd: pytest.CaptureFixture[str], as_json: bool
) -> None:
    trust = tmp_path / "tidegate.pub"
    trust.write_bytes(PUBLIC)
    arguments = ["client", "init", "--name", "alice-laptop", "--fleet", "example", "--trust", str(trust)]
    arguments += ["--etc", str(places.etc), *(["--json"] if as_json else [])]
    assert cli.run(arguments) == 0
    out, err = capfd.readouterr()
    private = places.key.read_text().strip()
    assert private not in out + err
    if as_json:
        shown = json.loads(out)
        assert shown == {
            "host": "alice-laptop",
            "public_key": host.public_key(places),
            "client_id": host.own_client_id(places),
        }
    else:
        assert out.strip() == host.public_key(places)
        assert "pull request" in err


@pytest.mark.parametrize("name", ["", "Alice", "a b", "../x", "a\n", "x" * 64])
def test_a_name_that_is_none_makes_nothing(places: Places, name: str) -> None:
    with pytest.raises(HostError):
        init(places, name)
    assert not places.key.exists()
    assert not places.identity.exists()


@pytest.mark.parametrize(
    "etc",
    ["relative", "/with space", "/a;id", "/a$(id)", "/a\nb", "/a'b", "/é", "/a%i", "/a#b", "/a|b", "/a&b"],
)
def test_a_path_that_a_shell_would_read_otherwise_is_refused(etc: str) -> None:
    with pytest.raises(HostError, match="letters, digits"):
        Places("client", Path(etc))


# The identity -------------------------------------------------------------------------------------------------


def identity(**changes: object) -> str:
    good = {"format": 1, "fleet": "example", "kind": "client", "host": "a", "trusted_keys": [PUBLIC.decode()]}
    return json.dumps({key: value for key, value in (good | changes).items() if value is not ...})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "line 1"),
        ("\x00", "line 1"),
        ("[" * 50_000, "too deep"),
        ("null", "is not of type 'object'"),
        ("[]", "is not of type 'object'"),
        (identity(format=2), "1 was expected"),
        (identity(format=...), "'format' is a required property"),
        (identity(host="../x"), "does not match"),
        (identity(host="a\n"), "does not match"),
        (identity(kind="server"), "is not one of"),
        (identity(kind="gateway"), "this host is a gateway, not a client"),
        (identity(trusted_keys=[]), "non-empty|too short"),
        (identity(trusted_keys="x"), "is not of type 'array'"),
        (identity(trusted_keys=["x"]), "trusted_keys: not an ed25519 public key"),
        (identity(trusted_keys=["\ud800"]), "trusted_keys: "),
        (identity(trusted_keys=["x" * 1001]), "xxx"),
        (identity(authz_mode="observe"), "authz_mode"),
        ('{"format":1,"format":1}', "twice"),
    ],
)
def test_an_identity_that_is_none_is_refused_in_one_line(places: Places, content: str, said: str) -> None:
    places.etc.mkdir()
    places.identity.write_text(content)
    with pytest.raises(HostError, match=said) as caught:
        host.load_identity(places)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_without_an_identity_the_way_to_one_is_told(places: Places) -> None:
    with pytest.raises(HostError, match="run 'tidegate client init' first"):
        host.load_identity(places)


# The memory ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**53), st.floats(0, 1e11), st.integers(0, 2**53), st.floats(0, 1e11))
def test_a_memory_only_grows(serial: int, time: float, later_serial: int, later_time: float) -> None:
    found = Memory(serial, time).later(later_serial, later_time)
    assert found == Memory(max(serial, later_serial), max(time, later_time))


def test_a_memory_survives(places: Places) -> None:
    assert host.load_memory(places) == Memory()
    host.save_memory(places, Memory(7, 1234.5))
    assert host.load_memory(places) == Memory(7, 1234.5)
    assert stat.S_IMODE(places.memory.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    ["", "{}", "null", "[]", '{"serial":1}', '{"serial":null,"time":1}', '{"serial":1e999,"time":1}',
     '{"serial":1,"time":1e999}', '{"serial":1,"time":1' + "0" * 400 + "}", '{"serial":"x","time":1}', "\x00",
     '{"serial":NaN,"time":1}', "x" * 5000, '{"serial":1,"time":[]}'],
    ids=range(14),
)  # fmt: skip
def test_a_memory_that_cannot_be_read_is_not_taken_for_none(places: Places, content: str) -> None:
    places.state_directory.mkdir()
    places.memory.write_text(content)
    with pytest.raises(HostError, match="unreadable") as caught:
        host.load_memory(places)
    assert "\n" not in str(caught.value)


# Status and lock ----------------------------------------------------------------------------------------------


def test_a_status_is_that_of_a_living_agent(places: Places) -> None:
    assert host.read_status(places) is None
    places.run.mkdir(parents=True)
    host.write_status(places, {"pid": os.getpid(), "x": 1})
    assert host.read_status(places) == {"format": host.STATUS_FORMAT, "pid": os.getpid(), "x": 1}
    assert stat.S_IMODE(places.status.stat().st_mode) == 0o600
    host.write_status(places, {"pid": 2**22 + 1})
    assert host.read_status(places) is None


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "1", '"x"', "{}", '{"pid":null}', '{"pid":"1"}', '{"pid":1.5}', "\x00"]
)
def test_a_status_that_is_none_is_no_agent(places: Places, content: str) -> None:
    places.run.mkdir(parents=True)
    places.status.write_text(content)
    assert host.read_status(places) is None


def test_one_agent_a_host(places: Places) -> None:
    held = host.lock(places)
    with pytest.raises(HostError, match="another 'tidegate client run'"):
        host.lock(places)
    os.close(held)
    os.close(host.lock(places))
