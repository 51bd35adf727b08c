"""What `tidegate client rotate` does: it makes, shows or destroys the next key; the running agent does the rest."""

from __future__ import annotations

from typing import Any

from tidegate_agents import host
from tidegate_agents.client import keyfiles
from tidegate_agents.client.keyfiles import CURRENT, NEXT, PREVIOUS
from tidegate_schema.keys import client_id, parse_public_key

_Answer = tuple[dict[str, Any], list[str], str]
"""For --json, for standard output, and advice for standard error."""


def rotate(places: host.Places) -> _Answer:
    """Make the next key unless there is one. HostError when this is no client, or the last change is not confirmed."""
    identity = host.load_identity(places)
    host.public_key(places)
    if PREVIOUS in keyfiles.public_keys(places):
        raise host.HostError(
            "the key before is still kept, until the one in use has carried for a while; see 'tidegate client status', "
            f"or remove {keyfiles.path(places, PREVIOUS)} to be without it"
        )
    public = keyfiles.make_next(places)
    identifier = client_id(parse_public_key(public))
    advice = (
        f"Put this public key in place of the old one under {identity.host!r} in inventory/clients/ and open a pull "
        "request; the agent changes over by itself when a gateway knows it."
    )
    return {"host": identity.host, "public_key": public, "client_id": identifier}, [public], advice


def cancel(places: host.Places) -> _Answer:
    """Destroy the next key. HostError when there is none."""
    host.load_identity(places)
    if NEXT not in keyfiles.public_keys(places) or not keyfiles.destroy(places, NEXT):
        raise host.HostError(f"{keyfiles.path(places, NEXT)}: no change of keys is pending")
    return {"cancelled": True}, [], "The next key is destroyed; the key in use stays."


def status(places: host.Places) -> _Answer:
    """Tell which keys there are, by their public halves and client IDs."""
    host.load_identity(places)
    host.public_key(places)
    keys = keyfiles.public_keys(places)
    found = {
        which: {"public_key": keys[which], "client_id": client_id(parse_public_key(keys[which]))}
        if which in keys
        else None
        for which in (CURRENT, NEXT, PREVIOUS)
    }
    return found, [f"{which}\t{public}" for which, public in keys.items()], ""
