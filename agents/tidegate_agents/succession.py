"""Which release is in force on this host: the one on trial, the good one, or what the good and a failed one share.

    take ─► kept, recorded, in force ─► confirm
                                    └─► fail ─► in force: common(good, failed)
    recover: what was in force before this agent started, where nothing that is offered may be

A rollback gives nothing back that the failed release had taken away, and the highest serial ever seen stays: see
`host.Memory`. All of it is on disk before it is in force, so after a crash the next start finds where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from tidegate_agents import bundles, host, kept, trial
from tidegate_agents.bundles import Accepted, Identity
from tidegate_agents.hostevents import HostEvent, HostEvents
from tidegate_agents.trial import Name
from tidegate_schema.keyset import KeySet
from tidegate_schema.release import ReleaseError

log = logging.getLogger("tidegate.release")

Content = TypeVar("Content")


class Succession(Generic[Content]):
    """The releases of one agent, from its start to its end. `read` and `common` are the agent's own, and pure."""

    def __init__(
        self,
        places: host.Places,
        given: Identity,
        trust: Callable[[], KeySet],
        events: HostEvents,
        read: Callable[[Accepted], Content],
        common: Callable[[Content, Content], Content | None],
    ) -> None:
        """Read the record; HostError when it cannot be. `given` is the host by what `init` gave it."""
        self._places, self._given, self._trust, self._events = places, given, trust, events
        self._read, self._common = read, common
        self._record = trial.load(places)
        self.content: Content | None = None
        """What is in force; None before the first release."""
        self.release: Mapping[str, str | int] | None = None
        """What a status says of its release."""
        self.rolled_back: Mapping[str, str | int] | None = None
        """The release that failed, where its predecessor is in force for it."""
        self._good: Content | None = None
        self._has_begun = False
        self._told: dict[Name, str] = {}
        """What is wrong with what was kept, as it was told."""

    @property
    def on_trial(self) -> Name | None:
        """The release on trial, which is in force."""
        return self._record.trial

    @property
    def was_well(self) -> bool:
        """Whether what ran before the trial did its work."""
        return self._record.was_well

    @property
    def has_good(self) -> bool:
        """Whether a release was ever confirmed here."""
        return self._record.good is not None

    def begin(self) -> None:
        """Take note of the start, once: a trial that crashes have cut off too often is lost."""
        if self._has_begun:
            return
        self._has_begun = True
        started = self._record.started()
        try:
            self._save(started)
        except OSError as error:
            # Then this start does not count; a host without room is to come up all the same.
            log.error("the start is not written down: %s", error)
            self._record = started
        if self._record.is_crash_loop and not self.fail("the agent crashed again while it was on trial"):
            log.error("the release on trial has crashed the agent before, and there is none to go back to")

    def end(self) -> None:
        """Take note of an end in order, which is held against no release."""
        if self._record.trial is not None:
            self._save(self._record.stopped())

    def admit(self, accepted: Accepted) -> None:
        """Raise ReleaseError for a release that has failed here."""
        if _name(accepted) == self._record.failed:
            raise ReleaseError(
                "failed-trial",
                f"serial {accepted.release.serial} was tried here and taken back; publish a newer one",
            )

    def take(self, accepted: Accepted, content: Content, *, was_well: bool) -> None:
        """Put an accepted release in force: on trial, unless it is the good one, or a renewal of it. OSError."""
        name = _name(accepted)
        if name not in (self._record.good, self._record.trial):
            kept.keep(self._places, accepted, self._given, self._trust())
            offered = self._record.offered(name, was_well=was_well)
            settled = self._record.trial is None and self._record.failed is None and self.content is not None
            if settled and self._record.good is not None and self._record.good.digest == name.digest:
                self._save(offered.confirmed())
                self._good = content
                self._events.tell(HostEvent.RELEASE_APPLIED, serial=name.serial, digest=name.digest)
            else:
                self._save(offered)
                self._events.tell(HostEvent.RELEASE_OFFERED, serial=name.serial, digest=name.digest)
            self._forget()
        self._enter(content, accepted)

    def recover(self) -> None:
        """Where nothing is in force yet, put in force what was when the last agent ended; logs what cannot be."""
        if self.content is not None:
            return
        found = self.standing()
        if found is not None:
            self._enter(*found)
            if self._record.failed is not None and self._record.trial != _name(found[1]):
                self._note_rollback()

    def standing(self) -> tuple[Content, Accepted] | None:
        """Return what was in force when the last agent ended; None where nothing was, or it cannot be used."""
        if self._record.trial is not None:
            # Where that cannot be read, what was before may hold what it has withdrawn.
            return self._load(self._record.trial)
        return self._common_of(self._record)

    def good(self) -> Content | None:
        """Return what the good release says, None where there is none that can be used."""
        if self._good is None and self._record.good is not None:
            found = self._load(self._record.good)
            self._good = found[0] if found else None
        return self._good

    def confirm(self) -> None:
        """Make the release on trial the good one, if it is in force. OSError."""
        name = self._record.trial
        if name is None or self.release is None or name != (self.release["serial"], self.release["digest"]):
            return
        self._save(self._record.confirmed())
        self._good = self.content
        self.rolled_back = None
        self._forget()
        self._events.tell(HostEvent.RELEASE_APPLIED, serial=name.serial, digest=name.digest)

    def fail(self, reason: str) -> bool:
        """Take the release on trial back. False when there is nothing to go back to: then it stays. OSError."""
        name = self._record.trial
        if name is None:
            return False
        before = self._record
        found = self._common_of(before.lost())
        if found is None:
            return False
        self._save(before.lost())
        self._events.tell(HostEvent.RELEASE_FAILED, serial=name.serial, digest=name.digest, reason=reason)
        self._enter(*found)
        self._tell_rollback(reason)
        return True

    def _common_of(self, record: trial.Record) -> tuple[Content, Accepted] | None:
        """Return what the good release says, without what the failed one has not."""
        found = self._load(record.good) if record.good is not None else None
        if found is None or record.failed is None:
            return found
        lost = self._load(record.failed)
        shared = self._common(found[0], lost[0]) if lost is not None else None
        return (shared, found[1]) if shared is not None else None

    def _tell_rollback(self, reason: str) -> None:
        failed, release = self._record.failed, self.release
        assert failed is not None
        assert release is not None
        self.rolled_back = {"serial": failed.serial, "digest": failed.digest, "reason": reason}
        self._events.tell(
            HostEvent.ROLLED_BACK, serial=release["serial"], failed=failed.serial, reason=reason
        )

    def _note_rollback(self) -> None:
        """Say at a start why an older release is in force; it is told once, by whoever rolled back, or else here."""
        failed = self._record.failed
        assert failed is not None
        told = [
            one
            for one in self._events.remembered()
            if one["event"] == HostEvent.ROLLED_BACK and one.get("failed") == failed.serial
        ]
        if not told:  # killed between the record and the journal, or the journal has gone
            self._tell_rollback("it had failed before this start")
            return
        self.rolled_back = {
            "serial": failed.serial,
            "digest": failed.digest,
            "reason": str(told[-1].get("reason", "")),
        }

    def _load(self, name: Name) -> tuple[Content, Accepted] | None:
        try:
            accepted = kept.load(self._places, self._given, name)
            return self._read(accepted), accepted
        except ReleaseError as error:
            if self._told.get(name) != str(error):
                log.error("release %d, which was kept, cannot be used: %s", name.serial, error)
            self._told[name] = str(error)
            return None

    def _enter(self, content: Content, accepted: Accepted) -> None:
        self.content, self.release = content, bundles.summary(accepted)

    def _forget(self) -> None:
        kept.forget_but(self._places, [self._record.good, self._record.trial, self._record.failed])

    def _save(self, record: trial.Record) -> None:
        if record != self._record:
            trial.save(self._places, record)
        self._record = record


def _name(accepted: Accepted) -> Name:
    return Name(accepted.release.serial, accepted.digest)
