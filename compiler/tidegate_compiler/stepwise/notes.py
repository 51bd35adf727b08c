"""What is noted of an output, so that most of its hosts need not be read to know that they are right.

    step output              JSON: digests of the inventory, the manifest and the unsettled hosts' files
    step hosts KIND          the hosts' names, one to a line
    step stamps KIND FILE    the stamps of each such host's file, or of its folder, "", in that order

A host is right when its folder and files have the stamps that were noted. They are noted before a run reads
the files, or leaves them as it trusts them to be, and only if they were settled by then; so any change since
has changed them. An unsettled host, as is every one that was just written, has the digests of its files noted
instead, and is read once more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from hashlib import sha256

from tidegate_compiler.cache import Cache
from tidegate_compiler.output import MANIFEST_MAX_BYTES
from tidegate_compiler.render import MANIFEST
from tidegate_compiler.stamps import Stamps
from tidegate_schema.bundle import FILE_MAX_BYTES

OUTPUT, _HOSTS, _STAMPS = "step output", "step hosts ", "step stamps "
MOST_UNSETTLED = 1000
"""Hosts: of an output that was just written, none is noted."""
_MOST_BYTES = max(MANIFEST_MAX_BYTES, *FILE_MAX_BYTES.values())
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Digests = Mapping[str, str]
"""The SHA-256 of a host's files, by name."""


@dataclass
class Note:
    """What is noted of one output.

    `inventory` and `manifest` are digests, `files` are the names of the files that each host of a kind has. The
    stamps of an unsettled host are all zero.
    """

    names: dict[str, list[str]]
    files: dict[str, list[str]]
    inventory: str = ""
    manifest: str = ""
    stamps: dict[str, dict[str, Stamps]] = field(default_factory=dict)
    unsettled: dict[str, Digests] = field(default_factory=dict)

    def take(self, root: int) -> dict[str, dict[str, bytes]]:
        """Return the stamps of what an opened output has before a run, for `begin`; nothing where a kind is missing."""
        found = {kind: _stamps(root, kind, names, self.files[kind]) for kind, names in self.names.items()}
        return {
            kind: {file: stamps.data() for file, stamps in of.items()} for kind, of in found.items() if of
        }

    def begin(self, taken: Mapping[str, Mapping[str, bytes]]) -> bool:
        """Note what `take` has returned, if it is there of each kind."""
        self.stamps = {
            kind: {file: Stamps.read(data) for file, data in of.items()} for kind, of in taken.items()
        }
        return self.stamps.keys() == self.names.keys()

    @classmethod
    def read(cls, cache: Cache) -> Note | None:
        """Return what a cache has, or None."""
        data = cache.get(OUTPUT)
        if data is None:
            return None
        inventory, manifest, files, unsettled = json.loads(data)
        names: dict[str, list[str]] = {}
        stamps: dict[str, dict[str, Stamps]] = {}
        for kind in files:
            listed = cache.get(_HOSTS + kind)
            found = {file: cache.get(f"{_STAMPS}{kind} {file}") for file in ("", *files[kind])}
            if listed is None:
                return None
            names[kind] = listed.decode("ascii").split("\n") if listed else []
            stamps[kind] = {file: Stamps.read(one) for file, one in found.items() if one is not None}
            if len(stamps[kind]) != len(found):
                return None
        return cls(names, files, inventory, manifest, stamps, unsettled)

    def write(self, cache: Cache) -> None:
        """Keep it."""
        told = [self.inventory, self.manifest, self.files, self.unsettled]
        cache.put(OUTPUT, json.dumps(told).encode("ascii"))
        for kind, names in self.names.items():
            cache.put(_HOSTS + kind, "\n".join(names).encode("ascii"))
            for file, stamps in self.stamps[kind].items():
                cache.put(f"{_STAMPS}{kind} {file}", stamps.data())

    def is_of(self, root: int) -> bool:
        """Tell whether an opened output has the manifest that was noted, and a folder of each kind, be it empty."""
        return _digest(root, MANIFEST) == self.manifest and all(
            _stamps(root, kind, (), ()) is not None for kind in self.names
        )

    def doubtful(self, root: int, begin: float = 0, end: float = 1) -> list[str]:
        """Return those hosts between two shares of each kind, "kind/name", that somebody may have touched."""
        found = []
        for kind, every in self.names.items():
            cut = slice(round(begin * len(every)), round(end * len(every)))
            names = every[cut]
            stamps = _stamps(root, kind, names, self.files[kind])
            touched = set(range(len(names))) if stamps is None else set()
            for file, now in (stamps or {}).items():
                touched |= self.stamps[kind][file].cut(cut).differing(now)
            found += [f"{kind}/{names[position]}" for position in touched]
        return [host for host in found if not self._is_as_noted(root, host)]

    def finish(self, inventory: str, files: Mapping[str, bytes], changed: Iterable[str], now: int) -> bool:
        """Say of what inventory the output is by now; False when too much is unsettled to be noted.

        `files` are all that it has, `changed` the paths of those that were written, `now` is the beginning of
        the run, in nanoseconds of Unix time.
        """
        unsettled = {path.rpartition("/")[0] for path in changed}
        for kind, names in self.names.items():
            for stamps in self.stamps[kind].values():
                unsettled.update(f"{kind}/{names[position]}" for position in stamps.unsettled(now))
        unsettled.discard("")
        self.inventory, self.manifest = inventory, sha256(files[MANIFEST]).hexdigest()
        if len(unsettled) > MOST_UNSETTLED:
            return False
        positions = self._positions(unsettled)
        for host in unsettled:
            own = {file: files[f"{host}/{file}"] for file in self.files[host.partition("/")[0]]}
            self._unsettle(host, positions[host], own)
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
        positions = self._positions({*settled, *written, *removed})
        for host, found in settled.items():
            for file, stamps in found.items():
                self.stamps[host.partition("/")[0]][file].replace(positions[host], stamps, 0)
            self.unsettled.pop(host, None)
        for host, files in written.items():
            kind, _, name = host.partition("/")
            if host not in positions:
                positions[host] = len(self.names[kind])
                self.names[kind].append(name)
            self._unsettle(host, positions[host], files)
        for host in sorted(
            removed, key=positions.__getitem__, reverse=True
        ):  # the last one moves none of these
            kind = host.partition("/")[0]
            del self.names[kind][positions[host]]
            for stamps in self.stamps[kind].values():
                stamps.remove(positions[host])
            self.unsettled.pop(host, None)

    def _positions(self, hosts: Set[str]) -> dict[str, int]:
        """Return where those of some hosts stand that there are, "kind/name".

        Of a thousand among many, a search for each would cost more than a whole run.
        """
        found: dict[str, int] = {}
        for kind, names in self.names.items():
            wanted = {name for of, _, name in (host.partition("/") for host in hosts) if of == kind}
            found |= {f"{kind}/{name}": place for place, name in enumerate(names) if name in wanted}
        return found

    def _unsettle(self, host: str, position: int, files: Mapping[str, bytes]) -> None:
        for stamps in self.stamps[host.partition("/")[0]].values():
            stamps.replace(position, Stamps.NOTHING, 0)
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
