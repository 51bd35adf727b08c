"""A host's own places and papers: its directories, its key, its identity, its memory.

ETC   /etc/tidegate       identity.json, <kind>.key (0600), <kind>.yaml (settings)        written by `init`
STATE /var/lib/tidegate   <kind>.json: highest serial and highest time ever seen          survives a reboot
                          <kind>-keys.json: the newest key set, once there is one         survives a reboot
                          <kind>-trial.json, <kind>-releases/: see `trial` and `kept`
RUN   /run/tidegate       <kind>/: what the running agent made, status.json among it      does not
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tidegate_agents.bundles import Identity
from tidegate_agents.files import FileRefused, make_private_directory, read_bounded, write_atomic
from tidegate_schema import jsonfile, keyset, release, validation
from tidegate_schema.keys import client_id, parse_public_key
from tidegate_schema.keyset import KeySet

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./-]+")
_IDENTITY_MAX_BYTES = 64 * 1024
STATUS_FORMAT = 2
_LAST_TIME = 253402300800.0  # the year 10000


class HostError(Exception):
    """The host is not set up as it should be; the message is one line and says how to mend it."""


class Rings(NamedTuple):
    """A gateway's event rings, of one producer each."""

    events: Path
    """The forwarder's: packets, and how flows begin."""
    flows: Path
    """The recorder's: how flows go on and end."""
    host: Path
    """The supervisor's: what happens to the gateway itself."""


@dataclass(frozen=True)
class Places:
    """The directories of one agent."""

    kind: str
    etc: Path = Path("/etc/tidegate")
    state_directory: Path = Path("/var/lib/tidegate")
    run_directory: Path = Path("/run/tidegate")

    def __post_init__(self) -> None:
        # wg-quick hands PostUp to a shell, and this path stands in it.
        if not _PLAIN_PATH.fullmatch(str(self.etc)):
            raise HostError(f"{self.etc}: use an absolute path of letters, digits and ./_- only")

    @property
    def key(self) -> Path:
        """The WireGuard private key, 0600."""
        return self.etc / f"{self.kind}.key"

    @property
    def settings(self) -> Path:
        """The local settings."""
        return self.etc / f"{self.kind}.yaml"

    @property
    def identity(self) -> Path:
        """Who the host is and whose signatures it trusts."""
        return self.etc / "identity.json"

    @property
    def memory(self) -> Path:
        """What must survive a reboot."""
        return self.state_directory / f"{self.kind}.json"

    @property
    def trust(self) -> Path:
        """The newest key set, once one was brought here."""
        return self.state_directory / f"{self.kind}-keys.json"

    @property
    def run(self) -> Path:
        """What the running agent keeps."""
        return self.run_directory / self.kind

    @property
    def status(self) -> Path:
        """What the running agent says of itself."""
        return self.run / "status.json"

    @property
    def rings(self) -> Rings:
        """A gateway's event rings."""
        return Rings(self.run / "events.ring", self.run / "flows.ring", self.run / "host.ring")

    @property
    def flusher_status(self) -> Path:
        """What a gateway's flusher says of itself, in the one directory where it may write."""
        return self.run / "flusher" / "status.json"


