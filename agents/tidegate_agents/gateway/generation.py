"""The files that carry a generation from the supervisor to its forwarder and flusher.

RUN/gateway/generations/<number>.json   what `datapath.judge.Tables.parse` reads; root's alone
RUN/gateway/names/<number>.json         the policy name of each rule, in order: what the flusher, too, may read
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tidegate_agents.datapath.judge import Tables
from tidegate_agents.files import share, write_atomic
from tidegate_agents.host import Places
from tidegate_schema import jsonfile

_KEPT = 16  # events of older generations may still wait in the ring; the flusher names their policies


def directory(places: Places) -> Path:
    """Return where the generations' files are."""
    return places.run / "generations"


def names(places: Places) -> Path:
    """Return where the names of the generations' rules are."""
    return places.run / "names"


def prepare(places: Places, reader: int) -> None:
    """Make the directories; a process of group `reader` may read the names."""
    directory(places).mkdir(mode=0o700, exist_ok=True)
    names(places).mkdir(mode=0o700, exist_ok=True)
    share(names(places), reader)


def file(places: Places, number: int) -> Path:
    """Return the file of one generation."""
    return directory(places) / f"{number}.json"


def _numbers(places: Places) -> list[int]:
    stems = (path.stem for path in directory(places).glob("*.json"))
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def last(places: Places) -> int:
    """Return the newest generation's number, 0 when there is none: numbers go on over a restart."""
    return max(_numbers(places), default=0)


def document(tables: Tables) -> dict[str, Any]:
    """Return what a generation's file says."""
    return {
        "generation": tables.generation,
        "enforce": tables.enforce,
        "clients": {address.hex(): client for address, client in tables.clients.items()},
        "policy": tables.policy.document,
        "not_earlier_than": tables.not_earlier_than,
    }


def write(places: Places, tables: Tables) -> None:
    """Write a generation's file."""
    rules = (tables.policy.document or {}).get("rules", ())
    named = [rule["policy"] for rule in rules]
    # The names first: no event of this generation comes before its tables.
    write_atomic(names(places) / f"{tables.generation}.json", jsonfile.canonical(named), 0o640)
    write_atomic(file(places, tables.generation), jsonfile.canonical(document(tables)))


def forget_before(places: Places, number: int) -> None:
    """Remove the files of generations too old for any event."""
    for old in _numbers(places):
        if old <= number - _KEPT:
            file(places, old).unlink(missing_ok=True)
            (names(places) / f"{old}.json").unlink(missing_ok=True)
