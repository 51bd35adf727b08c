"""Where events go: settings that contradict each other are refused in a line, and secrets stay where they are."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate_agents import host
from tidegate_agents.events import endpoint, ring
from tidegate_agents.events.flusher import tls_context
from tidegate_agents.files import FileRefused
from tidegate_agents.gateway import generation
from tidegate_agents.gateway.flushing import FlusherKeeper
from tidegate_agents.settings import SettingsError, change, defaults, load
from tidegate_agents.watch import Waker
from unit.agents.flusherkit import USER, fill
from unit.agents.kit import log_server, silence, status, until
from unit.agents.receivers import Authority

HTTPS = "https://logs.example.net/v1/events"
TOKEN = "s3cr3t-t0k3n"


@pytest.mark.parametrize(
    ("settings", "name", "said"),
    [
        ({"log_cert_file": "/c"}, "log_cert_file", "it needs log_key_file beside it"),
        ({"log_key_file": "/k"}, "log_key_file", "it needs log_cert_file beside it"),
        ({"log_endpoint": "http://10.0.0.1/", "log_token_file": "/t"}, "log_token_file", "would be readable"),
        ({"log_endpoint": "http://localhost.x/", "log_token_file": "/t"}, "log_token_file", "readable"),
        ({"log_endpoint": "http://127.0.0.1.x/", "log_token_file": "/t"}, "log_token_file", "readable"),
        ({"log_endpoint": "http://127.0.0.1/", "log_ca_file": "/c"}, "log_ca_file", "http://"),
        (
            {"log_endpoint": "http://[::1]/", "log_cert_file": "/c", "log_key_file": "/k"},
            "log_cert_file",
            "http://",
        ),
        ({"log_endpoint": "https://u:p@x/"}, "log_endpoint", "use log_token_file"),
        ({"log_endpoint": "https://u@x/"}, "log_endpoint", "use log_token_file"),
        ({"log_endpoint": "https://@x/"}, "log_endpoint", "use log_token_file"),
        ({"log_endpoint": "https:///x"}, "log_endpoint", "no host"),
        ({"log_endpoint": "http://[::1/"}, "log_endpoint", "no URL"),
        ({"log_endpoint": "http://x:99999/"}, "log_endpoint", "no URL"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name_in_a_line(
    tmp_path: Path, settings: dict[str, Any], name: str, said: str
) -> None:
    file = tmp_path / "gateway.yaml"
    with pytest.raises(SettingsError) as caught:
        change("gateway", file, settings)
    assert str(caught.value).startswith(f"{name}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not file.exists()
    file.write_text(json.dumps(settings))
    with pytest.raises(SettingsError):
        load("gateway", file)


@pytest.mark.parametrize(
    "settings",
    [
        {"log_endpoint": HTTPS, "log_token_file": "/t", "log_ca_file": "/c"},
        {"log_endpoint": HTTPS, "log_cert_file": "/c", "log_key_file": "/k"},
        {"log_endpoint": "http://10.0.0.1:8123/?query=a%20b&c=d"},
        {"log_endpoint": "http://127.0.0.1:8123/", "log_token_file": "/t"},
        {"log_endpoint": "http://127.8.8.8/", "log_token_file": "/t"},
        {"log_endpoint": "http://[::1]:8123/", "log_token_file": "/t"},
        {"log_endpoint": "http://localhost/", "log_token_file": "/t"},
        {"log_token_file": "/t"},
    ],
)
def test_what_goes_together_is_taken(tmp_path: Path, settings: dict[str, Any]) -> None:
    files = {name: str(secret(tmp_path / name)) for name in settings if name.endswith("_file")}
    settings |= files
    assert change("gateway", tmp_path / "gateway.yaml", settings).items() >= settings.items()


# Secrets ------------------------------------------------------------------------------------------------------


def secret(path: Path, text: str | bytes = TOKEN, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            (TOKEN, f"Bearer {TOKEN}"),
            (f"{TOKEN}\n", f"Bearer {TOKEN}"),
            (f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
        ),
        ("Basic dXNlcjpwYXNz==\n", "Basic dXNlcjpwYXNz=="),
    ],
)
def test_a_token_file_holds_a_token_or_a_whole_value(tmp_path: Path, text: str, value: str) -> None:
    assert endpoint.authorization({"log_token_file": str(secret(tmp_path / "token", text))}) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"a b",
        b"a\r\nX: y",
        b"a\nb",
        b"\xff",
        b"a\0",
        b"Digest x",
        b"Bearer a b",
        b"=",
        b"x" * 20_000,
    ],
)
def test_what_is_no_token_is_refused_without_a_word_of_it(tmp_path: Path, text: bytes) -> None:
    file = secret(tmp_path / "token", text)
    with pytest.raises(FileRefused) as caught:
        endpoint.authorization({"log_token_file": str(file)})
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 200 + len(str(file))


@pytest.mark.parametrize("name", ["log_token_file", "log_key_file"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666])
def test_a_secret_that_is_open_to_others_is_refused_by_name(tmp_path: Path, name: str, mode: int) -> None:
    file = secret(tmp_path / "secret", mode=mode)
    with pytest.raises(FileRefused, match=rf"^{name}: {file}: others may .* chmod 600"):
        endpoint.versions({name: str(file)})
    file.chmod(0o600)
    assert endpoint.versions({name: str(file)})


def test_a_secret_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, who may give a file away")
    file = secret(tmp_path / "secret")
    os.chown(file, 12345, 12345)
    with pytest.raises(FileRefused, match="belongs to another user"):
        endpoint.versions({"log_key_file": str(file)})


def test_a_certificate_may_be_read_by_everyone(tmp_path: Path) -> None:
    file = secret(tmp_path / "cert.pem", mode=0o644)
    assert endpoint.versions({"log_cert_file": str(file), "log_ca_file": str(file)})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match=r"log_ca_file: .*none\.pem: No such file"):
        endpoint.versions({"log_ca_file": str(tmp_path / "none.pem")})


@pytest.mark.parametrize("name", endpoint.FILES)
def test_what_is_no_regular_file_is_refused_by_name_and_holds_nobody_up(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    for file in (tmp_path / "fifo", tmp_path / "directory"):
        with pytest.raises(FileRefused, match=f"^{name}: {file}: not a regular file"):
            endpoint.versions({name: str(file)})


def test_the_token_that_is_read_is_the_one_that_is_checked(tmp_path: Path) -> None:
    file = secret(tmp_path / "token", mode=0o640)
    with pytest.raises(FileRefused, match="others may"):
        endpoint.authorization({"log_token_file": str(file)})


def test_the_flusher_itself_refuses_a_key_that_is_open_to_others(tmp_path: Path) -> None:
    papers = Authority(tmp_path, "authority").certify("gateway")
    named = {
        "log_ca_file": None,
        "log_cert_file": str(papers.certificate),
        "log_key_file": str(papers.key),
    }
    assert tls_context(named)
    papers.key.chmod(0o644)
    with pytest.raises(FileRefused, match=r"^log_key_file: .*others may"):
        tls_context(named)


def test_a_token_may_be_rotated_by_a_link(tmp_path: Path) -> None:
    link = tmp_path / "token"
    link.symlink_to(secret(tmp_path / "first"))
    assert endpoint.authorization({"log_token_file": str(link)}) == f"Bearer {TOKEN}"


# The keeper ---------------------------------------------------------------------------------------------------


@pytest.fixture
def waker(tmp_path: Path) -> Iterator[Waker]:
    with Waker([tmp_path]) as made:
        yield made


class Kept:
    """A keeper with its rings, and what the agent would do every now and then."""

    def __init__(self, directory: Path, waker: Waker, **settings: Any) -> None:
        places = host.Places("gateway", run_directory=directory)
        places.run.mkdir()
        generation.prepare(places, USER)
        self.keeper = FlusherKeeper(places, "fra1", USER)
        self.status = places.flusher_status
        self.settings = defaults("gateway") | {"flush_interval": 0.05} | settings
        self._waker = waker

    def turn(self) -> bool:
        self.keeper.keep(self.settings, self._waker)
        return True

    def until(self, what: str, true: Any) -> Any:
        return until(what, lambda: self.turn() and true())

    def stop(self) -> None:
        self.keeper.stop(self._waker)


@pytest.fixture
def kept(tmp_path: Path, waker: Waker) -> Iterator[Kept]:
    made = Kept(tmp_path, waker)
    yield made
    made.stop()


def test_a_token_that_changes_is_used_from_then_on_and_is_seen_nowhere_else(
    tmp_path: Path, kept: Kept, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    file = secret(tmp_path / "token")
    with log_server(status(204)) as server:
        kept.settings |= {"log_endpoint": server.url, "log_token_file": str(file)}
        ring.create(kept.keeper.rings.events, 64)
        fill(kept.keeper.rings.events, 1)
        kept.until("the first has come", lambda: len(server.lines()) == 1)
        assert kept.keeper.pid is not None
        command = Path(f"/proc/{kept.keeper.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{kept.keeper.pid}/environ").read_bytes()
        secret(tmp_path / "new", f"{TOKEN}-2").replace(file)
        first = kept.keeper.pid
        kept.until("it is started again", lambda: kept.keeper.pid not in (None, first))
        fill(kept.keeper.rings.events, 2)
        kept.until("the second has come", lambda: len(server.lines()) == 2)
        used = [headers["authorization"] for _, headers, _ in server.requests]
        assert used == [f"Bearer {TOKEN}", f"Bearer {TOKEN}-2"]
        file.chmod(0o644)
        kept.until("it is told", lambda: kept.keeper.problem)
        second = kept.keeper.pid
        run = kept.status.parent.parent
        assert not [one for one in run.rglob("*") if one.is_file() and TOKEN.encode() in one.read_bytes()]
        fill(kept.keeper.rings.events, 3)
        kept.until("what runs goes on", lambda: len(server.lines()) == 3)
        assert kept.keeper.pid == second
        file.chmod(0o600)
        kept.until("all is well", lambda: kept.keeper.problem is None)
        kept.until("it says how it is", lambda: kept.status.exists())
    kept.stop()
    told = kept.status.read_text() + caplog.text + "".join(capfd.readouterr()) + str(kept.keeper.problem)
    assert TOKEN not in told
    assert TOKEN.encode() not in command + environment
    assert "log_token_file" in caplog.text
    assert caplog.text.count("others may") == 1


def test_the_flusher_serves_the_supervisor_s_ring_once_that_is_there(kept: Kept) -> None:
    with log_server(status(204)) as server:
        kept.settings |= {"log_endpoint": server.url}
        ring.create(kept.keeper.rings.events, 64)
        fill(kept.keeper.rings.events, 1)
        kept.until("it has come", lambda: len(server.lines()) == 1)
        ring.create(kept.keeper.rings.flows, 64)
        fill(kept.keeper.rings.flows, 2)
        kept.until("the other one has come", lambda: len(server.lines()) == 2)
        assert kept.keeper.restarts == 0


def test_nobody_waits_for_a_flusher_that_is_held_up(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its supervisor has connections to cut meanwhile."""
    monkeypatch.setattr("tidegate_agents.gateway.flushing._END_SECONDS", 0.2)
    with log_server(silence) as server:
        kept.settings |= {"log_endpoint": server.url, "post_timeout": 60.0}
        ring.create(kept.keeper.rings.events, 64)
        fill(kept.keeper.rings.events, 1)
        kept.until("it is sending", lambda: server.requests)
        first = kept.keeper.pid
        kept.settings["batch_records"] = 7
        kept.turn()
        assert Path(f"/proc/{first}").exists()  # asked, and not waited for
        kept.until("it is made to end", lambda: kept.keeper.pid not in (None, first))
        assert kept.keeper.restarts == 0
        kept.settings["log_endpoint"] = None
        kept.until("it is gone", lambda: kept.keeper.pid is None)


