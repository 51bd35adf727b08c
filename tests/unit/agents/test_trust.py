"""Whose signatures a host takes: it follows its fleet's key sets forward, by itself, and never back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from securesystemslib.signer import Signer

from tidegate_agents import bundles, host
from tidegate_agents.bundles import Accepted
from tidegate_agents.cli import init_command
from tidegate_agents.host import HostError, Places
from tidegate_agents.inbox import Inbox
from tidegate_schema import keyset
from tidegate_schema.keyset import KEYS_MAX_BYTES, KeySet, Link
from tidegate_schema.signatures import generate_key, load_signer
from unit.agents.kit import CLIENT, CONF, key, publish

PRIVATE, PUBLIC = zip(*(generate_key() for _ in range(4)), strict=True)
A, B, C, D = map(load_signer, PRIVATE)
PEM_A, PEM_B, PEM_C, PEM_D = (pem.decode() for pem in PUBLIC)
ONE = keyset.sign(KeySet("example", 1, 1, (PEM_A,)), [A])
TWO = keyset.sign(KeySet("example", 2, 2, (PEM_A, PEM_B)), [A, B])
THREE = keyset.sign(KeySet("example", 3, 2, (PEM_B, PEM_C)), [A, B, C])
LATE = 253402300799


class Host:
    """A client host with real files, whose WireGuard key alone is made up."""

    def __init__(self, place: Path) -> None:
        self.places = Places("client", place / "etc", place / "state", place / "run")
        self.places.etc.mkdir()
        self.places.key.write_text("x")
        self.bundles = place / "bundles"
        self.directory = bundles.host_directory(self.bundles, CLIENT)
        self.directory.mkdir(parents=True)
        self.inbox: Inbox[bytes]

    def init(self, *pems: str, key_set: KeySet | None = None) -> None:
        self.places.identity.unlink(missing_ok=True)
        host.init(self.places, "example", "alice-laptop", [pem.encode() for pem in pems], key_set)
        self.start()

    def start(self) -> None:
        self.inbox = Inbox(self.places, self.bundles, _content, lambda _old, new: new)

    def push(
        self, serial: int, signer: Sequence[Signer], links: Sequence[Link] | bytes | None = None, **more: int
    ) -> None:
        """Publish as `tidegate publish` does: keys.json, when there is one, beside the release."""
        chosen = {"serial": serial, "not_after": LATE, "signer": signer} | more
        folder = publish(self.directory, CLIENT, {"wg0.conf": CONF + b"\n" * (serial % 3)}, **chosen)
        (folder / "keys.json").unlink(missing_ok=True)
        if links is not None:
            (folder / "keys.json").write_bytes(links if isinstance(links, bytes) else keyset.write(links))

    def take(self) -> str:
        """Look once; return the refusal's name, or what is in force: the serial and the key set."""
        self.inbox.look()
        if self.inbox.refusal is not None:
            return self.inbox.refusal.name
        assert self.inbox.release is not None
        return f"{self.inbox.release['serial']} under {self.inbox.trust.version}"


def _content(accepted: Accepted) -> bytes:
    return accepted.files["wg0.conf"]


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(host, "public_key", lambda _places: key("alice"))
    made = Host(tmp_path)
    made.init(PEM_A)
    return made


# A rotation from end to end ---------------------------------------------------------------------------------------


def test_a_fleet_moves_from_one_key_to_two_others_and_nobody_touches_the_host(one: Host) -> None:
    one.push(1, [A])
    assert one.take() == "1 under 0"
    one.push(2, [A], [ONE], key_set=1)
    assert one.take() == "2 under 1"
    one.push(3, [A, B], [ONE, TWO], key_set=2)
    assert one.take() == "3 under 2"
    one.push(4, [A], [ONE, TWO], key_set=2)
    assert one.take() == "too-few-signatures"
    one.push(4, [B, C], [ONE, TWO, THREE], key_set=3)
    assert one.take() == "4 under 3"
    one.start()  # and it remembers
    assert one.take() == "4 under 3"
    one.push(1000, [A])
    assert one.take() == "wrong-key"  # taken away, whatever its serial
    one.push(1000, [A, B], key_set=2)
    assert one.take() == "too-few-signatures"
    one.push(1000, [A, B], [ONE, TWO], key_set=2)
    assert one.take() == "wrong-key-set"  # nor does the old chain bring it back
    assert one.inbox.content == CONF + b"\n"
    one.push(1001, [C, B])  # without keys.json the host stays where it is
    assert one.take() == "1001 under 3"
    assert one.inbox.trusts() == {"key_set": 3, "threshold": 2, "keys": 2}


