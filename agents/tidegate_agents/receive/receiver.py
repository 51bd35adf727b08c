"""The receiver's loop: connect, look, take what is new, wait for a hint or a minute; for ever.

Whatever goes wrong changes nothing of what was received before: it is told in a line, and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from tidegate_agents.receive.fetch import Damaged, Incomplete, Me, Offer, Refused, look, take
from tidegate_agents.receive.store import Store
from tidegate_schema.jetstream import layout
from tidegate_schema.jetstream.link import Address, Link, LinkError, Papers

POLL_SECONDS = 60.0
_BACKOFF_FIRST, _BACKOFF_MOST = 0.5, 30.0
_REST_SECONDS = 1.0  # after a release was taken, so that a stream of them does not wear out the disk
_AGAIN = (0.1, 0.3, 1.0, 3.0)  # a replica of the stream may be behind the one that gave the hint


@dataclass(frozen=True)
class State:
    """What a receiver says of itself. Times are Unix seconds."""

    fleet: str
    kind: str
    host: str
    server: str = ""
    """The server it is connected to, "" when to none."""
    contact: float = 0.0
    """When the stream was last looked at."""
    digest: str = ""
    """The release that `current` names."""
    serial: int = 0
    """What that release claims, as `not_after`; the agent judges it."""
    not_after: int = 0
    received: float = 0.0
    """When it was made current by this process; 0 when it was there before."""
    problem: str = ""
    since: float = 0.0
    """Since when there is this problem."""

    def document(self) -> dict[str, object]:
        """Return it as the status file holds it."""
        return asdict(self)


class Receiver:
    """Receives one host's releases into its store."""

    def __init__(
        self,
        me: Me,
        address: Address,
        papers: Papers,
        store: Store,
        told: Callable[[State, str], None],
        *,
        poll: float = POLL_SECONDS,
    ) -> None:
        """`told` is called with each new state, and what happened: "connected", "looked", "empty",
        "received", "problem" or "mended"."""
        self._me, self._address, self._papers, self._store = me, address, papers, store
        self._told, self._poll = told, poll
        self.state = State(me.fleet, me.kind, me.host, digest=store.current())
        self._taken: tuple[Offer, tuple[object, ...]] | None = None
        self._refused: tuple[Offer, str] | None = None
        self._is_empty = False
        self._wake = asyncio.Event()
        self._hint = ""

    def _link(self) -> Link:
        inbox = layout.inbox(self._me.kind, self._me.host)
        return Link(self._address, self._papers, inbox, f"tidegate-receive {self._me.kind} {self._me.host}")

    async def once(self) -> None:
        """Take what is there now. Raises LinkError, Refused and OSError."""
        async with self._link() as link:
            self._set("connected", server=link.server)
            for pause in (*_AGAIN, None):
                try:
                    await self._look(link)
                    return
                except Incomplete:
                    if pause is None:
                        raise
                    await asyncio.sleep(pause)

    async def follow(self) -> None:
        """Receive until cancelled."""
        delay = _BACKOFF_FIRST
        while True:
            contact = self.state.contact
            try:
                async with self._link() as link:
                    self._set("connected", server=link.server)
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self._serve(link))
                        tasks.create_task(_raise_when_lost(link))
            except* LinkError as group:
                if self.state.contact > contact:  # a connection that never served anything is no success
                    delay = _BACKOFF_FIRST
                self._problem(f"{self._address}: {_first(group)}", server="")
            # Hosts that lost their server at once do not come back at once.
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            delay = min(delay * 2, _BACKOFF_MOST)

    async def _serve(self, link: Link) -> None:
        await link.subscribe(layout.pointer(self._me.fleet, self._me.kind, self._me.host), self._hinted)
        tries = 0
        while True:
            self._wake.clear()
            wait = self._poll
            try:
                taken = await self._look(link)
            except (Refused, OSError) as error:
                taken = False
                self._problem(str(error) if isinstance(error, Refused) else _disk(error))
                if isinstance(error, Incomplete) and tries < len(_AGAIN):
                    wait, tries = _AGAIN[tries], tries + 1
            else:
                if not self._hint:
                    tries = 0
                elif tries < len(_AGAIN):
                    wait, tries = _AGAIN[tries], tries + 1
            if taken:
                await asyncio.sleep(_REST_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
                tries = 0
                await asyncio.sleep(_AGAIN[0])

    def _hinted(self, pointer: bytes) -> None:
        self._hint = layout.sha256(pointer)
        self._wake.set()

    async def _look(self, link: Link) -> bool:
        """Take what is there, if it is new; True when something was taken."""
        offer = await look(link, self._me)
        if offer is None:
            self._set("looked" if self._is_empty else "empty", contact=time.time())
            self._is_empty = True
            return False
        self._is_empty = False
        if offer.name == self._hint:
            self._hint = ""
        if self._refused is not None and self._refused[0] == offer:
            raise Refused(self._refused[1])
        names = offer.entry.files.keys()
        seen = self._store.fingerprint(offer.entry.digest, names)
        if self._taken == (offer, seen):
            self._set("looked", contact=time.time())
            return False
        try:
            claimed, is_new = await take(link, self._me, offer.entry, self._store)
        except (Incomplete, Damaged):
            raise  # the next look may find it otherwise
        except Refused as error:
            self._refused = (offer, str(error))
            raise
        self._taken = (offer, self._store.fingerprint(offer.entry.digest, names))
        self._set(
            "received" if is_new else "looked",
            contact=time.time(),
            digest=offer.entry.digest,
            serial=claimed.serial,
            not_after=claimed.not_after,
            received=time.time() if is_new else self.state.received,
        )
        return is_new

    def _set(self, what: str, **fields: object) -> None:
        """Enter a new state; after a look all is well again."""
        if what != "connected" and self.state.problem:
            self.state = replace(self.state, problem="", since=0.0)
            self._told(self.state, "mended")
        self.state = replace(self.state, **fields)  # type: ignore[arg-type]
        self._told(self.state, what)

    def _problem(self, line: str, **fields: object) -> None:
        if line == self.state.problem and not fields:
            return
        is_new = line != self.state.problem
        since = time.time() if is_new else self.state.since
        self.state = replace(self.state, problem=line, since=since, **fields)  # type: ignore[arg-type]
        self._told(self.state, "problem" if is_new else "looked")


async def _raise_when_lost(link: Link) -> None:
    raise await link.lost()


def _first(group: BaseExceptionGroup[LinkError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _disk(error: OSError) -> str:
    return f"{error.filename or 'the bundle directory'}: {error.strerror}"
