"""`tidegate keys`, as users meet it, with real keys, real files and a real ssh-agent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate_compiler import keysource
from tidegate_schema import keyset, signatures
from tidegate_schema.cli import EXIT_USAGE, Failure

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tidegate(tidegate: Run) -> Run:
    """The command of every test, which besides shows no key, and fails in one line."""

    def call(*args: object) -> tuple[int, str, str]:
        status, out, err = tidegate(*args)
        assert "PRIVATE" not in out + err
        assert err.count("\n") <= 1 or status in (0, EXIT_USAGE)
        return status, out, err

    return call


_PEM = signatures.generate_key()[1].decode()
_WAITING = keyset.write([keyset.sign(keyset.KeySet("example", 1, 1, (_PEM,)), [])])


class Places:
    """The directories of three people, each with a key pair; `a` is the fleet's."""

    def __init__(self, place: Path, tidegate: Run) -> None:
        self.place = place
        for name in "abc":
            assert tidegate("keys", "init", place / name)[0] == 0
        self.keys = place / "a"

    def key(self, name: str) -> Path:
        return self.place / name / "signing.key"

    def pub(self, name: str) -> Path:
        return self.place / name / "signing.pub"

    def pem(self, name: str) -> str:
        return self.pub(name).read_text()

    def newest(self) -> keyset.KeySet:
        return keyset.read((self.keys / "keys.json").read_bytes())[-1].key_set


@pytest.fixture
def places(tmp_path: Path, tidegate: Run, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.chdir(tmp_path)  # away from this repository, where a publish would note itself
    return Places(tmp_path, tidegate)


def test_init_makes_a_key_and_with_a_fleet_the_first_set(tidegate: Run, tmp_path: Path) -> None:
    assert tidegate("keys", "init", tmp_path / "plain")[0] == 0
    assert not (tmp_path / "plain" / "keys.json").exists()
    status, said, _ = tidegate("keys", "init", tmp_path / "k", "--fleet", "example", "--json")
    assert (status, set(json.loads(said))) == (0, {"format", "private", "public", "keys"})
    assert json.loads(said)["format"] == 1
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}: not a directory; name one" in tidegate("keys", "init", tmp_path / "file")[2]
    (link,) = keyset.read((tmp_path / "k" / "keys.json").read_bytes())
    assert link.key_set == keyset.KeySet("example", 1, 1, ((tmp_path / "k" / "signing.pub").read_text(),))
    for more in (["--fleet", "A"], ["--threshold", "1"], ["--fleet", "a", "--threshold", "2"]):
        assert tidegate("keys", "init", tmp_path / "n", *more)[0] == 1
        assert not (tmp_path / "n").exists()
    (tmp_path / "k" / "signing.key").unlink()
    (tmp_path / "k" / "signing.pub").unlink()
    assert tidegate("keys", "init", tmp_path / "k", "--fleet", "example")[0] == 1  # nor a set overwritten
    assert not (tmp_path / "k" / "signing.key").exists()


def test_a_rotation_by_commands_from_one_key_to_two_others(tidegate: Run, places: Places) -> None:
    a, b, c = (places.key(name) for name in "abc")
    status, said, _ = tidegate(
        "keys",
        "add",
        places.keys,
        places.pub("b"),
        "--key",
        a,
        "--key",
        b,
        "--threshold",
        2,
        "--fleet",
        "example",
    )
    assert (status, "version 2, 2 of 2 keys must sign" in said) == (0, True)
    assert places.newest() == keyset.KeySet("example", 2, 2, (places.pem("a"), places.pem("b")))
    assert tidegate("keys", "add", places.keys, places.pub("c"), "--key", a, "--key", b)[0] == 0
    status, _, _ = tidegate(
        "keys", "remove", places.keys, places.pub("a"), "--key", a, "--key", b, "--key", c
    )
    assert status == 0
    assert places.newest() == keyset.KeySet("example", 4, 2, (places.pem("b"), places.pem("c")))
    given = keyset.KeySet("example", 0, 1, (places.pem("a"),))
    chain = keyset.read((places.keys / "keys.json").read_bytes())
    assert keyset.advance(given, chain) == places.newest()