def test_a_host_that_slept_through_it_all_follows_at_once(one: Host) -> None:
    one.push(4, [B, C], [ONE, TWO, THREE], key_set=3)
    assert one.take() == "4 under 3"


def test_a_new_set_counts_also_when_the_release_beside_it_is_refused(one: Host) -> None:
    one.push(1, [A, B], [ONE, TWO], key_set=2, not_after=1)
    assert one.take() == "expired"
    one.start()
    one.push(2, [A])
    assert one.take() == "too-few-signatures"


def test_taking_keys_json_away_holds_releases_back_and_no_more(one: Host) -> None:
    """A is stolen and set 2 takes it away; the thief carries the fleet's releases, and drops the set."""
    taken = keyset.sign(KeySet("example", 2, 1, (PEM_B,)), [A, B])
    both = KeySet("example", 1, 1, (PEM_A, PEM_B))
    one.init(key_set=both)
    chain = [keyset.sign(both, [A]), taken]
    one.push(5, [B], key_set=2)
    assert one.take() == "missing-key-set"
    assert one.inbox.refusal is not None
    assert "signed under key set 2, this host has 1; bring keys.json along" in one.inbox.refusal.reason
    one.push(5, [B], chain[:1], key_set=2)
    assert one.take() == "missing-key-set"
    one.push(5, [B], chain, key_set=2)
    assert one.take() == "5 under 2"


def test_a_new_chain_beside_the_same_release_is_noticed(one: Host) -> None:
    one.push(1, [A])
    assert one.take() == "1 under 0"
    (one.directory / "current" / "keys.json").write_bytes(keyset.write([ONE]))
    assert one.take() == "1 under 1"


@pytest.mark.parametrize(
    ("links", "name"),
    [
        ([keyset.sign(KeySet("other", 1, 1, (PEM_A,)), [A])], "wrong-key-set"),
        ([keyset.sign(KeySet("example", 1, 1, (PEM_B,)), [B])], "wrong-key-set"),
        ([keyset.sign(KeySet("example", 1, 1, (PEM_A, PEM_B)), [B])], "wrong-key-set"),
        ([TWO], "wrong-key-set"),
        (b"{}\n", "wrong-key-set"),
        (b"", "wrong-key-set"),
        (b" " * (KEYS_MAX_BYTES + 1), "bad-file"),
    ],
    ids=["other fleet", "other key", "not signed by ours", "gap", "no chain", "empty", "large"],
)
def test_a_chain_that_is_not_ours_changes_nothing(
    one: Host, links: Sequence[Link] | bytes, name: str
) -> None:
    one.push(1, [A])
    assert one.take() == "1 under 0"
    content = one.inbox.content
    one.push(2, [A], links)
    assert one.take() == name
    assert (one.inbox.content, one.inbox.trust.version) == (content, 0)
    assert not one.places.trust.exists()
    assert one.inbox.release is not None
    assert one.inbox.release["serial"] == 1


def test_keys_json_is_no_link_and_no_pipe(one: Host, tmp_path: Path) -> None:
    one.push(1, [A])
    file = one.directory / "current" / "keys.json"
    (tmp_path / "chain").write_bytes(keyset.write([ONE]))
    file.symlink_to(tmp_path / "chain")
    assert one.take() == "bad-file"


