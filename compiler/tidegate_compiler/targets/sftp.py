"""SFTP over a pair of pipes, as strict as a stranger's server deserves; the way there is OpenSSH's own client.

Version 3 of the protocol, which is what OpenSSH's server speaks (draft-ietf-secsh-filexfer-02), with two
of its extensions (its file PROTOCOL): posix-rename@openssh.com, since version 3 cannot rename over a file in one step,
and fsync@openssh.com. A library would bring an SSH of its own along; this needs neither keys nor cryptography.

    packet    uint32 length, byte type, uint32 id, fields          one answer to one request, in order

No answer is larger than ANSWER_MAX, none may come late, be another's or have bytes to spare: all that ends the session.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from tidegate_compiler.targets import Lost, TargetError
from tidegate_compiler.targets.folders import NAMES_MAX, Info

ANSWER_MAX = 1 << 18
"""Bytes of one answer; OpenSSH's own limit for a packet (SFTP_MAX_MSG_LENGTH)."""
SILENCE_MAX = 120
"""Seconds without a byte, after which the server is given up."""
_CHUNK, _WINDOW = 32 << 10, 32  # every server takes 32 KiB; so many writes are under way at a time
_DEPTH_MAX = 4

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE, _LSTAT = 1, 2, 3, 4, 5, 6, 7
_OPENDIR, _READDIR, _REMOVE, _MKDIR, _RMDIR, _READLINK, _SYMLINK = 11, 12, 13, 14, 15, 19, 20
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED = 101, 102, 103, 104, 105, 200
_OK, _EOF, _NO_SUCH_FILE, _DENIED = 0, 1, 2, 3
_FOR_READING, _NEW = 0x01, 0x02 | 0x08 | 0x20  # SSH_FXF_READ; WRITE, CREAT and EXCL
_SIZE, _OWNER, _MODE, _TIMES = 0x01, 0x02, 0x04, 0x08  # flags of attributes
_RENAME, _FSYNC = b"posix-rename@openssh.com", b"fsync@openssh.com"


