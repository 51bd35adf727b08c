"""The files that carry a generation from the supervisor to its forwarder and flusher.

RUN/gateway/generations/<number>.json     what `datapath.judge.Tables.load` reads, and the flusher names rules by
"""

from __future__ import annotations

from pathlib import Path

from tidegate_agents.datapath.judge import Tables
from tidegate_agents.files import write_atomic
from tidegate_agents.host import Places
from tidegate_schema import jsonfile

_KEPT = 16  # events of older generations may still wait in the ring; the flusher names their policies


def directory(places: Places) -> Path:
    """Return where the generations' files are."""
    return places.run / "generations"


def file(places: Places, number: int) -> Path:
    """Return the file of one generation."""
    return directory(places) / f"{number}.json"


def _numbers(places: Places) -> list[int]:
    stems = (path.stem for path in directory(places).glob("*.json"))
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def last(places: Places) -> int:
    """Return the newest generation's number, 0 when there is none: numbers go on over a restart."""
    return max(_numbers(places), default=0)


def write(places: Places, tables: Tables) -> None:
    """Write a generation's file."""
    document = {
        "generation": tables.generation,
        "enforce": tables.enforce,
        "clients": {address.hex(): client for address, client in tables.clients.items()},
        "policy": tables.policy.document,
        "not_earlier_than": tables.not_earlier_than,
    }
    write_atomic(file(places, tables.generation), jsonfile.canonical(document))


def forget_before(places: Places, number: int) -> None:
    """Remove the files of generations too old for any event."""
    for old in _numbers(places):
        if old <= number - _KEPT:
            file(places, old).unlink(missing_ok=True)
