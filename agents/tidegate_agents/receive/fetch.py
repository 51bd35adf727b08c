"""Bring one release from the stream into the store: bounded before it is read, complete before it is installed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tidegate_agents.files import FileRefused
from tidegate_agents.receive import claims
from tidegate_agents.receive.store import Store
from tidegate_schema.jetstream import layout
from tidegate_schema.jetstream.layout import KEYS_FILE, Entry, LayoutError, Stored
from tidegate_schema.jetstream.link import Link, LinkError, Missing, Unanswered
from tidegate_schema.release import ENVELOPE_FILE, FileEntry

_AT_ONCE = 4  # parts on their way, 2 MiB


@dataclass(frozen=True)
class Me:
    """Whose releases are received."""

    fleet: str
    kind: str
    host: str


class Refused(ValueError):  # noqa: N818 - it names what happened to the release
    """What the stream offers is not taken; one line."""


class Incomplete(Refused):
    """A part is not there: it is on its way still, or went because a newer release has come."""


class Damaged(Refused):
    """A part is not what its name says; whoever serves it may be mended."""


@dataclass(frozen=True)
class Offer:
    """A host's pointer: its newest release, and the name of the pointer's bytes."""

    entry: Entry
    name: str


async def look(link: Link, me: Me) -> Offer | None:
    """Return what the stream offers, None when nothing was published yet. Raises LinkError and Refused."""
    try:
        reply = await link.request(layout.direct_get(me.fleet, layout.pointer(me.fleet, me.kind, me.host)))
    except Missing:
        return None
    except Unanswered as error:  # a request across accounts is not told that nobody serves it
        raise LinkError(
            f"{error}: nothing was ever published to this fleet, or its stream has no leader"
        ) from None
    try:
        return Offer(layout.read_pointer(me.kind, reply.data)[0], layout.sha256(reply.data))
    except LayoutError as error:
        raise Refused(str(error)) from None


async def take(link: Link, me: Me, entry: Entry, store: Store) -> tuple[claims.Claims, bool]:
    """Make a release the store's current one; return what it claims, and False when it was that already.

    Raises Refused, LinkError, and OSError, and then the store's current release is what it was.
    """
    lacking = [name for name, stored in entry.files.items() if not store.has(entry.digest, name, stored)]
    entries: dict[str, FileEntry] = {}
    with store.begin():
        for name in lacking:
            with store.writing(name) as file:
                async for part in _parts(link, me, name, entry.files[name]):
                    file.write(part)
                entries[name] = file.entry()
        try:
            for name in entry.files.keys() - entries.keys():
                entries[name] = store.entry(entry.digest, name)
            envelope = (
                store.received(ENVELOPE_FILE)
                if ENVELOPE_FILE in lacking
                else store.read(entry.digest, ENVELOPE_FILE)
            )
        except (FileRefused, FileNotFoundError) as error:
            raise Refused(f"the directory changed meanwhile: {error}") from None
        payload = {name: found for name, found in entries.items() if name not in (ENVELOPE_FILE, KEYS_FILE)}
        try:
            claimed = claims.read(envelope)
            claims.check(claimed, me.fleet, me.kind, me.host, entry.digest, payload)
        except claims.ClaimsError as error:
            raise Refused(str(error)) from None
        if not lacking and store.current() == entry.digest:
            return claimed, False
        store.install(entry.digest, entry.files.keys())
    return claimed, True


async def _parts(link: Link, me: Me, name: str, stored: Stored) -> AsyncIterator[bytes]:
    """Yield the parts of a file in order, each what its name says."""
    waiting: deque[asyncio.Task[bytes]] = deque()
    try:
        for number in range(len(stored.parts)):
            waiting.append(asyncio.ensure_future(_part(link, me, name, stored, number)))
            if len(waiting) == _AT_ONCE:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _part(link: Link, me: Me, name: str, stored: Stored, number: int) -> bytes:
    wanted = stored.parts[number]
    try:
        reply = await link.request(
            layout.direct_get(me.fleet, layout.part(me.fleet, me.kind, me.host, wanted))
        )
    except Missing:
        raise Incomplete(f"{name}: part {number + 1} of {len(stored.parts)} is not there") from None
    if len(reply.data) != stored.part_size(number) or layout.sha256(reply.data) != wanted:
        raise Damaged(f"{name}: part {number + 1} of {len(stored.parts)} is not what its name says")
    return reply.data


__all__ = ["Damaged", "Incomplete", "LinkError", "Me", "Offer", "Refused", "look", "take"]
