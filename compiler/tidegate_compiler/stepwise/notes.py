"""What is noted of an output, so that most of its hosts need not be read to know that they are right.

    step output                     JSON: digests of the inventory, the manifest and the unsettled hosts' files
    step hosts KIND NUMBER          the names of a block of hosts, one to a line
    step stamps KIND NUMBER FILE    the stamps of each such host's file, or of its folder, "", in that order

A host is right when its folder and files have the stamps that were noted. They are noted before a run reads
the files, or leaves them as it trusts them to be, and only if they were settled by then; so any change since
has changed them. An unsettled host, as is every one that was just written, has the digests of its files noted
instead, and is read once more.

Hosts that stand next to each other make a block, which a process looks at, and a run writes anew, as a whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import chain

from tidegate_compiler.cache import Cache
from tidegate_compiler.output import MANIFEST_MAX_BYTES
from tidegate_compiler.render import MANIFEST
from tidegate_compiler.stamps import Stamps
from tidegate_schema.bundle import FILE_MAX_BYTES

OUTPUT, _HOSTS, _STAMPS = "step output", "step hosts", "step stamps"
MOST_UNSETTLED = 1000
"""Hosts: of an output that was just written, none is noted."""
PER_BLOCK = 1024  # hosts
_MOST_BYTES = max(MANIFEST_MAX_BYTES, *FILE_MAX_BYTES.values())
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Digests = Mapping[str, str]
"""The SHA-256 of a host's files, by name."""


class DamagedError(LookupError):
    """What a cache had of a note is not there any more."""


@dataclass
class Block:
    """Some hosts of one kind: `names`, and `stamps` of a file of each by its name, of its folder by "".

    What `cache` has of it under `key`, "KIND NUMBER", is read when somebody asks. `is_new` tells that there is
    more to it than that. The stamps of an unsettled host are all zero.
    """

    kind: str
    files: Sequence[str]
    key: str = ""
    cache: Cache | None = None
    is_new: bool = False

    @cached_property
    def names(self) -> list[str]:
        """Return the names of the hosts; DamagedError."""
        listed = self._entry(f"{_HOSTS} {self.key}")
        if listed is None:
            raise DamagedError(self.key)
        return listed.decode("ascii").split("\n") if listed else []

    @cached_property
    def stamps(self) -> dict[str, Stamps]:
        """Return the stamps, all zero where they are damaged, as if nobody knew these hosts; DamagedError."""
        found = {file: self._entry(f"{_STAMPS} {self.key} {file}") for file in ("", *self.files)}
        return {
            file: Stamps.nothing(len(self.names)) if data is None else Stamps.read(data)
            for file, data in found.items()
        }

    def _entry(self, key: str) -> bytes | None:
        return None if self.cache is None else self.cache.get(key)


