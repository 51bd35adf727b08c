"""ssh://[user@]host[:port]/path as a target: OpenSSH's own client carries SFTP, over one connection for all threads.

    ssh -M -N host                     one connection, authenticated once, by the admin's own configuration and agent
      ssh -s host sftp  (a few)        sessions in it, one for each thread that is at work

No command runs there, so the account may be held to `ForceCommand internal-sftp` in a chroot. A path that begins with
`/~/` is below the account's home. Host keys are judged by OpenSSH and its known_hosts, and nothing is ever asked.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tidegate_compiler.diagnostics import show, show_path
from tidegate_compiler.targets import Found, Host, Lost, Options, TargetError, tree
from tidegate_compiler.targets.lease import Lease
from tidegate_compiler.targets.sftp import Remote, Session
from tidegate_schema.bundle import FILES
from tidegate_schema.names import is_name

_NAME = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]{0,63})@)?"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?(?P<path>/[ -~]*)"
)
_SESSIONS_MAX = 8  # sshd's MaxSessions is 10 by default
_CONNECTING_MAX = 30  # seconds
_ERRORS_MAX = 16 << 10


def open_(name: str, options: Options) -> Ssh:
    """Return the target of a name. TargetError when the name is wrong."""
    match = _NAME.fullmatch(name)
    shown = show(re.sub(r"^(ssh://[^/@:]*):[^/@]*@", r"\1:...@", name))  # a password is nobody's to read
    if match is None or int(match["port"] or 22) > 65535:
        raise TargetError(f"{shown}: write ssh://user@host/path or ssh://user@host:port/path")
    path = match["path"].rstrip("/")
    if not path or ".." in path.split("/"):
        raise TargetError(f"{shown}: name the directory by its path, without '..'")
    return Ssh(name, match["user"] or "", match["host"].strip("[]"), match["port"] or "", path, options)


class Ssh:
    """A bundle directory on a server."""

    def __init__(self, name: str, user: str, host: str, port: str, path: str, options: Options) -> None:
        """Hold the parts of a name, which are checked."""
        self._shown, self._options = name, options
        self._host = host
        self._path = path[3:] if path.startswith("/~/") else path
        self._where = [*(["-l", user] if user else []), *(["-p", port] if port else [])]
        self._scratch = ""
        self._master: subprocess.Popen[bytes] | None = None
        self._channels: list[subprocess.Popen[bytes]] = []
        self._errors = _Tail()
        self._free: queue.LifoQueue[Session | None] = queue.LifoQueue()
        self._lease: Lease | None = None

    def __enter__(self) -> Self:
        """Connect, and take the lease."""
        self._scratch = tempfile.mkdtemp(prefix="tidegate-")
        if len(self._scratch) > 80:  # a socket's path has room for 108 bytes, and ssh adds some of its own
            Path(self._scratch).rmdir()
            self._scratch = tempfile.mkdtemp(prefix="tidegate-", dir="/tmp")
        try:
            self._connect()
            for _ in range(min(self._options.jobs, _SESSIONS_MAX) + 1):  # one more, for the lease
                self._free.put(None)
            if self._options.write:
                with self._root(make=True) as root:
                    _refuse_what_is_no_bundle_directory(root)
                self._lease = Lease(self._root, self._shown)
                self._lease.take()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lease back, and hang up."""
        if self._lease is not None:
            with suppress(TargetError, OSError):
                self._lease.release()
        self._close()

    def hosts(self) -> Mapping[Host, str]:
        """See Target."""
        found: dict[Host, str] = {}
        with self._root() as root, ThreadPoolExecutor(self._options.jobs) as pool:
            for kind in FILES:
                folder = root.folder(kind)
                names = sorted(filter(is_name, folder.names())) if folder else []
                stamps = pool.map(lambda name, kind=kind: self._stamp(kind, name), names)
                found |= {(kind, name): said for name, said in zip(names, stamps, strict=True) if said}
        return found

    def _stamp(self, kind: str, name: str) -> str:
        with self._root() as root:
            return tree.stamp(root, kind, f"{kind}/{name}/")

    def find(self, kind: str, host: str) -> Found:
        """See Target."""
        with self._root() as root:
            return tree.find(root, kind, host)

    def put(
        self, kind: str, host: str, digest: str, files: Mapping[str, bytes], found: Found, keep: int
    ) -> str:
        """See Target."""
        assert self._lease is not None
        self._lease.check()
        with self._root() as root:
            return tree.put(root, kind, host, digest, files, found, keep)

    def index(self) -> bytes:
        """See Target."""
        with self._root() as root:
            return tree.read_index(root)

    def remember(self, index: bytes) -> None:
        """See Target."""
        with self._root() as root:
            tree.write_index(root, index)

    # The connection -----------------------------------------------------------------------------------------

    @contextmanager
    def _root(self, make: bool = False) -> Iterator[Remote]:
        """Lend a session to the calling thread, as the target's root."""
        session = self._take()
        back: Session | None = session
        try:
            if make:
                _make(session, self._path, self._shown)
            yield Remote(session, self._path, self._shown)
        except Lost:
            back = None
            raise
        finally:
            self._free.put(back)

    def _take(self) -> Session:
        while True:
            session = self._free.get()
            if session is not None:
                return session
            try:
                return self._open()
            except TargetError:
                # A server that lets fewer sessions in than we would use: those that are open do it.
                if not self._channels or self._master is None or self._master.poll() is not None:
                    self._free.put(None)
                    raise

    def _ssh(self, *words: str, pipe: int) -> subprocess.Popen[bytes]:
        control = f"{self._scratch}/s"
        options = (
            *("BatchMode=yes", f"ControlPath={control}", "LogLevel=ERROR", "ConnectTimeout=20"),
            *("ServerAliveInterval=15", "ServerAliveCountMax=3", "RequestTTY=no", "EscapeChar=none"),
            *("ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "PermitLocalCommand=no"),
            "RemoteCommand=none",
        )
        told = [word for option in options for word in ("-o", option)]
        config = ["-F", self._options.ssh_config] if self._options.ssh_config else []
        try:
            process = subprocess.Popen(
                ["ssh", *config, *told, *self._where, *words],
                stderr=subprocess.PIPE,
                start_new_session=True,  # an interrupt is ours, and the lease has to be given back
                stdin=pipe,
                stdout=pipe,
            )
        except FileNotFoundError:
            raise TargetError("a target ssh:// needs OpenSSH's client, the command ssh; install it") from None
        assert process.stderr is not None
        self._errors.follow(process.stderr.fileno())
        return process

    def _connect(self) -> None:
        words = ("-o", "ControlMaster=yes", "-N", "--", self._host)
        self._master = self._ssh(*words, pipe=subprocess.DEVNULL)
        waits = threading.Event()
        for _ in range(_CONNECTING_MAX * 50):
            if Path(self._scratch, "s").exists():
                return
            if self._master.poll() is not None:
                raise TargetError(f"{self._shown}: {self._reason()}")
            waits.wait(0.02)
        raise TargetError(f"{self._shown}: no connection within {_CONNECTING_MAX} s")

    def _open(self) -> Session:
        words = ("-o", "ControlMaster=no", "-s", "--", self._host, "sftp")
        channel = self._ssh(*words, pipe=subprocess.PIPE)
        assert channel.stdin is not None
        assert channel.stdout is not None
        try:
            session = Session(channel.stdout.fileno(), channel.stdin.fileno(), self._shown)
        except TargetError as error:
            _end(channel)
            if isinstance(error, Lost):
                raise TargetError(f"{self._shown}: {self._reason()}") from None
            raise
        self._channels.append(channel)
        return session

    def _reason(self) -> str:
        return reason(self._errors.text(), self._host)

    def _close(self) -> None:
        for process in (*self._channels, *([self._master] if self._master else [])):
            _end(process)
        self._channels, self._master, self._lease = [], None, None
        self._errors.end()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = ""


def reason(said: str, host: str) -> str:
    """Return in one line why there is no connection, from what ssh said."""
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        return f"the server's host key is not the one in known_hosts; if that is meant: ssh-keygen -R {host}"
    if "Host key verification failed" in said:
        return f"the server's host key is not in known_hosts; check it, and log in once with: ssh {host}"
    if "Permission denied" in said:
        return "the server lets none of this user's keys in (Permission denied); nothing is asked for"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if len(lines) > 1 and lines[-1].endswith(("bad configuration option", "bad configuration options")):
        lines.pop()  # it counts them, and the line before says which
    return show_path(lines[-1]) if lines else "the server closed the connection; has it the subsystem sftp?"


class _Tail:
    """The end of what the processes say on stderr; they are never kept waiting by it."""

    def __init__(self) -> None:
        self._said = bytearray()
        self._threads: list[threading.Thread] = []

    def follow(self, descriptor: int) -> None:
        """Read a pipe to its end, in a thread."""
        thread = threading.Thread(target=self._read, args=(os.dup(descriptor),), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _read(self, descriptor: int) -> None:
        with open(descriptor, "rb", buffering=0) as pipe:
            while part := pipe.read(4096):
                self._said += part
                del self._said[:-_ERRORS_MAX]

    def text(self) -> str:
        """Return what was said, when those who said it have ended or had a moment."""
        for thread in self._threads:
            thread.join(0.5)
        return self._said.decode("utf-8", "replace")

    def end(self) -> None:
        """Wait for the threads; the processes have ended."""
        for thread in self._threads:
            thread.join(2)


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stderr is not None:
        process.stderr.close()


def _make(session: Session, path: str, shown: str) -> None:
    """Make the target's own directory, not those above it; it may be reached through links, which are the admin's."""
    try:
        if session.lstat(path) is None:
            session.mkdir(path)
    except OSError as error:
        raise TargetError(f"{shown}: the directory cannot be made ({error.strerror})") from None


def _refuse_what_is_no_bundle_directory(root: Remote) -> None:
    for name, what in (("overlay.yaml", "an inventory"), ("manifest.json", "a compile output")):
        if root.info(name) is not None:
            raise TargetError(f"{root.shown} is {what}, not a bundle directory; name another")
