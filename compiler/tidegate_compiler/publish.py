"""Publishing: every host's bundle signed, and pushed to a target where it changed; one row for each host.

    output ─┬─ as the index has it, and the target's stamp is the same ──► unchanged
            └─ find what is there ─► same and fresh ──────────────────────► unchanged
                                  └► serial, sign ─► put ─────────────────► published, renewed, failed

A host's serial is the highest that we signed and the target still holds, plus one; what we did not sign counts for
nothing, and what a key set since replaced has signed counts only where nothing newer is, and below a bound. The index
is what the last publish left in the target: which stamp it saw there, and what of. It saves reading ten thousand hosts
to find that nothing changed. Whoever can write there can make hosts keep what they have, by that file as by any other,
and nothing else: whatever is signed is made from the output and from releases of ours.

A host that fails is named and does not stop the others. Run again, publishing goes on where it was.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from tidegate_compiler.index import Entry, Index
from tidegate_compiler.output import Known, Output
from tidegate_compiler.progress import track
from tidegate_compiler.signing import Signing
from tidegate_compiler.targets import Found, Host, Lost, Target, TargetError
from tidegate_schema.keyset import KEYS_FILE
from tidegate_schema.release import ENVELOPE_FILE, FileEntry, Release, ReleaseError, files_digest

PUBLISHED, RENEWED, UNCHANGED, FAILED = "published", "renewed", "unchanged", "failed"
ACTIONS = (PUBLISHED, RENEWED, UNCHANGED, FAILED)
SERIAL_MAX = (1 << 53) - 1
REPLACED_SERIAL_MAX = 1 << 48
"""What a key set since replaced has signed counts up to here: its lost keys could else use the serials up."""


@dataclass(frozen=True)
class Terms:
    """How to publish: `now` is a Unix second, `valid_for` seconds; `source` is told to hosts.

    `keep` releases of a host stay on the target; no release gets a serial below `serial_from`; `jobs` threads push. A
    `dry_run` signs and writes nothing, and its rows are what would be.
    """

    now: int
    valid_for: int
    source: str
    keep: int = 5
    serial_from: int = 1
    jobs: int = 4
    dry_run: bool = False


@dataclass(frozen=True)
class Row:
    """What publishing did for one host; `not_after` in Unix seconds; `reason` says why it failed, in one line."""

    kind: str
    host: str
    action: str
    serial: int
    not_after: int
    digest: str
    reason: str = ""


@dataclass(frozen=True)
class Published:
    """The rows in the output's order, and the hosts that the target holds and the output lacks."""

    rows: tuple[Row, ...] = ()
    left_behind: tuple[Host, ...] = ()
    was_empty: bool = False
    """Whether the target held no host when the publish began."""

    @property
    def is_complete(self) -> bool:
        """Tell whether every host has its release."""
        return all(row.action != FAILED for row in self.rows)


def digests(output: Output, known: Mapping[Host, Known] = MappingProxyType({})) -> dict[Host, str]:
    """Return the digest of each host's files; what is known of the very same files is taken as it is."""
    return {
        host: known[host].digest
        if host in known and known[host].files is files
        else files_digest({name: FileEntry.of(data) for name, data in files.items()})
        for host, files in output.hosts.items()
    }


def publish(
    output: Output, target: Target, signing: Signing, terms: Terms, of: Mapping[Host, str] | None = None
) -> Published:
    """Publish every host of an output to an opened target; `of` is what `digests` returned, if it is there already.

    Raises TargetError and OSError when it cannot begin.
    """
    seen = target.hosts()
    keys = hashlib.sha256(b"%d %s" % (signing.form, signing.chain)).hexdigest()
    known = Index.read(target.index(), output.fleet, keys, signing, len(output.hosts))
    run = _Run(output, target, signing, terms, digests(output) if of is None else of)
    rows: dict[Host, Row] = {}
    stamps: dict[Host, str] = {}
    todo: list[Host] = []
    for host, digest in run.digests.items():
        entry = known.hosts.get(host)
        is_known = entry is not None and seen.get(host) == entry.stamp != "" and entry.digest == digest
        if entry and is_known and entry.serial >= terms.serial_from and run.is_fresh(entry.not_after):
            rows[host] = Row(*host, UNCHANGED, entry.serial, entry.not_after, digest)
            stamps[host] = entry.stamp
        else:
            todo.append(host)
    run.look(next((host for host in todo if host in seen), None))
    try:
        for row, stamp in run.do(todo):
            host = (row.kind, row.host)
            rows[host] = row
            stamps[host] = seen.get(host, "") if row.action == UNCHANGED else stamp
    finally:
        if todo and not terms.dry_run and not run.is_lost:
            _remember(target, output.fleet, keys, known, run, rows, stamps)
    left = tuple(sorted(host for host in seen if host not in output.hosts))
    return Published(tuple(rows[host] for host in output.hosts), left, not seen)


def forgotten_set(used: int, own: int) -> str:
    """Return why nothing is published under the key set `own`, 0 for none, where `used` was used before."""
    told = f"key set {own}" if own else "none"
    return f"releases here are signed under key set {used}, this publish has {told}; name its keys.json with --keys"


