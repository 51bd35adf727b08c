"""The index of a revision's lists: made when somebody asks for a list, of an earlier revision's where there is one.

So a list costs after a commit what the commit has changed, and whoever writes meanwhile is held up no longer than that.
"""

from __future__ import annotations

from tidegate_control.api.listing import Index
from tidegate_control.api.made import Made
from tidegate_control.inventory.snapshot import Objects, Snapshot


def index(made: Made, snapshot: Snapshot, kind: str) -> Index:
    """Return the index of a kind's objects; the kind is the service's word."""
    objects, name = snapshot.objects(kind), ("index", kind)

    def make() -> tuple[Objects, Index]:
        known = made.newest(name)
        if known is None:
            return objects, Index(objects)
        before, like = known
        return objects, Index(objects, like, objects.differing(before))

    return made.get(snapshot.commit, name, make)[1]