class _Reader:
    """The fields of one answer; anything but all of its bytes is an error."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, size: int = 4) -> int:
        return int.from_bytes(self.take(size))

    def string(self) -> bytes:
        return self.take(self.number())

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) != size:
            raise ValueError
        self._at += size
        return found

    def attributes(self) -> tuple[int, int, int]:
        """Return (mode, size, seconds of the last change), 0 for what is not told."""
        flags = self.number()
        size = self.number(8) if flags & _SIZE else 0
        if flags & _OWNER:
            self.take(8)
        mode = self.number() if flags & _MODE else 0
        changed = (self.number(), self.number())[1] if flags & _TIMES else 0
        if flags & ~(_SIZE | _OWNER | _MODE | _TIMES):
            raise ValueError
        return mode, size, changed

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError


_T = TypeVar("_T")
_Fields: TypeAlias = Callable[[_Reader], _T]


def _string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


class Session:
    """One session with a server, for one thread at a time. Lost when the way is gone or the server talks nonsense."""

    def __init__(self, reads: int, writes: int, shown: str) -> None:
        """Greet over two open pipes, which stay the caller's; `shown` names the server to people."""
        self._reads, self._writes, self._shown = reads, writes, shown
        self._next = 0
        self._asked: deque[int] = deque()
        self._send(_INIT, struct.pack(">I", 3))
        kind, answer = self._receive()
        try:
            extensions = set()
            if kind != _VERSION or answer.number() < 3:
                raise ValueError
            while True:
                try:
                    name = answer.string()
                except ValueError:
                    break
                answer.string()
                extensions.add(name)
        except ValueError:
            raise self._nonsense() from None
        for name in (_RENAME, _FSYNC):
            if name not in extensions:
                raise TargetError(
                    f"{shown}: the server lacks {name.decode()}; OpenSSH's own server has it (Subsystem sftp)"
                )

    # Requests -----------------------------------------------------------------------------------------------

    def lstat(self, path: str) -> tuple[int, int, int] | None:
        """Return (mode, size, seconds of the last change); None when it is not there."""
        try:
            answer = self._ask(_LSTAT, _ATTRS, _path(path))
        except FileNotFoundError:
            return None
        return self._read(answer, _Reader.attributes)

    def names(self, path: str) -> list[str]:
        """Return the names in a directory. TargetError when there is no end to them."""
        handle = self._handle(_OPENDIR, _path(path))
        found: list[str] = []
        try:
            while (answer := self._ask(_READDIR, _NAME, _string(handle), may_end=True)) is not None:
                page = self._read(answer, _names)
                if not page:  # it could go on for ever
                    raise self._nonsense()
                found += page
                if len(found) > NAMES_MAX:
                    raise TargetError(f"{self._shown}: more than {NAMES_MAX} entries; it is not read")
        finally:
            self._ask(_CLOSE, _STATUS, _string(handle))
        return [name for name in found if name not in (".", "..")]

    def readlink(self, path: str) -> str:
        """Return what a symbolic link says."""
        told = self._read(self._ask(_READLINK, _NAME, _path(path)), _names)
        if len(told) != 1:
            raise self._nonsense()
        return told[0]

    def read(self, path: str, limit: int) -> bytes | None:
        """Return a file's bytes; None for more than `limit`."""
        handle = self._handle(_OPEN, _path(path) + struct.pack(">II", _FOR_READING, 0))
        parts: list[bytes] = []
        size = 0
        try:
            while size <= limit:
                asked = struct.pack(">QI", size, min(_CHUNK * 4, limit + 1 - size))
                answer = self._ask(_READ, _DATA, _string(handle) + asked, may_end=True)
                if answer is None:
                    break
                data = self._read(answer, _Reader.string)
                if not data:
                    raise self._nonsense()
                parts.append(data)
                size += len(data)
        finally:
            self._ask(_CLOSE, _STATUS, _string(handle))
        return b"".join(parts) if size <= limit else None

    def write(self, path: str, data: bytes) -> None:
        """Make a new file and have it on the disk. OSError when something is there already."""
        handle = self._handle(_OPEN, _path(path) + struct.pack(">II", _NEW, 0))
        try:
            for at in range(0, len(data), _CHUNK):
                if len(self._asked) >= _WINDOW:
                    self._done()
                self._request(
                    _WRITE, _string(handle) + struct.pack(">Q", at) + _string(data[at : at + _CHUNK])
                )
            while self._asked:
                self._done()
            self._ask(_EXTENDED, _STATUS, _string(_FSYNC) + _string(handle))
        finally:
            self._settle()
            self._ask(_CLOSE, _STATUS, _string(handle))

    def sync(self, path: str) -> None:
        """Have a directory's names on the disk: a directory can be opened for reading like a file."""
        handle = self._handle(_OPEN, _path(path) + struct.pack(">II", _FOR_READING, 0))
        try:
            self._ask(_EXTENDED, _STATUS, _string(_FSYNC) + _string(handle))
        finally:
            self._ask(_CLOSE, _STATUS, _string(handle))

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        self._ask(_MKDIR, _STATUS, _path(path) + struct.pack(">I", 0))

    def symlink(self, path: str, to: str) -> None:
        """Make a symbolic link; OpenSSH has the two paths in the other order than the draft."""
        self._ask(_SYMLINK, _STATUS, _path(to) + _path(path))

    def rename(self, old: str, new: str) -> None:
        """Rename in one step, over what is there."""
        self._ask(_EXTENDED, _STATUS, _string(_RENAME) + _path(old) + _path(new))

    def unlink(self, path: str) -> None:
        """Remove what is no directory."""
        self._ask(_REMOVE, _STATUS, _path(path))

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self._ask(_RMDIR, _STATUS, _path(path))

    # Packets ------------------------------------------------------------------------------------------------

    def _handle(self, kind: int, fields: bytes) -> bytes:
        handle = self._read(self._ask(kind, _HANDLE, fields), _Reader.string)
        if len(handle) > 256:  # the draft's limit
            raise self._nonsense()
        return handle

    def _ask(self, kind: int, wanted: int, fields: bytes, may_end: bool = False) -> _Reader | None:
        """Send one request and return its answer; None for the end of a file or listing."""
        self._request(kind, fields)
        return self._answer(wanted, may_end)

    def _done(self) -> None:
        self._answer(_STATUS, False)

    def _settle(self) -> None:
        """Take the answers that are still to come, whatever they say."""
        while self._asked:
            self._asked.popleft()
            self._receive()

    def _request(self, kind: int, fields: bytes) -> None:
        self._next = (self._next + 1) & 0xFFFFFFFF
        self._send(kind, struct.pack(">I", self._next) + fields)
        self._asked.append(self._next)

    def _answer(self, wanted: int, may_end: bool) -> _Reader | None:
        kind, answer = self._receive()
        try:
            if answer.number() != self._asked.popleft():
                raise ValueError
            if kind == _STATUS:
                code, told = answer.number(), _text(answer.string())
                if code == _OK and wanted == _STATUS:
                    return answer
                if code == _EOF and may_end:
                    return None
                raise _error(code, told)
            if kind != wanted:
                raise ValueError
        except ValueError:
            raise self._nonsense() from None
        return answer

    def _read(self, answer: _Reader | None, fields: _Fields[_T]) -> _T:
        try:
            if answer is None:
                raise ValueError
            found = fields(answer)
            answer.end()
        except (ValueError, UnicodeDecodeError):
            raise self._nonsense() from None
        return found

    def _send(self, kind: int, fields: bytes) -> None:
        data = memoryview(struct.pack(">IB", len(fields) + 1, kind) + fields)
        try:
            while data:
                data = data[os.write(self._writes, data) :]
        except OSError:
            raise self._gone() from None

    def _receive(self) -> tuple[int, _Reader]:
        size = int.from_bytes(self._bytes(4))
        if not 1 <= size <= ANSWER_MAX + 1024:
            raise self._nonsense()
        data = self._bytes(size)
        return data[0], _Reader(data[1:])

    def _bytes(self, size: int) -> bytes:
        found = bytearray()
        poll = select.poll()
        poll.register(self._reads, select.POLLIN)
        while len(found) < size:
            try:
                if not poll.poll(int(SILENCE_MAX * 1000)):
                    raise Lost(f"{self._shown}: no answer for {SILENCE_MAX} s")
                part = os.read(self._reads, size - len(found))
            except OSError:
                part = b""
            if not part:
                raise self._gone()
            found += part
        return bytes(found)

    def _gone(self) -> Lost:
        return Lost(f"{self._shown}: the connection was lost; run this again, it goes on where it was")

    def _nonsense(self) -> Lost:
        return Lost(f"{self._shown}: what answers there does not keep to SFTP")


