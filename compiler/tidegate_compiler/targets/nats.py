"""A NATS JetStream as a target: one stream for the fleet, laid out as tidegate_schema.jetstream.layout says.

    put      parts that are not there ──► pointer, if it is still the one that was found ──► parts nobody names any more

The pointer is compared and swapped (Nats-Expected-Last-Subject-Sequence), so no lock is needed: of two publishers one
is told of the conflict. Nor can a run that purges take what another relies on: a part counts as there only if the
pointer that is compared with names it; every other is put again, and so lies behind that pointer; and a run purges only
what lies before its own.

Everything is asked of the stream's leader, since a replica may be behind. While there is none, as after its death,
requests are repeated; each of them may be.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from tidegate_compiler.diagnostics import show
from tidegate_compiler.targets import Conflict, Found, Host, Lost, Options, TargetError
from tidegate_schema import jsonfile
from tidegate_schema.bundle import FILES
from tidegate_schema.jetstream import layout
from tidegate_schema.jetstream.layout import KEYS_FILE, Entry, LayoutError, Stored
from tidegate_schema.jetstream.link import (
    Address,
    Forbidden,
    Link,
    LinkError,
    Nobody,
    Papers,
    Reply,
    parse_address,
)
from tidegate_schema.names import is_name
from tidegate_schema.release import ENVELOPE_FILE, FileEntry, files_digest

T = TypeVar("T")
_PATIENCE_SECONDS = 45.0  # an election takes a few seconds, a server that starts again some more
_PAUSE_SECONDS = 0.25
_AT_ONCE = 32  # small requests on their way
_PARTS_AT_ONCE = 4
_ANSWER_MAX_BYTES = 32 << 20  # a page of names
_INDEX_MAX_BYTES = 256 << 20
_HOSTS_MAX = 1_000_000

# JetStream's error codes, from server/errors.json of nats-server.
_NO_STREAM, _NO_MESSAGE, _WRONG_SEQUENCE = 10059, 10037, 10071
_FULL = {10023, 10047, 10077, 10122, 10054}
_NOT_ENABLED = {10039, 10076}
_PASSING = {10004, 10008, 10009}  # no leader, no quorum, not ready yet

_LAYOUT: Mapping[str, Any] = {
    "retention": "limits",
    "storage": "file",
    "discard": "new",  # a full store refuses what is new; it would else drop another host's release
    "max_msgs_per_subject": 1,
    "max_msgs": -1,
    "max_age": 0,
    "allow_direct": True,
    "deny_purge": False,
    "sealed": False,
}


class _ApiError(TargetError):
    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code


@dataclass(frozen=True)
class _Pointer:
    """A host's pointer as it was found: its sequence number in the stream, 0 for none, and what it names."""

    sequence: int = 0
    entries: tuple[Entry, ...] = ()
    name: str = ""
    damaged: bool = False


@dataclass(frozen=True)
class _Token:
    """What `put` compares with: the pointer, and the parts that were seen to be there."""

    pointer: _Pointer
    there: frozenset[str]


def open_(name: str, options: Options) -> Nats:
    """Return the target of this URL, not yet connected. TargetError when it is none."""
    try:
        address = parse_address(name)
    except ValueError as error:
        shown = "" if "@" in name else f"{show(name)}: "  # a password is nobody's to read
        raise TargetError(f"{shown}{error}") from None
    if not options.fleet:
        raise TargetError("a target nats:// needs to know the fleet")
    return Nats(address, options)