def test_a_set_is_written_down_before_it_counts(one: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    one.push(1, [A], [ONE], key_set=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(host, "write_atomic", full)
        with pytest.raises(OSError, match="No space"):
            one.inbox.look()
    assert (one.inbox.trust.version, one.inbox.content) == (0, None)
    assert one.take() == "1 under 1"


# What `init` gives ------------------------------------------------------------------------------------------------


def test_any_one_of_several_public_keys_may_sign(one: Host) -> None:
    one.init(PEM_A, PEM_B)
    one.push(1, [B])
    assert one.take() == "1 under 0"
    one.push(2, [C])
    assert one.take() == "wrong-key"


def test_a_host_that_was_given_a_set_starts_there(one: Host) -> None:
    one.init(key_set=TWO.key_set)
    document = json.loads(one.places.identity.read_bytes())
    assert (document["key_set"], document["threshold"], len(document["trusted_keys"])) == (2, 2, 2)
    one.push(1, [A])
    assert one.take() == "too-few-signatures"
    one.push(1, [B, C], [TWO, THREE], key_set=3)
    assert one.take() == "1 under 3"


def test_a_host_that_is_set_up_anew_starts_with_what_it_is_given(one: Host) -> None:
    one.push(1, [B, C], [ONE, TWO, THREE], key_set=3)
    assert one.take() == "1 under 3"
    one.init(PEM_A)  # the same as at first: a key that was taken away is not brought back by mistake
    assert one.inbox.trust.version == 3
    one.init(PEM_D)  # every key of set 3 is lost, so somebody goes to the host
    assert one.inbox.trust.version == 0
    one.push(2, [D])
    assert one.take() == "2 under 0"


def test_an_identity_of_the_version_before_is_read(one: Host) -> None:
    document = json.loads(one.places.identity.read_bytes())
    assert set(document) == {"format", "fleet", "kind", "host", "trusted_keys"}  # nor is another one written
    assert host.load_identity(one.places).threshold == 1


@pytest.mark.parametrize("damage", [b"", b"{}", b"x" * 100, b'{"given":"","set":{}}', b"[]"], ids=range(5))
def test_a_damaged_memory_of_the_keys_is_not_taken_for_none(one: Host, damage: bytes) -> None:
    one.push(1, [A], [ONE, TWO], key_set=2)
    one.take()
    written = json.loads(one.places.trust.read_bytes())
    one.places.trust.write_bytes(damage.replace(b'""', json.dumps(written["given"]).encode()))
    with pytest.raises(HostError, match="remove it to start from") as caught:
        one.start()
    assert "\n" not in str(caught.value)


def test_a_memory_of_the_keys_that_goes_back_is_refused(one: Host) -> None:
    one.init(key_set=TWO.key_set)
    host.save_trust(one.places, ONE.key_set)
    with pytest.raises(HostError, match="cannot be"):
        one.start()


def test_a_threshold_that_nobody_meets_is_refused(one: Host) -> None:
    document = json.loads(one.places.identity.read_bytes())
    one.places.identity.write_text(json.dumps(document | {"threshold": 2}))
    with pytest.raises(HostError, match="2 of 1 trusted_keys"):
        one.start()
    one.places.identity.write_text(json.dumps(document | {"threshold": 2, "trusted_keys": [PEM_A, PEM_A]}))
    with pytest.raises(HostError, match="2 of 1 trusted_keys"):
        one.start()


def init(one: Host, *trust: Path, fleet: str = "example") -> tuple[int, str]:
    one.places.identity.unlink(missing_ok=True)
    arguments = ["--name", "alice-laptop", "--fleet", fleet, "--etc", str(one.places.etc)]
    for path in trust:
        arguments += ["--trust", str(path)]
    done = CliRunner().invoke(init_command("client", "x"), arguments)
    return done.exit_code, done.output


def test_init_takes_a_keys_json_in_place_of_a_public_key(one: Host, tmp_path: Path) -> None:
    chain, pem = tmp_path / "keys.json", tmp_path / "a.pub"
    chain.write_bytes(keyset.write([ONE, TWO, THREE]))
    pem.write_bytes(PUBLIC[0])
    assert init(one, chain)[0] == 0
    assert host.load_trust(one.places) == THREE.key_set
    for trust, fleet, says in (
        ([chain], "other", "for fleet example, this host is of other"),
        ([chain, pem], "example", "give it alone"),
        ([pem, chain], "example", "give it alone"),
    ):
        status, said = init(one, *trust, fleet=fleet)
        assert (status, says in said, said.strip().count("\n")) == (1, True, 0)
    chain.write_bytes(keyset.write([ONE, TWO]).replace(b"A", b"B", 1))
    status, said = init(one, chain)
    assert (status, said.strip().count("\n")) == (1, 0)