def init(
    places: Places, fleet: str, host: str, trusted_pem: Sequence[bytes], key_set: KeySet | None = None
) -> str:
    """Make the key pair and the identity on this host and return the public key (base64).

    The host trusts the public keys (PEM), any one of them, or a key set in place of them. Never replaces a key: a new
    key is a new client ID. Calling it again with the same facts changes nothing.
    """
    for pem in trusted_pem:
        release.load_public_key(pem)
    make_private_directory(places.etc)
    identity: dict[str, Any] = {
        "format": 1,
        "fleet": fleet,
        "kind": places.kind,
        "host": host,
        "trusted_keys": [pem.decode("ascii") for pem in trusted_pem],
    }
    if key_set is not None:
        if key_set.fleet != fleet:
            raise HostError(f"the key set is for fleet {key_set.fleet}, this host is of {fleet}")
        identity["trusted_keys"] = list(key_set.keys)
        identity |= {"key_set": key_set.version, "threshold": key_set.threshold}
    for problem in validation.errors("identity", identity):
        raise HostError(f"{'.'.join(map(str, problem.path))}: {problem.message}")
    data = json.dumps(identity, indent=2).encode() + b"\n"
    try:
        if read_bounded(places.identity, _IDENTITY_MAX_BYTES) != data:
            raise HostError(
                f"{places.identity} says otherwise already; remove it first if this host is to be another"
            )
    except FileNotFoundError:
        write_atomic(places.identity, data, 0o644)
    if not places.key.exists():
        # wg(8) makes the key; it goes from its pipe into a 0600 file, and nowhere else.
        key = subprocess.run(["wg", "genkey"], check=True, capture_output=True).stdout
        write_atomic(places.key, key)
    return public_key(places)


def public_key(places: Places) -> str:
    """Return this host's public key (base64); HostError when the private key is missing or open to others."""
    try:
        info = places.key.lstat()
        if info.st_mode & 0o077:
            raise HostError(
                f"{places.key}: others may read the private key; chmod 600 it, and consider a new key"
            )
        private = read_bounded(places.key, 1024)
    except (FileNotFoundError, FileRefused):
        raise HostError(
            f"{places.key}: no private key here; run 'tidegate {places.kind} init' first"
        ) from None
    return public_of(private, places.key)


def public_of(private: bytes, file: Path) -> str:
    """Return the public key (base64) of what is in a private key's file, as `wg pubkey` does; HostError names the file.

    Without that program, as agents ask at every look at their interface.
    """
    try:
        raw = binascii.a2b_base64(private.strip(), strict_mode=True)
        public = X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
    except ValueError:  # binascii.Error is one
        raise HostError(f"{file}: not a WireGuard private key") from None
    return base64.b64encode(public).decode()


def own_client_id(places: Places) -> str:
    """Return the client ID that this host's public key gives it."""
    return client_id(parse_public_key(public_key(places)))


def load_identity(places: Places) -> Identity:
    """Read who this host is and what `init` gave it to trust; HostError says what to do when that is not settled."""
    document = _identity(places)
    identity = Identity(document["fleet"], document["kind"], document["host"], ())
    return identity.trusting(_given(places, document))


def _identity(places: Places) -> dict[str, Any]:
    try:
        document: Any = jsonfile.parse(read_bounded(places.identity, _IDENTITY_MAX_BYTES))
    except FileNotFoundError:
        raise HostError(f"{places.identity}: not there; run 'tidegate {places.kind} init' first") from None
    except (FileRefused, jsonfile.JsonError) as error:
        raise HostError(f"{places.identity}: {error}") from None
    for problem in validation.errors("identity", document):
        raise HostError(f"{places.identity}: {problem.message[:200]}")
    if document["kind"] != places.kind:
        raise HostError(f"{places.identity}: this host is a {document['kind']}, not a {places.kind}")
    assert isinstance(document, dict)
    return document


def _given(places: Places, identity: dict[str, Any]) -> KeySet:
    """Return the keys that `init` wrote down, as a set; one of version 0 when they are public keys alone."""
    given = KeySet(
        identity["fleet"],
        identity.get("key_set", 0),
        identity.get("threshold", 1),
        tuple(identity["trusted_keys"]),
    )
    try:
        distinct = {key.keyid for key in given.trusted}
    except ValueError as error:
        raise HostError(f"{places.identity}: trusted_keys: {error}") from None
    if given.threshold > len(distinct):
        raise HostError(f"{places.identity}: {given.threshold} of {len(distinct)} trusted_keys cannot sign")
    return given


