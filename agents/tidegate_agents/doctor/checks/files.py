"""Are the host's papers there, readable by the agent, and nobody else's to write or, if secret, to read?"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

from tidegate_agents.doctor.facts import Facts
from tidegate_agents.doctor.finding import Finding, fail, ok, warn

_RING_RECORD_BYTES = 144
_HOST_RING_BYTES = 2 << 20
_LITTLE_BYTES, _LITTLE_INODES = 64 << 20, 1000
_SOON_SECONDS = 3 * 86400.0

# By the name of the refusal.
_REMEDIES = {
    "wrong-key": "compare the keys that this host trusts (--trust at init) with the fleet's: tidegate keys list DIR",
    "too-few-signatures": "publish with more keys: --key may be repeated",
    "wrong-key-set": "publish with the fleet's own keys.json (--keys)",
    "missing-key-set": "publish with the keys.json of that key set (--keys)",
    "other-fleet": "this host's fleet is that of --fleet at init: remove identity.json, and run init again",
    "failed-trial": "see 'history' for why it failed, and publish a newer one",
}


def identity(facts: Facts) -> Iterator[Finding]:
    """Look at identity and key."""
    for check, problem, fine in (
        ("identity", facts.identity_problem, f"{facts.places.identity} says who this host is"),
        ("key", facts.key_problem, f"{facts.places.key} is this host's own"),
    ):
        if problem:
            yield fail(check, problem, _what_to_do(facts, check))
        else:
            yield ok(check, fine)


def _what_to_do(facts: Facts, check: str) -> str:
    key = facts.entries.get(facts.places.key)
    if check == "key" and key is not None and key.mode & 0o077:
        return f"chmod 600 {facts.places.key}; and consider a new key, since others could read this one"
    return f"tidegate {facts.kind} init --name NAME --fleet FLEET --trust signing.pub"


def settings(facts: Facts) -> Iterator[Finding]:
    """Look at the local settings."""
    if facts.settings_problem:
        what = f"{facts.settings_problem} (until then the agent starts with the defaults)"
        yield fail("settings", what, f"correct {facts.places.settings}")
    else:
        yield ok("settings", f"{facts.places.settings} is in order, or not there")


def permissions(facts: Facts) -> Iterator[Finding]:
    """Look who may write where only the agent's user may, and read what only it may."""
    found = False
    for path, entry in facts.entries.items():
        if entry is None:
            continue
        if entry.uid != 0:
            found = True
            yield fail("permissions", f"{path} belongs to user {entry.uid}", f"chown root: {path}")
        # In a directory with the sticky bit, as /tmp has, others cannot exchange what is not theirs.
        elif entry.mode & 0o022 and not (stat.S_ISDIR(entry.mode) and entry.mode & stat.S_ISVTX):
            found = True
            yield fail(
                "permissions", f"{path} may be written by others ({_mode(entry.mode)})", f"chmod go-w {path}"
            )
    key = facts.entries.get(facts.places.key)
    if key is not None and key.mode & 0o077:
        found = True
        yield fail(
            "permissions",
            f"{facts.places.key} may be read by others ({_mode(key.mode)})",
            _what_to_do(facts, "key"),
        )
    if not found:
        yield ok("permissions", "nobody but root may write the host's papers and its bundle directory")


def _mode(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"


def users(facts: Facts) -> Iterator[Finding]:
    """Look whether the users that forwarder and flusher become are theirs alone."""
    for name in ("forwarder_uid", "flusher_uid") if facts.is_gateway else ():
        number = facts.settings[name]
        owner = facts.users.get(number)
        if owner is not None and not owner.startswith("tidegate"):
            mend = f"tidegate gateway set {name}=NUMBER, of a user that nobody has"
            yield warn("users", f"{name} is {number}, which is the user {owner!r}", mend)
        else:
            yield ok("users", f"{name} {number} is nobody else's")


def space(facts: Facts) -> Iterator[Finding]:
    """Look for room on the file systems that the agent writes to."""
    rings = (
        2 * _RING_RECORD_BYTES * facts.settings["ring_records"] + _HOST_RING_BYTES if facts.is_gateway else 0
    )
    low = False
    for path, free in facts.space.items():
        needed = rings if path == facts.places.run_directory and facts.agent is None else 0
        if free.bytes < max(needed, 1 << 20) or free.inodes == 0:
            low = True
            mend = "make room on that file system" + ("; or lower ring_records" if needed else "")
            yield fail(
                "space", f"{path}: {free.bytes >> 20} MiB free, {max(needed >> 20, 1)} MiB are needed", mend
            )
        elif free.bytes < needed + _LITTLE_BYTES or (
            free.inodes is not None and free.inodes < _LITTLE_INODES
        ):
            low = True
            yield warn("space", f"{path}: {free.bytes >> 20} MiB free", "make room on that file system")
    if not low:
        yield ok("space", "there is room where the agent writes")


def bundles(facts: Facts) -> Iterator[Finding]:
    """Look at the bundle directory, and at the release in it."""
    if facts.identity_problem:
        return
    if facts.entries.get(facts.bundles) is None:
        mend = f"mkdir -p -m 700 {facts.bundles}; or name another with --bundles"
        yield warn("bundles", f"{facts.bundles} is not there", mend)
    elif facts.release_problem:
        yield fail(
            "release",
            facts.release_problem,
            _REMEDIES.get(facts.release_problem.partition(":")[0], "publish again: docs/publish.md"),
        )
    elif facts.not_after is None:
        mend = "publish to it: tidegate publish OUT --to TARGET --key KEY"
        yield warn("release", f"{facts.bundles} has no release for this host yet", mend)
    else:
        yield from _end(facts, facts.not_after)


def _end(facts: Facts, end: float) -> Iterator[Finding]:
    told = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(end))
    if end - facts.now < _SOON_SECONDS:
        yield warn("release", f"the release ends on {told}", "publish again before that")
    else:
        yield ok("release", f"the release is in order, and good until {told}")


def watched(bundles_: Path, etc: Path) -> list[Path]:
    """Return the directories whose owners and permissions matter: these and all above them."""
    return sorted({above for path in (bundles_, etc) for above in (path, *path.parents)})