def _remember(
    target: Target,
    fleet: str,
    keys: str,
    known: Index,
    run: _Run,
    rows: Mapping[Host, Row],
    stamps: Mapping[Host, str],
) -> None:
    entries = {
        host: Entry(stamps[host], row.digest, row.serial, row.not_after)
        for host, row in rows.items()
        if row.action != FAILED and stamps[host]
    }
    sample = run.sample or known.sample
    if sample:
        with suppress(TargetError, OSError):  # it saves time and nothing else
            target.remember(Index(fleet, keys, sample, entries).encode())


class _Run:
    """One publish: what its threads share."""

    def __init__(
        self, output: Output, target: Target, signing: Signing, terms: Terms, of: Mapping[Host, str]
    ) -> None:
        self._output, self._target, self._signing, self._terms = output, target, signing, terms
        self.digests = of
        self._lost = ""
        self._looked: dict[Host, Found] = {}
        self._signs = threading.Lock()  # an agent or a token answers one at a time
        self.sample = b""
        """A release that we have signed, or read and found to be ours."""

    @property
    def is_lost(self) -> bool:
        """Tell whether the way to the target is gone."""
        return bool(self._lost)

    def look(self, host: Host | None) -> None:
        """Look at one host before any is pushed: TargetError when this publish lacks the key sets that it has.

        Hosts that have taken a key set up would refuse a release under none. What else is wrong is told later.
        """
        if host is None or self._signing.key_set:
            return
        try:
            found = self._looked[host] = self._target.find(*host)
        except (TargetError, OSError):
            return
        for envelope in found.envelopes:
            if forgotten := self._signing.forgotten_set(envelope):
                raise TargetError(forgotten_set(forgotten, 0))

    def is_fresh(self, not_after: int) -> bool:
        """Tell whether a release has more than half of its life before it."""
        return not_after - self._terms.now > self._terms.valid_for / 2

    def do(self, todo: list[Host]) -> Iterator[tuple[Row, str]]:
        """Yield each host's row and new stamp, in order."""
        with ThreadPoolExecutor(max(1, self._terms.jobs)) as pool:
            futures: dict[Host, Future[tuple[Row, str]]] = {
                host: pool.submit(self._one, *host) for host in todo
            }
            try:
                for host in track("publishing", todo):
                    yield futures.pop(host).result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _one(self, kind: str, host: str) -> tuple[Row, str]:
        reason = self._lost
        if not reason:
            try:
                return self._publish(kind, host)
            except Lost as error:
                reason = self._lost = str(error)
            except TargetError as error:
                reason = str(error)
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                reason = f"{where}{error.strerror or error}"
        return Row(kind, host, FAILED, 0, 0, self.digests[kind, host], reason), ""

    def _publish(self, kind: str, host: str) -> tuple[Row, str]:
        terms = self._terms
        digest = self.digests[kind, host]
        found = self._looked.get((kind, host)) or self._target.find(kind, host)
        current, serial = self._signed(found, kind, host)
        is_same = current is not None and digest == found.digest == files_digest(current.files)
        is_due = found.keys != self._signing.chain or current is None or not self._signing.is_current(current)
        is_due = is_due or serial < terms.serial_from
        if current is not None and is_same and not is_due and self.is_fresh(current.not_after):
            return Row(kind, host, UNCHANGED, current.serial, current.not_after, digest), ""
        serial = max(serial + 1, terms.serial_from)
        files = self._output.hosts[kind, host]
        entries = {name: FileEntry.of(data) for name, data in files.items()}
        if files_digest(entries) != digest:
            raise TargetError("its files are not those that were read before; compile again")
        end = terms.now + terms.valid_for
        release = Release(self._output.fleet, kind, host, serial, end, terms.source, entries)
        row = Row(kind, host, RENEWED if is_same else PUBLISHED, serial, release.not_after, digest)
        if terms.dry_run:
            return row, ""
        with self._signs:
            envelope = self._signing.sign(release)
        self.sample = envelope
        keys = {KEYS_FILE: self._signing.chain} if self._signing.chain else {}
        stored = {**files, **keys, ENVELOPE_FILE: envelope}
        return row, self._target.put(kind, host, digest, stored, found, terms.keep)

    def _signed(self, found: Found, kind: str, host: str) -> tuple[Release | None, int]:
        """Return the current release if it is ours, and the highest serial that we signed for this host."""
        last, current, is_foreign = (0, 0), None, False
        for number, envelope in enumerate(found.envelopes):
            is_current = number == 0 and found.has_current
            try:
                release = self._signing.open(envelope)
            except ReleaseError as error:
                # Damaged or an old key's: no serial of ours, and publishing mends it.
                if forgotten := self._signing.forgotten_set(envelope):
                    raise TargetError(forgotten_set(forgotten, 0)) from None
                is_foreign = is_foreign or (is_current and error.name == "wrong-key")
                continue
            if release.key_set < self._signing.key_set and release.serial > REPLACED_SERIAL_MAX:
                continue
            if (release.fleet, release.kind, release.host) == (self._output.fleet, kind, host):
                # The newest key set goes first: who holds a key that was taken away cannot use up the serials.
                last = max(last, (release.key_set, release.serial))
                current = release if is_current else current
                self.sample = self.sample or envelope
        _, serial = last
        if is_foreign and not serial:  # beside one of ours it is somebody's forgery, and publishing mends it
            raise TargetError(
                "another key signed the current release; use that key, with the keys.json that names it"
            )
        if serial >= SERIAL_MAX:
            raise TargetError(f"serial {serial} is the last one there is; give the host another name")
        return current, serial