def load_trust(places: Places) -> KeySet:
    """Return the newest key set of this host: the one it was brought, or what `init` gave it.

    A host that was set up anew begins with what it was given then. HostError when the set is there but unreadable,
    since going back would trust keys that were taken away.
    """
    given = _given(places, _identity(places))
    try:
        document = jsonfile.parse(read_bounded(places.trust, keyset.KEYS_MAX_BYTES))
        if document["given"] != _digest(given):
            return given
        newest = keyset.read_set(jsonfile.canonical(document["set"]))
        if newest.fleet != given.fleet or newest.version <= given.version:
            raise ValueError("a key set that cannot be")
        return newest
    except FileNotFoundError:
        return given
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(
            f"{places.trust}: unreadable ({error}); restore it, or remove it to start from {places.identity}"
        ) from None


def save_trust(places: Places, newest: KeySet) -> None:
    """Write the newest key set down, durably."""
    given = _given(places, _identity(places))
    document = {"format": 1, "given": _digest(given), "set": jsonfile.parse(newest.payload())}
    make_private_directory(places.state_directory)
    write_atomic(places.trust, jsonfile.canonical(document))


def _digest(given: KeySet) -> str:
    return hashlib.sha256(given.payload()).hexdigest()


@dataclass(frozen=True)
class Memory:
    """What a host never forgets: the highest serial it accepted and the highest time it saw (Unix seconds)."""

    serial: int = 0
    time: float = 0.0
    digest: str = ""
    """Of the release with that serial; "" where an older version has not noted it."""

    def later(self, serial: int, time: float, digest: str = "") -> Memory:
        """Return the memory after seeing these; it only ever grows."""
        digest = digest if serial > self.serial or (serial == self.serial and digest) else self.digest
        return Memory(max(self.serial, serial), max(self.time, time), digest)


def load_memory(places: Places) -> Memory:
    """Read the memory; HostError when the file is there but unreadable, since forgetting would allow a replay."""
    try:
        document = jsonfile.parse(read_bounded(places.memory, 4096))
        memory = Memory(int(document["serial"]), float(document["time"]), str(document.get("digest", "")))
        if not (0 <= memory.serial < 2**53 and 0 <= memory.time < _LAST_TIME):
            raise ValueError("a serial or a time that cannot be")
        return memory
    except FileNotFoundError:
        return Memory()
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise HostError(
            f"{places.memory}: unreadable ({error}); restore it, or remove it to start anew"
        ) from None


def save_memory(places: Places, memory: Memory) -> None:
    """Write the memory durably."""
    make_private_directory(places.state_directory)
    write_atomic(places.memory, jsonfile.canonical(asdict(memory)))


def lock(places: Places) -> int:
    """Make RUN/<kind> and take its lock, so that two agents never fight over one host; returns the descriptor."""
    make_private_directory(places.run)
    return _locked(places.run / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, places.kind)


def lock_network(kind: str) -> int:
    """Take this network namespace for one agent, wherever it keeps its files; returns the descriptor."""
    return _locked(Path("/proc/self/ns/net"), os.O_RDONLY, kind)


def _locked(path: Path, flags: int, kind: str) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise HostError(f"another 'tidegate {kind} run' is running on this host") from None
    return fd


def write_status(places: Places, status: dict[str, Any]) -> None:
    """Publish what the agent says of itself; it holds no secret, and RUN/<kind> keeps it to the agent's user."""
    document = {"format": STATUS_FORMAT, **status}
    write_atomic(places.status, json.dumps(document, indent=2).encode() + b"\n")


def read_status(places: Places) -> dict[str, Any] | None:
    """Return the running agent's status, None when no agent runs here, or it is not ours to read."""
    with contextlib.suppress(FileNotFoundError, FileRefused, jsonfile.JsonError):
        status: Any = jsonfile.parse(read_bounded(places.status, 1 << 20))
        if isinstance(status, dict) and _alive(status.get("pid")):
            return status
    return None


def _alive(pid: object) -> bool:
    return isinstance(pid, int) and Path(f"/proc/{pid}").exists()