def test_a_flusher_that_was_told_to_end_is_made_to_also_while_a_token_is_refused(
    tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate_agents.gateway.flushing._END_SECONDS", 0.2)
    file = secret(tmp_path / "token")
    with log_server(silence, status(204)) as server:
        kept.settings |= {"log_endpoint": server.url, "log_token_file": str(file), "post_timeout": 60.0}
        ring.create(kept.keeper.rings.events, 64)
        fill(kept.keeper.rings.events, 1)
        kept.until("it is sending", lambda: server.requests)
        first = kept.keeper.pid
        kept.settings["batch_records"] = 7
        kept.turn()
        file.chmod(0o644)
        kept.until("it is made to end", lambda: kept.keeper.pid not in (None, first))
        assert kept.keeper.problem is not None


def test_a_flusher_that_was_told_to_end_ends_though_the_settings_are_what_they_were_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It posts no more than what waited."""
    monkeypatch.setattr("tidegate_agents.gateway.flushing._END_SECONDS", 0.2)
    with log_server(silence) as server:
        kept.settings |= {"log_endpoint": server.url, "post_timeout": 60.0}
        ring.create(kept.keeper.rings.events, 64)
        fill(kept.keeper.rings.events, 1)
        kept.until("it is sending", lambda: server.requests)
        first, before = kept.keeper.pid, kept.settings["batch_records"]
        kept.settings["batch_records"] = 7
        kept.turn()
        kept.settings["batch_records"] = before
        kept.until("it is made to end", lambda: kept.keeper.pid not in (None, first))


def test_a_flusher_that_dies_while_a_token_is_refused_is_replaced_by_one_that_has_the_last_good_one(
    tmp_path: Path, kept: Kept
) -> None:
    file = secret(tmp_path / "token")
    with log_server(status(204)) as server:
        kept.settings |= {"log_endpoint": server.url, "log_token_file": str(file)}
        ring.create(kept.keeper.rings.events, 64)
        kept.turn()
        first = kept.keeper.pid
        assert first is not None
        file.write_text("another")
        file.chmod(0o644)
        os.kill(first, signal.SIGKILL)
        kept.until("there is another one", lambda: kept.keeper.pid not in (None, first))
        fill(kept.keeper.rings.events, 1)
        kept.until("it has come", lambda: len(server.lines()) == 1)
        ring.create(kept.keeper.rings.flows, 64)  # which is no setting
        fill(kept.keeper.rings.flows, 2)
        kept.until("the other one has come", lambda: len(server.lines()) == 2)
        assert {headers["authorization"] for _, headers, _ in server.requests} == {f"Bearer {TOKEN}"}
        kept.settings["log_endpoint"] = None
        kept.until("nothing is sent any more", lambda: kept.keeper.pid is None)
        assert kept.keeper.problem is None


def test_a_flusher_that_keeps_dying_is_started_ever_more_rarely(kept: Kept) -> None:
    kept.settings |= {"log_endpoint": "http://127.0.0.1:1/"}
    ring.create(kept.keeper.rings.events, 64)
    for death in range(3):
        kept.until("it runs", lambda: kept.keeper.pid)
        os.kill(kept.keeper.pid or 0, signal.SIGKILL)
        kept.until("that is seen", lambda number=death + 1: kept.keeper.restarts == number)
    assert kept.keeper.pid is None  # the second death costs 0.1 s, the third 0.2 s


def test_a_flusher_that_cannot_be_started_is_a_problem_and_is_tried_again(
    tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def without_processes(*_: Any, **__: Any) -> None:
        tries.append(time.monotonic())
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    with log_server(status(204)) as server:
        kept.settings |= {"log_endpoint": server.url}
        ring.create(kept.keeper.rings.events, 64)
        with monkeypatch.context() as patch:
            patch.setattr("subprocess.Popen", without_processes)
            kept.until("it was tried again", lambda: len(tries) == 4)
            assert "no more processes" in str(kept.keeper.problem)
            assert [
                after - before >= wait
                for before, after, wait in zip(tries, tries[1:], (0, 0.1, 0.2), strict=False)
            ] == [True] * 3
            kept.turn()
            assert "no more processes" in str(kept.keeper.problem)
        kept.until("it runs", lambda: kept.keeper.pid)
        assert kept.keeper.problem is None


def test_a_directory_that_cannot_be_made_is_a_problem_and_no_error(kept: Kept) -> None:
    kept.settings |= {"log_endpoint": "http://127.0.0.1:1/"}
    ring.create(kept.keeper.rings.events, 64)
    kept.status.parent.write_text("in its place")
    kept.turn()
    assert "the flusher cannot be started" in str(kept.keeper.problem)
    kept.status.parent.unlink()
    kept.until("it runs", lambda: kept.keeper.pid)


@pytest.mark.parametrize("content", ["", "no certificate"])
def test_certificates_that_are_none_are_named_in_a_line(
    tmp_path: Path, kept: Kept, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    kept.settings |= {"log_endpoint": HTTPS, "log_ca_file": str(secret(tmp_path / "ca.pem", content))}
    ring.create(kept.keeper.rings.events, 64)
    kept.until("it has ended", lambda: kept.keeper.restarts)
    told = capfd.readouterr().err
    assert told.startswith("flusher: log_ca_file, log_cert_file or log_key_file: ")
    assert "Traceback" not in told