def test_people_in_different_places_sign_one_after_the_other(tidegate: Run, places: Places) -> None:
    common = ("keys", "add", places.keys, places.pub("b"), "--key", places.key("a"))
    status, said, _ = tidegate(*common, "--threshold", 2, "--fleet", "example")
    assert (status, "1 of the 2 signatures that it needs" in said) == (0, True)
    assert places.newest().version == 1  # which counts until the next one is complete
    status, said, _ = tidegate("keys", "list", places.keys)
    assert (status, said.count("version 1, 1 of 1"), said.count("waits for signatures")) == (0, 1, 1)
    assert tidegate(*common)[0] == 1  # one at a time
    assert tidegate("keys", "sign", places.keys, "--key", places.key("c"))[0] == 1  # a stranger
    status, said, _ = tidegate("keys", "sign", places.keys, "--key", places.key("b"), "--json")
    assert (status, json.loads(said)["lacks"]) == (0, None)
    assert places.newest().version == 2
    assert sorted(path.name for path in places.keys.iterdir()) == [
        ".gitignore", "keys.json", "signing.key", "signing.pub",
    ]  # fmt: skip
    assert tidegate("keys", "sign", places.keys, "--key", places.key("b"))[0] == 1


def test_a_set_that_a_killed_run_left_waiting_is_in_nobody_s_way(tidegate: Run, places: Places) -> None:
    common = ("keys", "add", places.keys, places.pub("b"), "--key", places.key("a"))
    assert tidegate(*common, "--threshold", 2, "--fleet", "example")[0] == 0
    left = (places.keys / "keys.next.json").read_bytes()
    assert tidegate("keys", "sign", places.keys, "--key", places.key("b"))[0] == 0
    (places.keys / "keys.next.json").write_bytes(left)  # killed after the one and before the other
    assert "waits" not in tidegate("keys", "list", places.keys)[1]
    assert "no key set waits" in tidegate("keys", "sign", places.keys, "--key", places.key("b"))[2]
    both = ("--key", places.key("a"), "--key", places.key("b"))
    assert tidegate("keys", "add", places.keys, "--threshold", 1, *both)[0] == 0
    assert places.newest().version == 3
    assert not (places.keys / "keys.next.json").exists()


def test_the_threshold_alone_can_change(tidegate: Run, places: Places) -> None:
    both = ("--key", places.key("a"), "--key", places.key("b"))
    assert tidegate("keys", "add", places.keys, places.pub("b"), *both, "--fleet", "example")[0] == 0
    assert tidegate("keys", "add", places.keys, "--threshold", 2, *both)[0] == 0
    assert (places.newest().version, places.newest().threshold) == (3, 2)
    assert tidegate("keys", "add", places.keys, *both)[0] == EXIT_USAGE
    assert tidegate("keys", "add", places.keys, "--threshold", 2, *both)[0] == 1  # as it is already
    begin = (
        "keys",
        "add",
        places.place / "c",
        "--fleet",
        "example",
        "--threshold",
        1,
        "--key",
        places.key("c"),
    )
    assert tidegate(*begin)[0] == 0
    (first,) = keyset.read((places.place / "c" / "keys.json").read_bytes())
    assert first.key_set == keyset.KeySet("example", 1, 1, (places.pem("c"),))


def test_list_says_whose_signatures_count(tidegate: Run, places: Places) -> None:
    assert "no key set" in tidegate("keys", "list", places.keys)[1]
    assert json.loads(tidegate("keys", "list", places.keys, "--json")[1]) == {"format": 1, "sets": []}
    common = ("keys", "add", places.keys, places.pub("b"), "--key", places.key("a"))
    tidegate(*common, "--fleet", "example")
    (shown,) = json.loads(tidegate("keys", "list", places.keys, "--json")[1])["sets"]
    ids = [signatures.load_public_key(places.pem(name).encode()).keyid for name in "ab"]
    assert [key["key_id"] for key in shown["keys"]] == ids
    assert (shown["version"], shown["threshold"], shown["waits"], shown["signatures"]) == (
        2,
        1,
        False,
        ids[:1],
    )
    fingerprint = shown["keys"][1]["fingerprint"]
    assert fingerprint in tidegate("keys", "list", places.keys)[1]
    assert tidegate("keys", "list", places.place / "absent")[0] == 1


