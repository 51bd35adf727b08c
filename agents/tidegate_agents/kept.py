"""The bytes of the releases that a host may still need: the good one, the one on trial, the one that failed.

STATE/<kind>-releases/<serial>-<digest>/    release.json and the payload files, as they were accepted; 0700
                                            trust.json, the key set they were accepted under, with a digest of what
                                            `init` gave the host then; absent: what `init` gave

Written aside, synced and renamed, so a directory of such a name is whole. Whatever is read back is verified as if it
came from outside, but by the keys of its time: what runs goes on when the fleet's keys change, also over a reboot, or
whoever carries releases could end it by bringing a new key set alone. On a host that was set up anew with other keys,
nothing of its earlier life is used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from tidegate_agents.bundles import Accepted, Identity, read_kept
from tidegate_agents.files import make_private_directory, read_bounded, sync_directory
from tidegate_agents.host import Places
from tidegate_agents.trial import Name
from tidegate_schema import jsonfile, keyset
from tidegate_schema.keyset import KeySet
from tidegate_schema.release import ENVELOPE_FILE, ReleaseError

_TRUST_FILE = "trust.json"


def directory(places: Places) -> Path:
    """Return where they are."""
    return places.state_directory / f"{places.kind}-releases"


def _folder(places: Places, name: Name) -> Path:
    return directory(places) / f"{name.serial}-{name.digest}"


def keep(places: Places, accepted: Accepted, given: Identity, trust: KeySet) -> None:
    """Write a release down durably, with the key set it was accepted under; one that is there stays. OSError.

    `given` is the host by what `init` gave it.
    """
    folder = _folder(places, Name(accepted.release.serial, accepted.digest))
    if folder.exists():
        return
    make_private_directory(places.state_directory)
    make_private_directory(directory(places))
    aside = directory(places) / ".new"
    if aside.exists():
        shutil.rmtree(aside)  # a crash has left it
    aside.mkdir(mode=0o700)
    document = {"given": _digest(given), "set": jsonfile.parse(trust.payload())}
    under = {_TRUST_FILE: jsonfile.canonical(document)} if trust.version else {}
    for name, data in {**accepted.files, **under, ENVELOPE_FILE: accepted.envelope}.items():
        fd = os.open(aside / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:  # noqa: PTH123 - it is a descriptor
            file.write(data)
            file.flush()
            os.fsync(fd)
    sync_directory(aside)
    aside.rename(folder)
    sync_directory(directory(places))


def load(places: Places, given: Identity, name: Name) -> Accepted:
    """Read a release back; ReleaseError names what is wrong with it. `given` is the host by what `init` gave it."""
    folder = _folder(places, name)
    accepted = read_kept(folder, name.digest, _under(folder, given))
    if accepted.release.serial != name.serial:
        raise ReleaseError("mixed-files", "what was kept is of another serial")
    return accepted


def _under(folder: Path, given: Identity) -> Identity:
    try:
        document = jsonfile.parse(read_bounded(folder / _TRUST_FILE, keyset.KEYS_MAX_BYTES))
        if document["given"] != _digest(given):
            raise ValueError("the host was set up anew since")
        return given.trusting(keyset.read_set(jsonfile.canonical(document["set"])))
    except FileNotFoundError:
        return given
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError("wrong-key-set", f"{_TRUST_FILE}: {error}") from None


def _digest(given: Identity) -> str:
    keys = sorted(key.keyid for key in given.trusted)
    said = {"fleet": given.fleet, "key_set": given.key_set, "threshold": given.threshold, "keys": keys}
    return hashlib.sha256(jsonfile.canonical(said)).hexdigest()


def forget_but(places: Places, names: Collection[Name | None]) -> None:
    """Remove every release but these."""
    needed = {_folder(places, name) for name in names if name is not None}
    if directory(places).is_dir():
        for path in directory(places).iterdir():
            if path not in needed:
                shutil.rmtree(path, ignore_errors=True)