@dataclass
class Note:
    """What is noted of one output.

    `files` are the names of the files that each host of a kind has, `inventory` and `manifest` are digests.
    """

    files: Mapping[str, Sequence[str]]
    blocks: dict[str, list[Block]]
    inventory: str = ""
    manifest: str = ""
    unsettled: dict[str, Digests] = field(default_factory=dict)

    @classmethod
    def of(cls, hosts: Mapping[str, Sequence[str]], files: Mapping[str, Sequence[str]]) -> Note:
        """Return one of these hosts, by kind, of which no stamps are known."""
        note = cls(files, {kind: [] for kind in hosts})
        for kind, names in hosts.items():
            for first in range(0, len(names), PER_BLOCK):
                note._new_block(kind, names[first : first + PER_BLOCK])
        return note

    def names(self, kind: str) -> list[str]:
        """Return the hosts of a kind; DamagedError."""
        return list(chain.from_iterable(block.names for block in self.blocks[kind]))

    def every(self) -> list[Block]:
        """Return all blocks."""
        return list(chain.from_iterable(self.blocks.values()))

    def take(self, root: int) -> list[dict[str, bytes]]:
        """Return the stamps of what an opened output has before a run, for `begin`: less where a folder is missing."""
        found = (_stamps(root, block.kind, block.names, self.files[block.kind]) for block in self.every())
        return [{file: stamps.data() for file, stamps in of.items()} for of in found if of]

    def begin(self, taken: Sequence[Mapping[str, bytes]]) -> bool:
        """Note what `take` has returned, if it is there of all blocks."""
        blocks = self.every()
        if len(taken) != len(blocks):
            return False
        for block, of in zip(blocks, taken, strict=True):
            block.stamps = {file: Stamps.read(data) for file, data in of.items()}
        return True

    @classmethod
    def read(cls, cache: Cache) -> Note | None:
        """Return what a cache has, or None. The hosts themselves are read as somebody asks for them."""
        data = cache.get(OUTPUT)
        if data is None:
            return None
        inventory, manifest, files, unsettled, counts = json.loads(data)
        blocks = {
            kind: [Block(kind, files[kind], f"{kind} {number}", cache) for number in range(count)]
            for kind, count in counts.items()
        }
        return cls(files, blocks, inventory, manifest, unsettled)

    def write(self, cache: Cache) -> None:
        """Keep it; the blocks that are as they were read stay where they are."""
        counts = {kind: len(blocks) for kind, blocks in self.blocks.items()}
        told = [self.inventory, self.manifest, self.files, self.unsettled, counts]
        cache.put(OUTPUT, json.dumps(told).encode("ascii"))
        for kind, blocks in self.blocks.items():
            for number, block in enumerate(blocks):
                if block.is_new:
                    cache.put(f"{_HOSTS} {kind} {number}", "\n".join(block.names).encode("ascii"))
                    for file, stamps in block.stamps.items():
                        cache.put(f"{_STAMPS} {kind} {number} {file}", stamps.data())

    def is_of(self, root: int) -> bool:
        """Tell whether an opened output has the manifest that was noted, and a folder of each kind, be it empty."""
        return _digest(root, MANIFEST) == self.manifest and all(
            _stamps(root, kind, (), ()) is not None for kind in self.blocks
        )

    def doubtful(self, root: int, block: Block) -> list[str]:
        """Return those hosts of a block, "kind/name", that somebody may have touched."""
        stamps = _stamps(root, block.kind, block.names, self.files[block.kind])
        touched = set(range(len(block.names))) if stamps is None else set()
        for file, now in (stamps or {}).items():
            touched |= block.stamps[file].differing(now)
        hosts = (f"{block.kind}/{block.names[position]}" for position in touched)
        return [host for host in hosts if not self._is_as_noted(root, host)]

    def finish(self, inventory: str, files: Mapping[str, bytes], changed: Iterable[str], now: int) -> bool:
        """Say of what inventory the output is by now; False when too much is unsettled to be noted.

        `files` are all that it has, `changed` the paths of those that were written, `now` is the beginning of
        the run, in nanoseconds of Unix time.
        """
        unsettled = {path.rpartition("/")[0] for path in changed}
        for block in self.every():
            for stamps in block.stamps.values():
                unsettled.update(f"{block.kind}/{block.names[place]}" for place in stamps.unsettled(now))
        unsettled.discard("")
        self.inventory, self.manifest = inventory, sha256(files[MANIFEST]).hexdigest()
        if len(unsettled) > MOST_UNSETTLED:
            return False
        places = self._places(unsettled)
        for host in unsettled:
            own = {file: files[f"{host}/{file}"] for file in self.files[host.partition("/")[0]]}
            self._unsettle(host, places[host], own)
        return True

    def step(
        self,
        inventory: str,
        manifest: bytes,
        written: Mapping[str, Mapping[str, bytes]],
        removed: Set[str],
        settled: Mapping[str, Mapping[str, Stamps]],
    ) -> None:
        """Follow the output to another inventory, given what was written of hosts, and the ones that are gone.

        `settled` are the stamps of unsettled hosts that were settled before, whatever was written since.
        """
        self.inventory, self.manifest = inventory, sha256(manifest).hexdigest()
        places = self._places({*settled, *written, *removed})
        for host, found in settled.items():
            block, position = places[host]
            for file, stamps in found.items():
                block.stamps[file].replace(position, stamps, 0)
            block.is_new = True
            self.unsettled.pop(host, None)
        for host, files in written.items():
            self._unsettle(host, places.get(host) or self._add(host), files)
        for host in sorted(
            removed, key=lambda host: places[host][1], reverse=True
        ):  # the last moves none of these
            block, position = places[host]
            for stamps in block.stamps.values():
                stamps.remove(position)
            del block.names[position]
            block.is_new = True
            self.unsettled.pop(host, None)

    def _places(self, hosts: Set[str]) -> dict[str, tuple[Block, int]]:
        """Return where those of some hosts stand that there are, "kind/name".

        Of a thousand among many, a search for each would cost more than a whole run.
        """
        found: dict[str, tuple[Block, int]] = {}
        for kind, blocks in self.blocks.items():
            wanted = {name for of, _, name in (host.partition("/") for host in hosts) if of == kind}
            for block in blocks if wanted else ():
                if not wanted.isdisjoint(block.names):
                    found |= {
                        f"{kind}/{name}": (block, place)
                        for place, name in enumerate(block.names)
                        if name in wanted
                    }
        return found

    def _add(self, host: str) -> tuple[Block, int]:
        """Give a new host a place behind all others of its kind; return it."""
        kind, _, name = host.partition("/")
        blocks = self.blocks[kind]
        if not blocks or len(blocks[-1].names) >= PER_BLOCK:
            self._new_block(kind, [])
        block = blocks[-1]
        block.names.append(name)
        return block, len(block.names) - 1

    def _new_block(self, kind: str, names: Sequence[str]) -> None:
        """Add a block of hosts whose stamps nobody knows."""
        block = Block(kind, self.files[kind], is_new=True)
        block.names = list(names)
        self.blocks[kind].append(block)

    def _unsettle(self, host: str, place: tuple[Block, int], files: Mapping[str, bytes]) -> None:
        block, position = place
        for stamps in block.stamps.values():
            stamps.replace(position, Stamps.NOTHING, 0)
        block.is_new = True
        self.unsettled[host] = {file: sha256(data).hexdigest() for file, data in files.items()}

    def settled(self, root: int, now: int) -> dict[str, dict[str, Stamps]]:
        """Return the stamps of unsettled hosts that are settled by now, in nanoseconds of Unix time.

        They count for those hosts that are found to be as noted later on.
        """
        found: dict[str, dict[str, Stamps]] = {}
        for host in self.unsettled:
            kind, _, name = host.partition("/")
            taken = _stamps(root, kind, [name], self.files[kind]) or {}
            if taken and not any(stamps.unsettled(now) for stamps in taken.values()):
                found[host] = taken
        return found

    def _is_as_noted(self, root: int, host: str) -> bool:
        """Tell whether an unsettled host has the files that were noted, and no others."""
        digests = self.unsettled.get(host, {})
        return bool(digests) and _digests(root, host) == digests