def test_a_key_is_removed_by_its_id_fingerprint_or_file(tidegate: Run, places: Places) -> None:
    sign_a = ("--key", places.key("a"))
    tidegate("keys", "add", places.keys, places.pub("b"), *sign_a, "--fleet", "example")
    names = [
        signatures.load_public_key(places.pem("b").encode()).keyid,
        keysource.fingerprint(places.pem("b")),
        places.pub("b"),
    ]
    for name in names:
        assert tidegate("keys", "remove", places.keys, name, *sign_a)[0] == 0
        assert places.newest().keys == (places.pem("a"),)
        assert tidegate("keys", "remove", places.keys, name, *sign_a)[0] == 1  # it is not there any more
        assert tidegate("keys", "add", places.keys, places.pub("b"), *sign_a)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("remove", "{a}", "{a.pub}", "--key", "{a.key}"), "1 would be left and 2 must sign"),
        (("add", "{a}", "{b.pub}", "--key", "{a.key}", "--key", "{b.key}"), "stands twice"),
        (("add", "{a}", "{c.pub}", "--threshold", "4", "--key", "{a.key}"), "4 must sign and there are only 3"),
        (("add", "{a}", "{c.pub}", "--fleet", "other", "--key", "{a.key}"), "the key set is for example"),
        (("add", "{a}", "{c.key}", "--key", "{a.key}"), "not an ed25519 public key"),
        (("add", "{a}", "{c.pub}", "--key", "{a.pub}"), "not an unencrypted ed25519 private key"),
        (("add", "{a}", "{c.pub}", "--key", "{a}/absent"), "No such file"),
        (("add", "{a}", "{a}/absent", "--key", "{a.key}"), "No such file"),
        (("add", "{b}", "{c.pub}", "--key", "{b.key}"), "no key set yet; say --fleet"),
        (("add", "{b}", "{c.pub}", "--key", "{a.key}", "--fleet", "f"), "which begins the key set"),
        (("remove", "{b}", "{c.pub}", "--key", "{b.key}"), "no key set here"),
        (("remove", "{a}", "SHA256:x", "--key", "{a.key}"), "no key of version 2"),
        (("sign", "{a}", "--key", "{a.key}"), "no key set waits"),
    ],
    ids=range(13),
)  # fmt: skip
def test_what_would_weaken_or_break_a_set_is_refused_in_one_line(
    tidegate: Run, places: Places, arguments: tuple[str, ...], says: str
) -> None:
    both = ("--key", places.key("a"), "--key", places.key("b"), "--threshold", 2, "--fleet", "example")
    assert tidegate("keys", "add", places.keys, places.pub("b"), *both)[0] == 0
    before = (places.keys / "keys.json").read_bytes()
    known = {f"{{{name}}}": places.place / name for name in "abc"}
    known |= {
        f"{{{name}.{end}}}": places.place / name / f"signing.{end}"
        for name in "abc"
        for end in ("key", "pub")
    }
    words = []
    for word in arguments:
        for text, path in known.items():
            word = word.replace(text, str(path))
        words.append(word)
    status, out, err = tidegate("keys", *words)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert says in err
    assert (places.keys / "keys.json").read_bytes() == before
    assert not (places.keys / "keys.next.json").exists()


def test_a_key_set_that_somebody_changed_is_refused(tidegate: Run, places: Places) -> None:
    add = ("keys", "add", places.keys, places.pub("b"), "--key", places.key("a"), "--fleet", "example")
    assert tidegate(*add)[0] == 0
    data = (places.keys / "keys.json").read_bytes()
    (places.keys / "keys.json").write_bytes(data.replace(b"A", b"B", 1))
    assert tidegate("keys", "list", places.keys)[0] == 1
    (places.keys / "keys.json").write_bytes(b"{}")
    assert (
        "not a list of DSSE envelopes in canonical JSON; restore it from git"
        in tidegate("keys", "list", places.keys)[2]
    )
    (places.keys / "keys.json").write_bytes(data)
    for waiting in (b"{}", b"", data):
        (places.keys / "keys.next.json").write_bytes(waiting)
        assert tidegate("keys", "sign", places.keys, "--key", places.key("a"))[0] == 1
        assert (places.keys / "keys.json").read_bytes() == data


needs_agent = pytest.mark.needs_tools("ssh-agent", "ssh-add", "ssh-keygen")


# An ssh-agent -----------------------------------------------------------------------------------------------------


