"""A compile into the output of the last one, which writes what a change of few clients concerns.

While a run gets ready, which is to import what reads an inventory, to read it, and to make what has changed, another
process looks at the output already, and both look at what is left of it then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, filterfalse
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate_compiler import files, output, parallel
from tidegate_compiler.cache import Cache
from tidegate_compiler.collector import without_collector
from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.render import MANIFEST, manifest, of_client, of_gateway
from tidegate_compiler.stamps import Stamps
from tidegate_compiler.stepwise.notes import PER_BLOCK, DamagedError, Note

if TYPE_CHECKING:
    from tidegate_compiler.pipeline import Compiled
    from tidegate_compiler.stepwise.parts import Part

_LARGE = 20_000  # hosts; a fork costs as much as a look at some thousand
_MANY = _LARGE // PER_BLOCK  # blocks of them


@dataclass(frozen=True)
class Change:
    """A compile of a changed inventory, ready to be written; `hosts` is how many it has.

    The output holds the files `_left` of hosts that stay as they are, and the hosts `_there`.
    """

    warnings: tuple[Diagnostic, ...]
    hosts: int
    _cache: Cache
    _note: Note
    _part: Part
    _entries: Mapping[str, bytes]
    _root: int
    _out: Path
    _files: Mapping[str, bytes]
    _removed: frozenset[str]
    _there: list[str]
    _left: int
    _settled: Mapping[str, Mapping[str, Stamps]]

    @property
    def concerned(self) -> frozenset[str]:
        """Return the hosts that are written, compared or removed, "kind/name"."""
        return self._removed.union(path.rpartition("/")[0] for path in self._files)

    def write(self) -> output.Written:
        """Make the output hold exactly what the inventory says. Raises OSError on trouble."""
        from tidegate_compiler.stepwise import record as records

        written = output.write_into(self._root, self._out, self._files, self._there)
        written = replace(written, unchanged=written.unchanged + self._left)
        if not written.changed and not written.removed and not self._settled:
            self._cache.leave()
            return written
        records.follow(self._cache, self._part, self._entries)
        hosts: dict[str, dict[str, bytes]] = {}
        for path, data in self._files.items():
            host, _, name = path.rpartition("/")
            hosts.setdefault(host, {})[name] = data
        inventory, first = files.digest_of(self._part.digests), hosts.pop("")[MANIFEST]
        self._note.step(inventory, first, hosts, self._removed, self._settled)
        self._note.write(self._cache)
        return written


@contextmanager
def change(cache: Cache, inventory: Path, out: Path, now: int) -> Iterator[Change | None]:
    """Open an output and compile what has changed; None where the whole run has to follow.

    `now` is the beginning of the run in nanoseconds of Unix time. Until the block ends, nobody else writes
    there. Raises OSError when the inventory is no readable directory.
    """
    with ExitStack() as stack:
        found = None
        note = Note.read(cache)
        if note is not None:
            try:
                root = stack.enter_context(output.opened(out))
            except (output.OutputError, OSError):
                root = None
            if root is not None:
                found = _change(cache, note, inventory, root, out, now)
        yield found


@without_collector()
def _change(cache: Cache, note: Note, inventory: Path, root: int, out: Path, now: int) -> Change | None:
    if not note.is_of(root):
        return None
    settled = note.settled(root, now)  # before anybody reads them
    with parallel.shared(partial(note.doubtful, root), note.every(), len(note.every()) >= _MANY) as doubtful:
        made = _made(cache, note, inventory, root, out, settled)
        if made is None:
            return None
        touched = set(chain.from_iterable(doubtful()))
    return made if touched <= made.concerned else None  # to mend others takes all that they hold


def _made(
    cache: Cache,
    note: Note,
    inventory: Path,
    root: int,
    out: Path,
    settled: Mapping[str, Mapping[str, Stamps]],
) -> Change | None:
    from tidegate_compiler.stepwise import parts  # the other process is at work by now
    from tidegate_compiler.stepwise import record as records

    record = records.read(cache)
    if record is None or note.inventory != files.digest_of(record.files):
        return None
    content, problems = files.read(inventory)
    part = None if problems else parts.one(cache, record, content)
    if part is None:
        return None
    hosts = {f"client/{name}": of_client(part.fleet.clients[name]) for name in part.step.after}
    hosts |= {f"gateway/{name}": of_gateway(part.fleet.gateways[name]) for name in part.gateways}
    removed = frozenset(f"client/{name}" for name in part.step.before if name not in part.step.after)
    try:
        names = {kind: note.names(kind) for kind in note.blocks}
    except DamagedError:
        return None
    right = {kind: set(every) for kind, every in names.items()}
    for host in hosts.keys() | removed:
        kind, _, name = host.partition("/")
        right[kind].discard(name)
    moved = part.step.names
    clients = sorted([*filterfalse(moved.__contains__, names["client"]), *part.step.after])
    first = manifest(part.fleet.name, files.digest_of(part.digests), clients, sorted(names["gateway"]))
    return Change(
        part.warnings,
        len(clients) + len(names["gateway"]),
        cache,
        note,
        part,
        records.entries(cache, record, part),
        root,
        out,
        {MANIFEST: first}
        | {f"{host}/{name}": data for host, own in hosts.items() for name, data in own.items()},
        removed,
        output.hosts_in(root, right),
        sum(len(every) * len(note.files[kind]) for kind, every in right.items()),
        settled,
    )


def write(cache: Cache, compiled: Compiled, out: Path, now: int) -> output.Written:
    """Write a whole compile as `output.write` does, and note what is not to be read again the next time.

    `now` is the beginning of the run in nanoseconds of Unix time.
    """
    hosts = {"client": list(compiled.fleet.clients), "gateway": list(compiled.fleet.gateways)}
    of_gateways = ["peers.json", "policy.json"] if compiled.inventory.has_policy else ["peers.json"]
    note = Note.of(hosts, {"client": ["wg0.conf"], "gateway": of_gateways})
    is_large = sum(map(len, hosts.values())) >= _LARGE
    with parallel.beside(lambda: _taken(note, out), is_large) as taken:
        rendered = compiled.files
        is_noted = note.begin(taken())
    written = output.write(out, rendered)
    if is_noted and note.finish(compiled.digest, rendered, written.changed, now):
        note.write(cache)
    return written


def _taken(note: Note, out: Path) -> list[dict[str, bytes]]:
    """Return the stamps of what an output has by now, nothing for a directory that is none."""
    try:
        with output.opened(out) as root:
            return note.take(root)
    except (output.OutputError, OSError):
        return []
