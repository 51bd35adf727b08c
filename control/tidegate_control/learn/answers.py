"""What the commands, the API and the pages say of recorded flows: one function for each question, documents out.

    Subject (a compiled inventory, with git's names)  +  Reader (flows of a window)  ──►  document

The reader is read once. Each function raises SourceError when the flows cannot be read, and TooManyFlowsError.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tidegate_compiler.learn import readiness, replaydoc, suggestdoc
from tidegate_compiler.learn.comment import comment
from tidegate_compiler.learn.demand import demand
from tidegate_compiler.learn.flows import Slots
from tidegate_compiler.learn.names import Timeline
from tidegate_compiler.learn.replay import Candidate, Replayed, replay, select
from tidegate_compiler.learn.suggest import STRICTNESS, Suggestion, suggest
from tidegate_compiler.pipeline import Compiled
from tidegate_compiler.plan import source
from tidegate_control.inventory.service import Inventory
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.learn.sources import Reader


@dataclass(frozen=True)
class Subject:
    """An inventory to judge by: its title, the directory its places are told from, its names of the past."""

    title: str
    root: str
    compiled: Compiled
    past: Timeline
    commit: str = ""
    """That whose names of the past these are, where there is one."""

    @cached_property
    def candidate(self) -> Candidate:
        """Return it made ready to judge."""
        fleet = self.compiled.fleet
        return Candidate(fleet, self.past.end(fleet.ids))


@dataclass(frozen=True)
class Only:
    """A gateway and a client (a name of now or then, or an ID) to look at; None is any."""

    gateway: str | None = None
    client: str | None = None


EVERYTHING = Only()


def of_snapshot(
    snapshot: Snapshot, inventory: Inventory, title: str, root: str, commit: str
) -> Subject | None:
    """Return the control server's inventory as a subject; None when it has errors.

    `commit` is the snapshot's own, or the one that a proposal is made on: names of the past are those up to it.
    """
    if snapshot.compiled is None:
        return None
    return Subject(title, root, snapshot.compiled, inventory.names(commit), commit)


def replayed(
    new: Subject,
    reader: Reader,
    at: int | None,
    old: Subject | None = None,
    only: Only = EVERYTHING,
    most: int | None = None,
) -> tuple[dict[str, Any], Replayed]:
    """Return the document of a replay, and the replay: by Unix second `at`, or None for each flow's own time.

    TooManyFlowsError past `most` changes.
    """
    against = old.candidate if old else None
    instants = new.candidate.instants | (against.instants if against else frozenset())
    slots = Slots(reader.window, instants if at is None else ())
    groups = select(reader.read(slots), new.candidate.names, only.gateway, only.client)
    done = replay(groups, new.candidate, at, against, most)
    counted = reader.records
    about = replaydoc.About(
        new.title, new.root, reader.title, at, old.title if old else None, counted.unreadable, counted.gaps
    )
    return replaydoc.document(done, new.compiled.inventory, new.candidate.names, about), done


def commented(new: Subject, old: Subject, told: dict[str, Any], done: Replayed) -> str:
    """Return the Markdown of a change from what `replayed` returned of it."""
    sides = [
        source.of_compiled(source.Content(one.title, one.root, {}, []), one.compiled) for one in (old, new)
    ]
    return comment(sides[0], sides[1], done, told)


def readied(new: Subject, reader: Reader, at: int | None, only: Only = EVERYTHING) -> dict[str, Any]:
    """Return the document of days without an unexplained denial, by gateway and policy."""
    slots = Slots(reader.window, new.candidate.instants if at is None else ())
    groups = select(reader.read(slots), new.candidate.names, only.gateway, only.client)
    found = readiness.readiness(groups, new.candidate, new.compiled.inventory, at)
    return readiness.document(found, new.title, reader.title, at)


def suggested(
    new: Subject, reader: Reader, at: int, *, with_refused: bool = False, strictness: float = STRICTNESS
) -> tuple[dict[str, Any], Suggestion]:
    """Return the document of a suggestion, and the suggestion; `suggestdoc.files` makes an inventory of both."""
    wanted = demand(reader.read(Slots(reader.window)), new.candidate, at, with_refused)
    done = suggest(wanted, new.compiled.inventory, at, strictness)
    return suggestdoc.document(done, new.title, reader.title, at), done