class Agent:
    """A real ssh-agent with keys of its own making."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.socket = place / "agent.sock"
        self.process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(self.socket)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.process.stdout is not None
        assert b"SSH_AUTH_SOCK" in self.process.stdout.readline()  # printed when it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(self.socket))

    def make(self, name: str, comment: str, kind: str = "ed25519") -> Path:
        """Make a key, give it to the agent, remove the private file; returns the public one."""
        path = self.place / name
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(path)]
        subprocess.run(command, check=True)
        subprocess.run(["ssh-add", "-q", str(path)], check=True)
        path.unlink()
        return path.with_suffix(".pub")

    def fingerprint(self, public: Path) -> str:
        done = subprocess.run(["ssh-keygen", "-lf", str(public)], check=True, capture_output=True, text=True)
        return done.stdout.split()[1]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    made = Agent(tmp_path, monkeypatch)
    yield made
    made.stop()


@needs_agent
def test_a_key_in_an_agent_signs_by_fingerprint_or_comment(agent: Agent, tmp_path: Path) -> None:
    public = agent.make("bob", "bob@example.net")
    agent.make("rsa", "rsa@example.net", "rsa")
    pem = signatures.public_pem(public.read_bytes())
    assert keysource.fingerprint(pem) == agent.fingerprint(public)
    for name in ("bob@example.net", agent.fingerprint(public)):
        signer = keysource.load(f"agent:{name}")
        envelope = signatures.seal(b"payload", "type", [signer])
        assert signatures.signed_by(envelope, [signatures.load_public_key(pem.encode())])


@needs_agent
@pytest.mark.parametrize("name", ["rsa@example.net", "nobody", "", "SHA256:", "twice", "a\nb\x1b"])
def test_a_name_that_is_no_one_ed25519_key_is_refused(agent: Agent, name: str) -> None:
    agent.make("bob", "twice")
    agent.make("carol", "twice")
    agent.make("rsa", "rsa@example.net", "rsa")
    with pytest.raises(Failure) as caught:
        keysource.load(f"agent:{name}")
    assert caught.value.message.isprintable()
    assert ("names 2 keys" if name == "twice" else "no such ed25519 key") in caught.value.message


@needs_agent
def test_a_set_and_a_publish_are_signed_by_an_agent(tidegate: Run, places: Places, agent: Agent) -> None:
    public = agent.make("bob", "bob@example.net")
    both = ("--key", places.key("a"), "--key", "agent:bob@example.net")
    assert tidegate("keys", "add", places.keys, public, *both, "--threshold", 2, "--fleet", "example")[0] == 0
    out, target = places.place / "out", places.place / "bundles"
    example = Path(__file__).parents[3] / "inventory"
    assert tidegate("compile", example, "--out", out)[0] == 0
    assert tidegate("publish", out, "--first", "--to", target, "--key", places.key("a"))[0] == 1  # one of two
    assert not target.exists()
    assert tidegate("publish", out, "--first", "--to", target, *both)[0] == 0
    assert tidegate("keys", "remove", places.keys, places.pub("a"), *both, "--threshold", 1)[0] == 0
    by_agent = ("--key", "agent:bob@example.net", "--keys", places.keys / "keys.json")
    status, said, _ = tidegate("publish", out, "--first", "--to", target, *by_agent)
    assert (status, said.count("renewed")) == (0, 10), said


@needs_agent
def test_without_an_agent_that_answers_it_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: Agent
) -> None:
    agent.make("bob", "bob")
    signer = keysource.load("agent:bob")
    subprocess.run(["ssh-add", "-qD"], check=True)
    with pytest.raises(Failure, match="does not sign"):
        signer.sign(b"x")
    for path in (str(tmp_path / "absent"), "/etc/passwd", "x" * 200):
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with pytest.raises(Failure, match="does not answer"):
            keysource.load("agent:bob")
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(Failure, match="SSH_AUTH_SOCK is not set"):
        keysource.load("agent:bob")


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


_BLOB = _string(b"ssh-ed25519") + _string(b"\x01" * 32)
_LIST = b"\x0c" + (1).to_bytes(4, "big") + _string(_BLOB) + _string(b"bob")


@pytest.mark.parametrize(
    "answers",
    [
        [b""],
        [b"\x05"],
        [b"\x0c\xff\xff\xff\xff"],
        [b"\x0c" + (1).to_bytes(4, "big") + _string(_string(b"ssh-ed25519")) + _string(b"bob")],
        [b"\x0c" + (1).to_bytes(4, "big") + _string(b"") + _string(b"bob")],
        [_LIST, b"\x05"],
        [_LIST, b"\x0e" + _string(b"")],
        [_LIST, b"\x0e" + _string(_string(b"ssh-ed25519") + _string(b"\0" * 64))],
        [_LIST, b"\x0e" + _string(_string(b"ssh-rsa") + _string(b"\0" * 64))],
        [_LIST, b"\x0e" + _string(_string(b"ssh-ed25519") + _string(b"\0" * 63))],
    ],
    ids=range(10),
)
def test_what_a_hostile_agent_answers_is_a_refusal(
    answers: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "s"))

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    asked: Any = connection.recv(65536)
                    assert asked
                    connection.sendall(_string(answer))

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Failure) as caught:
            keysource.load("agent:bob").sign(b"payload")
        thread.join()
    assert caught.value.message.isprintable()


def test_an_agent_needs_a_module_that_can_be_missing(tmp_path: Path) -> None:
    script = "import sys; sys.modules['asyncssh'] = None; from tidegate_schema.cli import main; main()"
    words = ("keys", "sign", str(tmp_path), "--key", "agent:bob")
    (tmp_path / "keys.next.json").write_bytes(_WAITING)
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'tidegate[publish]'" in done.stderr


def test_a_private_key_that_others_may_read_signs_nothing(tidegate: Run, places: Places) -> None:
    os.chmod(places.key("a"), 0o640)  # noqa: PTH101
    add = ("keys", "add", places.keys, places.pub("b"), "--key", places.key("a"), "--fleet", "example")
    status, _, err = tidegate(*add)
    assert (status, "others may read" in err) == (1, True)
