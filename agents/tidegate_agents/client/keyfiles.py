"""The private keys of a client, each in a 0600 file of its own beside the others.

ETC/client.key            the one in use
ETC/client.next.key       a new one that no gateway may know yet: made by `tidegate client rotate`
ETC/client.previous.key   the one before, kept until the new one has proven itself

Each change is one rename, made durable. Killed anywhere, a host has one key that works, or both: a key is copied before
the rename that overwrites it, and a copy of the key in use stands for nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tidegate_agents.files import FileRefused, read_bounded, sync_directory, write_atomic
from tidegate_agents.host import HostError, Places, public_of

_MAX_BYTES = 1024
CURRENT, NEXT, PREVIOUS = "current", "next", "previous"


def path(places: Places, which: str) -> Path:
    """Return where a key is kept: CURRENT, NEXT or PREVIOUS."""
    return places.key if which == CURRENT else places.key.with_suffix(f".{which}.key")


def public_keys(places: Places) -> Mapping[str, str]:
    """Return the public key (base64) of each key that is there; a second copy of the one in use is left out.

    HostError when others may read one, or when it is no key.
    """
    found: dict[str, str] = {}
    for which in (CURRENT, NEXT, PREVIOUS):
        with contextlib.suppress(FileNotFoundError):
            public = _public(path(places, which))
            if public not in found.values():
                found[which] = public
    return found


def make_next(places: Places) -> str:
    """Make the next key, unless there is one, and return its public key. HostError, OSError."""
    if NEXT not in public_keys(places):
        # wg(8) makes the key; it goes from its pipe into a 0600 file, and nowhere else.
        key = subprocess.run(["wg", "genkey"], check=True, capture_output=True).stdout
        write_atomic(path(places, NEXT), key)
    return public_keys(places)[NEXT]


def take_up_next(places: Places) -> None:
    """Make the next key the one in use, and keep the one before. HostError when there is no next one any more."""
    _exchange(places, NEXT, PREVIOUS)


def go_back(places: Places) -> None:
    """Make the previous key the one in use again; the newer one waits as the next."""
    _exchange(places, PREVIOUS, NEXT)


def _exchange(places: Places, source: str, aside: str) -> None:
    if source not in public_keys(places):
        raise HostError(f"{path(places, source)}: is gone")
    write_atomic(path(places, aside), read_bounded(places.key, _MAX_BYTES))
    path(places, source).replace(places.key)
    sync_directory(places.etc)


def destroy(places: Places, which: str) -> bool:
    """Delete the next or the previous key; tell whether it was there."""
    assert which != CURRENT
    try:
        path(places, which).unlink()
    except FileNotFoundError:
        return False
    sync_directory(places.etc)
    return True


def _public(file: Path) -> str:
    try:
        private = read_bounded(file, _MAX_BYTES)
        if file.lstat().st_mode & 0o077:
            raise HostError(f"{file}: others may read the private key; chmod 600 it, and consider a new key")
    except FileRefused as error:
        raise HostError(str(error)) from None
    return public_of(private, file)