def _stamps(root: int, kind: str, names: Sequence[str], files: Iterable[str]) -> dict[str, Stamps] | None:
    """Return the stamps of hosts' folders and files in an opened output; None where the kind has no folder."""
    try:
        folder = os.open(kind, _READ | os.O_DIRECTORY, dir_fd=root)
    except OSError:
        return None
    try:
        return {file: Stamps.take(folder, _paths(names, file)) for file in ("", *files)}
    finally:
        os.close(folder)


def _paths(names: Sequence[str], file: str) -> list[bytes]:
    """Return the paths of hosts' folders, or of a file in each of them; at once, since there may be many."""
    text = "\n".join(names).encode("ascii")
    if file:
        end = f"/{file}".encode("ascii")
        text = text.replace(b"\n", end + b"\n") + end
    return text.split(b"\n") if names else []


def _digest(root: int, path: str) -> str:
    """Return a file's digest, "" for none; of one larger than any of an output, that of more bytes than was noted."""
    try:
        with os.fdopen(os.open(path, _READ, dir_fd=root), "rb") as file:
            return sha256(file.read(_MOST_BYTES + 1)).hexdigest()
    except OSError:
        return ""


def _digests(root: int, host: str) -> dict[str, str]:
    try:
        folder = os.open(host, _READ | os.O_DIRECTORY, dir_fd=root)
    except OSError:
        return {}
    try:
        return {name: _digest(folder, name) for name in os.listdir(folder)}  # noqa: PTH208 - names alone
    finally:
        os.close(folder)
