"""The intake's stores as a source of flows: each slot is one question, answered by the store's own grouping."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tidegate_compiler.diagnostics import show_path
from tidegate_compiler.learn.flows import NO_PORT, UNKNOWN, FlowGroup, Slots, Window
from tidegate_compiler.learn.records import address
from tidegate_control.intake import store as intake
from tidegate_control.learn.sources import Reader, SourceError, password
from tidegate_schema.extras import advice
from tidegate_schema.ports import PORTED_NUMBERS

NS = intake.NS
_VERDICTS = ("allow", "deny")


class Aggregates(Protocol):
    """What is asked of a store here."""

    def aggregated(self, window: intake.Window) -> Iterator[intake.FlowGroup]:
        """Return every group of the window, in no order; StoreError."""
        ...


@dataclass
class StoreReader(Reader):
    """Flows of a window that has both ends."""

    store: Aggregates | None = None

    def read(self, slots: Slots) -> Iterator[tuple[int, FlowGroup]]:
        """Yield the groups of the window with their slots; SourceError."""
        assert self.store is not None
        try:
            for slot, window in slots.spans():
                assert window.begin is not None
                assert window.end is not None
                for found in self.store.aggregated(intake.Window(window.begin * NS, window.end * NS)):
                    if not _is_stored(found):
                        raise SourceError(f"{self.title}: a flow in it is none that a control server stores")
                    self.records.events += found.count
                    yield slot, group(found)
        except intake.StoreError as error:
            raise SourceError(f"{self.title}: {error}") from None


@contextmanager
def opened(url: str, window: Window, now: int) -> Iterator[StoreReader]:
    """Open a store by its URL, for a window whose open end is now; SourceError."""
    scheme, _, path = url.partition("://")
    if scheme == "duckdb" and not path.startswith("/"):
        raise SourceError(f"{show_path(url)}: a path begins at the root: duckdb:///PATH")
    if scheme == "duckdb" and not Path(path).is_file():
        raise SourceError(f"{show_path(path)}: no such file")
    try:
        store = intake.open_store(url, password(), read_only=True)
    except intake.StoreError as error:
        raise SourceError(str(error)) from None
    except ModuleNotFoundError as error:
        raise SourceError(f"a store needs the module {error.name!r}; {advice('control')}") from None
    try:
        yield of(store, url, window, now)
    finally:
        store.close()


def of(store: Aggregates, title: str, window: Window, now: int) -> StoreReader:
    """Return a reader of a store that is open; a window without an end ends now, one without a begin begins in 1970."""
    return StoreReader(
        title, Window(window.begin or 0, now + 1 if window.end is None else window.end), store=store
    )


def _is_stored(found: intake.FlowGroup) -> bool:
    """Tell whether a group is one of what a control server stores; a file may be somebody else's."""
    texts = (found.client_id, found.destination, found.verdict, found.reason, found.gateway)
    counts = (found.protocol, found.port, found.first_ns, found.last_ns, found.count, found.bytes)
    return (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(count, int) and count >= 0 for count in counts)
        and found.verdict in _VERDICTS
        and found.protocol < 1 << 8
        and found.port < 1 << 16
        and max(found.first_ns, found.last_ns) < 1 << 63
    )


def group(found: intake.FlowGroup) -> FlowGroup:
    """Return a store's group as replay reads it: there, port 0 is that none is known, and no address is no packet."""
    port = found.port
    try:
        destination = address(found.destination)
    except ValueError:
        destination = ""
    protocol = found.protocol if destination else UNKNOWN
    if not port and protocol in PORTED_NUMBERS:
        port = NO_PORT
    return FlowGroup(
        found.gateway,
        found.client_id,
        destination,
        protocol,
        port,
        found.verdict,
        found.reason,
        found.first_ns / NS,
        found.last_ns / NS,
        max(found.count, 1),
        found.bytes,
    )