def _path(path: str) -> bytes:
    return _string(os.fsencode(path))


def _text(told: bytes) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in told[:120].decode("ascii", "replace"))


def _error(code: int, told: str) -> OSError:
    """Return a refusal as the system's own error, as far as version 3 tells: a full disk is a mere Failure, too."""
    number = {_NO_SUCH_FILE: errno.ENOENT, _DENIED: errno.EACCES}.get(code)
    if number is not None:
        return OSError(number, os.strerror(number))
    return OSError(errno.EIO, f"the server says {told or f'error {code}'}")


def _names(answer: _Reader) -> list[str]:
    count = answer.number()
    found = []
    for _ in range(count):  # each takes bytes of a bounded packet, so this ends
        name = os.fsdecode(answer.string())
        answer.string()
        answer.attributes()
        found.append(name)
    return found


class Remote:
    """A folder on a server (see Folder). There is no descriptor to hold: what a server exchanges, it exchanges."""

    def __init__(self, session: Session, path: str, shown: str) -> None:
        """Name a folder; `shown` is its name to people."""
        self._session, self._path, self.shown = session, path, shown

    def folder(self, name: str, make: bool = False) -> Remote | None:
        """See Folder."""
        inner = Remote(self._session, self._at(name), f"{self.shown}/{name}")
        with _telling(inner.shown):
            found = self._session.lstat(inner._path)
            if found is None and make:
                try:
                    self._session.mkdir(inner._path)
                except OSError:
                    if self._session.lstat(inner._path) is None:
                        raise
                self.sync()
                found = self._session.lstat(inner._path)
        if found is None:
            return None
        if not stat.S_ISDIR(found[0]):
            raise TargetError(f"{inner.shown}: a symbolic link or no directory, and not followed; remove it")
        return inner

    def names(self) -> list[str]:
        """See Folder; a name with a slash in it is none."""
        with _telling(self.shown):
            return [name for name in self._session.names(self._path) if "/" not in name]

    def info(self, path: str) -> Info | None:
        """See Folder."""
        try:
            found = self._session.lstat(self._at(path))
        except OSError:
            return None
        if found is None:
            return None
        mode, size, changed = found
        return Info(stat.S_ISDIR(mode), f"{changed}.{size}", changed)

    def stamps(self, paths: Sequence[str]) -> list[str]:
        """See Folder."""
        return [found.stamp if (found := self.info(path)) else "-" for path in paths]

    def link(self, path: str) -> str:
        """See Folder."""
        try:
            return self._session.readlink(self._at(path))
        except OSError:
            return ""

    def read(self, name: str, limit: int) -> bytes | None:
        """See Folder."""
        with _telling(f"{self.shown}/{name}"):
            found = self._session.lstat(self._at(name))
            if found is None or not stat.S_ISREG(found[0]) or found[1] > limit:
                return None
            return self._session.read(self._at(name), limit)

    def write(self, name: str, data: bytes) -> None:
        """See Folder."""
        with _telling(f"{self.shown}/{name}"):
            self.remove(name)
            self._session.write(self._at(name), data)

    def symlink(self, name: str, to: str) -> None:
        """See Folder."""
        with _telling(f"{self.shown}/{name}"):
            self.remove(name)
            self._session.symlink(self._at(name), to)

    def replace(self, old: str, new: str) -> None:
        """See Folder."""
        with _telling(f"{self.shown}/{new}"):
            self._session.rename(self._at(old), self._at(new))

    def remove(self, name: str) -> None:
        """See Folder."""
        with _telling(f"{self.shown}/{name}"):
            self._remove(self._at(name), 0)

    def _remove(self, path: str, depth: int) -> None:
        found = self._session.lstat(path)
        if found is None:
            return
        if not stat.S_ISDIR(found[0]):
            self._session.unlink(path)
            return
        if depth == _DEPTH_MAX:
            raise TargetError(f"{self.shown}: directories inside directories; remove them there")
        for name in self._session.names(path):
            if "/" not in name:
                self._remove(f"{path}/{name}", depth + 1)
        self._session.rmdir(path)

    def sync(self) -> None:
        """See Folder."""
        with _telling(self.shown):
            self._session.sync(self._path)

    def close(self) -> None:
        """See Folder."""

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"


class _telling:  # noqa: N801 - a context manager reads as a verb
    """Let an OSError of the block say where it was."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = self._shown