class Nats:
    """One fleet's stream. Its connection lives in a thread of its own, where all of it happens."""

    def __init__(self, address: Address, options: Options) -> None:
        """Name the servers; nothing is connected yet."""
        self._address, self._fleet, self._options = address, options.fleet, options
        self._papers = Papers(options.nats.ca, options.nats.cert, options.nats.key)
        self._stream = layout.stream(options.fleet)
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._link: Link | None = None
        self._joining = asyncio.Lock()
        self._is_there = False
        self._pointers: Mapping[Host, _Pointer] | None = None
        self._index, self._index_parts = 0, frozenset[str]()

    def __enter__(self) -> Self:
        """Connect, and see that the stream is one of ours; make it when it is not there."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()
        try:
            self._do(self._open())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        try:
            self._do(self._leave())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def hosts(self) -> Mapping[Host, str]:
        """See Target; a stamp is the SHA-256 of the pointer."""
        pointers = self._do(self._read_pointers()) if self._is_there else {}
        self._pointers = pointers
        return {host: pointer.name for host, pointer in pointers.items()}

    def find(self, kind: str, host: str) -> Found:
        """See Target."""
        return self._do(self._find(kind, host)) if self._is_there else Found()

    def put(
        self, kind: str, host: str, digest: str, files: Mapping[str, bytes], found: Found, keep: int
    ) -> str:
        """See Target."""
        token = found.token if isinstance(found.token, _Token) else _Token(_Pointer(), frozenset())
        return self._do(self._put(kind, host, digest, files, token, keep))

    def index(self) -> bytes:
        """See Target."""
        return self._do(self._read_index()) if self._is_there else b""

    def remember(self, index: bytes) -> None:
        """See Target."""
        self._do(self._write_index(index))

    # --- the thread -------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _leave(self) -> None:
        if self._link is not None:
            await self._link.__aexit__(None, None, None)
            self._link = None

    async def _joined(self) -> Link:
        """Return the connection, made anew when it is lost."""
        async with self._joining:
            if self._link is not None and self._link.is_broken:
                await self._leave()
            if self._link is None:
                link = Link(
                    self._address,
                    self._papers,
                    layout.PUBLISHER_INBOX,
                    "tidegate publish",
                    answer_max_bytes=_ANSWER_MAX_BYTES,
                )
                self._link = await link.__aenter__()
            return self._link

    async def _ask(
        self,
        subject: str,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        patient: bool = True,
    ) -> dict[str, Any]:
        """Send a request of the JetStream API, or a message to store, and return the answer's JSON.

        Every request made here may be made twice. Raises _ApiError, TargetError, and Lost when patience is at its end;
        without `patient` at once where nobody is reached, or serves it.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE_SECONDS
        while True:
            try:
                link = await self._joined()
            except LinkError as error:
                if not patient or loop.time() > end:
                    raise Lost(f"{self._address}: {error}") from None
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            try:
                return _answer(await link.request(subject, data, headers=headers))
            except Forbidden as error:
                await self._leave()  # an answer to it may come late
                raise TargetError(f"{self._address}: {error}") from None
            except Nobody:
                if not patient or loop.time() > end:
                    raise Lost(
                        f"{self._address}: no answer of JetStream: it is not enabled there for this user, "
                        "or too few servers of the cluster are up"
                    ) from None
            except _ApiError as error:
                if error.code not in _PASSING or loop.time() > end:
                    raise
            except LinkError as error:
                if loop.time() > end:
                    raise Lost(f"{self._address}: {error}") from None
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _api(self, request: str, body: Mapping[str, Any], *, patient: bool = True) -> dict[str, Any]:
        return await self._ask(
            f"$JS.API.{request}.{self._stream}", jsonfile.canonical(body) if body else b"", patient=patient
        )

    # --- the stream -------------------------------------------------------------------------------

    async def _open(self) -> None:
        wanted = {
            **_LAYOUT,
            "name": self._stream,
            "subjects": [layout.of_fleet(self._fleet)],
            "num_replicas": self._options.nats.replicas,
        }
        try:
            found = await self._api("STREAM.INFO", {}, patient=False)
        except _ApiError as error:
            if error.code in _NOT_ENABLED:
                raise TargetError(f"{self._address}: JetStream is not enabled there for this user") from None
            if error.code != _NO_STREAM:
                raise
            if not self._options.write:
                return
            found = await self._api("STREAM.CREATE", wanted)
        self._refuse_another_layout(found.get("config"), wanted)
        self._is_there = True

    def _refuse_another_layout(self, config: object, wanted: Mapping[str, Any]) -> None:
        if not isinstance(config, dict):
            raise TargetError(f"{self._address}: no answer of a NATS server")
        compared = {name: value for name, value in wanted.items() if name != "num_replicas"}
        absent = {"max_age": 0, "deny_purge": False, "sealed": False}
        other = [name for name, value in compared.items() if config.get(name, absent.get(name)) != value]
        other += [name for name in ("mirror", "sources", "republish") if config.get(name)]
        if other:
            raise TargetError(
                f"{self._address}: the stream {self._stream} is of another layout ({', '.join(other)}); "
                "another program's, or changed by hand: remove or mend it"
            )

    async def _subjects(self, pattern: str) -> list[str]:
        """Return the subjects in the stream that match, page by page."""
        found: list[str] = []
        while True:
            answer = await self._api("STREAM.INFO", {"subjects_filter": pattern, "offset": len(found)})
            state = answer.get("state")
            page = state.get("subjects") if isinstance(state, dict) else None
            if not isinstance(page, dict) or not page:
                return found
            found += page
            if len(found) >= _number(answer.get("total"), len(found)):
                return found
            if len(found) > _HOSTS_MAX:
                raise TargetError(f"{self._address}: more names than a fleet has")

    async def _last(self, subject: str) -> tuple[int, bytes] | None:
        """Return sequence number and bytes of a subject's message, None when there is none."""
        try:
            answer = await self._api("STREAM.MSG.GET", {"last_by_subj": subject})
        except _ApiError as error:
            if error.code == _NO_MESSAGE:
                return None
            raise
        message = answer.get("message")
        try:
            assert isinstance(message, dict)
            return _number(message["seq"], -1), base64.b64decode(message.get("data", ""), validate=True)
        except (AssertionError, KeyError, TypeError, ValueError):
            raise TargetError(f"{self._address}: an answer that is no message") from None

    async def _store(self, subject: str, data: bytes, expected: int | None = None) -> int:
        """Store a message, if the subject's last one is `expected`; return its sequence number."""
        headers = {"Nats-Expected-Stream": self._stream}
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        try:
            answer = await self._ask(subject, data, headers)
        except _ApiError as error:
            if error.code in _FULL:
                raise TargetError(f"{self._address}: the store is full: {error}") from None
            raise
        return _number(answer.get("seq"), 0)

    async def _swap(self, subject: str, data: bytes, expected: int) -> int:
        """Replace a pointer that is still the one that was found; Conflict when it is not."""
        try:
            return await self._store(subject, data, expected)
        except _ApiError as error:
            if error.code != _WRONG_SEQUENCE:
                raise
        now = await self._last(subject)
        if now is not None and now[1] == data:  # it was stored at the first try, whose answer was lost
            return now[0]
        raise Conflict("another publish was here at the same time; run this one again")

    async def _store_parts(self, subjects: Mapping[str, bytes]) -> None:
        await _each(_PARTS_AT_ONCE, lambda item: self._store(*item), subjects.items())

    async def _purge(self, prefix: str, parts: Iterable[str], before: int) -> None:
        """Purge parts that no pointer names, if they were there before the pointer with that number."""
        await _each(
            _AT_ONCE,
            lambda part: self._api("STREAM.PURGE", {"filter": f"{prefix}.part.{part}", "seq": before}),
            sorted(parts),
        )

    # --- a host -----------------------------------------------------------------------------------

    async def _read_pointers(self) -> Mapping[Host, _Pointer]:
        hosts = []
        for subject in await self._subjects(f"tidegate.{self._fleet}.*.*.current"):
            words = subject.split(".")
            if len(words) == 5 and words[2] in FILES and is_name(words[3]):
                hosts.append((words[2], words[3]))
        found = await _each(_AT_ONCE, lambda host: self._pointer(*host), hosts)
        pointers = dict(zip(hosts, found, strict=True))
        await self._index_stored()
        if self._options.write:
            await self._sweep(pointers)
        return pointers

    async def _sweep(self, pointers: Mapping[Host, _Pointer]) -> None:
        """Purge what publishes that were killed have left, if there is more in the stream than pointers name."""
        named = {host: _parts(pointer.entries) for host, pointer in pointers.items()}
        state = (await self._api("STREAM.INFO", {})).get("state")
        held = _number(state.get("num_subjects"), 0) if isinstance(state, dict) else 0
        index = 1 + len(self._index_parts)
        if held <= sum(1 + len(parts) for parts in named.values()) + index:
            return
        left: dict[Host, list[str]] = {}
        for subject in await self._subjects(f"tidegate.{self._fleet}.*.*.part.*"):
            words = subject.split(".")
            host = (words[2], words[3]) if len(words) == 6 else ("", "")
            if host in named and words[5] not in named[host]:
                left.setdefault(host, []).append(words[5])
        for host, parts in left.items():
            await self._purge(layout.of_host(self._fleet, *host), parts, pointers[host].sequence)

    async def _pointer(self, kind: str, host: str) -> _Pointer:
        last = await self._last(layout.pointer(self._fleet, kind, host))
        if last is None:
            return _Pointer()
        try:
            return _Pointer(last[0], layout.read_pointer(kind, last[1]), layout.sha256(last[1]))
        except LayoutError:  # whatever it is: publishing mends it
            return _Pointer(last[0], (), layout.sha256(last[1]), damaged=True)

    async def _find(self, kind: str, host: str) -> Found:
        if self._pointers is None:
            pointer = await self._pointer(kind, host)
        else:
            pointer = self._pointers.get((kind, host), _Pointer())
        prefix = layout.of_host(self._fleet, kind, host)
        there: set[str] = set()
        envelopes: list[bytes] = []
        digest, keys, has_current = "", b"", False
        for number, entry in enumerate(pointer.entries):
            envelope = await self._file(prefix, entry.files[ENVELOPE_FILE], there)
            if envelope is not None:
                envelopes.append(envelope)
            if number:
                continue
            has_current = envelope is not None
            if KEYS_FILE in entry.files:
                keys = await self._file(prefix, entry.files[KEYS_FILE], there) or b""
            payload = {
                name: await self._entry(prefix, stored, there)
                for name, stored in entry.files.items()
                if name not in (ENVELOPE_FILE, KEYS_FILE)
            }
            whole = {name: found for name, found in payload.items() if found is not None}
            digest = files_digest(whole) if whole.keys() == payload.keys() else ""
            if digest != entry.digest:  # which no host would take
                digest = ""
        return Found(digest, tuple(envelopes), has_current, keys, _Token(pointer, frozenset(there)))

    async def _file(self, prefix: str, stored: Stored, there: set[str]) -> bytes | None:
        """Return a small file, None when it is damaged."""
        pieces: list[bytes] = []
        return b"".join(pieces) if await self._parts(prefix, stored, there, pieces.append) else None

    async def _entry(self, prefix: str, stored: Stored, there: set[str]) -> FileEntry | None:
        """Return a file's SHA-256 and size without holding it, None when it is damaged."""
        digest = hashlib.sha256()
        whole = await self._parts(prefix, stored, there, digest.update)
        return FileEntry(digest.hexdigest(), stored.size) if whole else None

    async def _parts(
        self, prefix: str, stored: Stored, there: set[str], take: Callable[[bytes], object]
    ) -> bool:
        for number, part in enumerate(stored.parts):
            last = await self._last(f"{prefix}.part.{part}")
            if last is None or len(last[1]) != stored.part_size(number) or layout.sha256(last[1]) != part:
                return False
            there.add(part)
            take(last[1])
        return True

    async def _put(
        self, kind: str, host: str, digest: str, files: Mapping[str, bytes], token: _Token, keep: int
    ) -> str:
        prefix = layout.of_host(self._fleet, kind, host)
        new = Entry(digest, {name: Stored.of(data) for name, data in files.items()})
        older = [entry for entry in token.pointer.entries if entry.digest != digest]
        entries = [new, *older][: min(keep, layout.KEEP_MAX)]
        parts = {layout.sha256(part): part for data in files.values() for part in layout.cut(data)}
        await self._store_parts(
            {f"{prefix}.part.{name}": part for name, part in parts.items() if name not in token.there}
        )
        data = layout.pointer_bytes(entries)
        sequence = await self._swap(f"{prefix}.current", data, token.pointer.sequence)
        await self._purge(prefix, _parts(token.pointer.entries) - _parts(entries), sequence)
        return layout.sha256(data)

    # --- the index --------------------------------------------------------------------------------

    async def _read_index(self) -> bytes:
        stored = await self._index_stored()
        return await self._file(layout.index(self._fleet), stored, set()) or b"" if stored else b""

    async def _index_stored(self) -> Stored | None:
        last = await self._last(f"{layout.index(self._fleet)}.current")
        if last is None:
            return None
        self._index = last[0]
        try:
            stored = layout.read_stored("index", jsonfile.parse(last[1]), _INDEX_MAX_BYTES)
        except (jsonfile.JsonError, LayoutError):
            return None
        self._index_parts = frozenset(stored.parts)
        return stored

    async def _write_index(self, index: bytes) -> None:
        prefix, stored = layout.index(self._fleet), Stored.of(index)
        parts = {layout.sha256(part): part for part in layout.cut(index)}
        await self._store_parts({f"{prefix}.part.{name}": part for name, part in parts.items()})
        data = jsonfile.canonical({"size": stored.size, "parts": list(stored.parts)})
        sequence = await self._swap(f"{prefix}.current", data, self._index)
        await self._purge(prefix, self._index_parts.difference(stored.parts), sequence)


def _parts(entries: Iterable[Entry]) -> set[str]:
    return {part for entry in entries for part in entry.parts()}


def _answer(reply: Reply) -> dict[str, Any]:
    try:
        answer = jsonfile.parse(reply.data)
    except jsonfile.JsonError:
        answer = None
    if not isinstance(answer, dict):
        raise TargetError("an answer that is no JetStream's")
    error = answer.get("error")
    if error is not None:
        known = error if isinstance(error, dict) else {}
        said = ascii(str(known.get("description", "no reason given")))[1:-1][:200]
        raise _ApiError(_number(known.get("err_code"), 0), f"JetStream refuses: {said}")
    return answer


def _number(value: object, default: int) -> int:
    return value if type(value) is int and value >= 0 else default


async def _each(at_once: int, work: Callable[[Any], Coroutine[Any, Any, T]], items: Iterable[Any]) -> list[T]:
    """Do something for each item, so many at a time; the results in order, or the first error."""
    room = asyncio.Semaphore(at_once)

    async def one(item: Any) -> T:
        async with room:
            return await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
