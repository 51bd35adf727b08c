"""Who a client ID was at a time, and whom its packets are judged as now. Pure.

    git's history of the clients ──► Timeline ──► Names
        commit: alice has key A             A: alice
        commit: alice has key B             A: alice until then; B: alice since; B follows A
        commit: alice is now ann            B: alice until then, ann since

A key is a client's ID, so a rename keeps the ID and only changes what it is called. A rotated key is another ID under
the same name *in one and the same commit*: then the new one follows the old one, and what the old one sent is judged
by what the new one may. A name that was free for a commit, and is given away again, joins nobody.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Set


class Names:
    """The answers of a finished timeline, for a candidate's clients."""

    def __init__(
        self,
        spans: Mapping[str, list[tuple[float, str]]],
        followers: Mapping[str, str],
        present: Mapping[str, str],
    ) -> None:
        """`present` are the candidate's clients: ID to name."""
        self._spans, self._followers, self._present = spans, followers, present
        self._current: dict[str, str | None] = {}

    def at(self, client_id: str, moment: float) -> str | None:
        """Return the name that an ID had at a Unix second; None when git never knew it.

        Before the first commit that has it, it is called as in that one: hosts may be told before git is pushed.
        After the one that removed it, it keeps the last name.
        """
        spans = self._spans.get(client_id)
        if not spans:
            return self._present.get(client_id)
        position = bisect_right(spans, moment, key=lambda span: span[0])
        return spans[max(0, position - 1)][1]

    def current(self, client_id: str) -> str | None:
        """Return the ID of the candidate that an ID's packets are judged as: itself, or the key that followed it.

        None when the candidate has no such client any more.
        """
        if client_id not in self._current:
            seen: Set[str] = {client_id}
            found: str | None = client_id
            while found is not None and found not in self._present:
                found = self._followers.get(found)
                if found in seen:  # a key that came back in a circle
                    found = None
                elif found is not None:
                    seen = seen | {found}
            self._current[client_id] = found
        return self._current[client_id]

    def called(self, client_id: str) -> str:
        """Return the candidate's name of an ID, else the last one that git knew, else the ID."""
        return self._present.get(client_id) or self.at(client_id, float("inf")) or client_id


class Timeline:
    """Takes the clients as they were from commit to commit, oldest first."""

    def __init__(self) -> None:
        self._files: dict[str, Mapping[str, str]] = {}
        self._spans: dict[str, list[tuple[float, str]]] = {}
        self._followers: dict[str, str] = {}
        self._latest = 0.0

    def step(self, moment: float, files: Mapping[str, Mapping[str, str]]) -> None:
        """Take a commit of a Unix second: the clients (name to ID) of each file that it changed, none if it is gone.

        A committer's clock may go back; a later commit is never taken for an earlier one.
        """
        self._latest = max(self._latest, moment)
        before: dict[str, str] = {}
        after: dict[str, str] = {}
        for file, clients in files.items():
            before.update(self._files.get(file, {}))
            after.update(clients)
            self._files[file] = clients
        self._note(before, after)

    def end(self, present: Mapping[str, str]) -> Names:
        """Return the answers for a candidate whose clients are `present` (name to ID): a commit after all others."""
        spans = {one: list(found) for one, found in self._spans.items()}
        followers = dict(self._followers)
        before = {name: one for clients in self._files.values() for name, one in clients.items()}
        for name, one in present.items():
            was = before.get(name)
            if was is not None and was != one:
                followers[was] = one
        return Names(spans, followers, {one: name for name, one in present.items()})

    def _note(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        for name, one in after.items():
            was = before.get(name)
            if was == one:
                continue
            if was is not None and was not in after.values():
                self._followers[was] = one
            self._followers.pop(one, None)  # a key that is used again is itself
            spans = self._spans.setdefault(one, [])
            if not spans or spans[-1][1] != name:
                spans.append((self._latest, name))
