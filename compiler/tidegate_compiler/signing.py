"""Who signs a publish: enough signers, and whose signatures count when the target's own releases are read back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.signer import Signer

from tidegate_compiler import keysource
from tidegate_schema import keyset, release
from tidegate_schema.cli import Failure
from tidegate_schema.keyset import KEYS_FILE, KEYS_MAX_BYTES, KeySet, KeySetError, Link
from tidegate_schema.release import Release, ReleaseError


class Signing:
    """What a publish signs with, and by which of a target's releases it goes on.

    `links` is the chain of key sets, empty when hosts trust public keys alone. `form` is the format of the releases.
    """

    def __init__(self, *signers: Signer, links: Sequence[Link] = (), form: int = release.FORMAT) -> None:
        self._signers = signers
        self._sets = tuple(link.key_set for link in links)
        self.form = form
        self.chain = keyset.write(links) if links else b""
        """The bytes of keys.json, which goes beside every release.json; b"" when there is none."""
        self.key_set = self._sets[-1].version if links else 0
        """The version of the newest key set, 0 for none."""

    @property
    def title(self) -> str:
        """Return in a few words under which key set releases are signed, and by how many of its keys."""
        own = {signer.public_key.keyid for signer in self._signers}
        if not self._sets:
            return f"no key set, signed by {len(own)} key{'s' * (len(own) > 1)}"
        known = {key.keyid for key in self._sets[-1].trusted}
        return f"signed under key set {self.key_set}, {len(own & known)} of {len(known)} keys"

    def check_fleet(self, fleet: str) -> None:
        """Refuse to sign for another fleet than the key sets are for: Failure."""
        if self._sets and self._sets[-1].fleet != fleet:
            raise Failure(
                f"the key set is for fleet {self._sets[-1].fleet}, the releases are for {fleet}; name the keys.json "
                "of this fleet with --keys, or if no host has seen that key set: remove its keys.json and begin one "
                f"with 'tidegate keys add DIR --fleet {fleet}'"
            )

    def sign(self, statement: Release) -> bytes:
        """Return the bytes of release.json; Failure when the key sets are another fleet's, or a key does not sign."""
        self.check_fleet(statement.fleet)
        try:
            return release.sign(replace(statement, key_set=self.key_set, format=self.form), self._signers)
        except (SecureSystemsError, ValueError, OSError) as error:
            raise Failure(f"signing failed: {error}") from None

    def open(self, envelope: bytes) -> Release:
        """Return the statement of a release.json that a target holds, signed under any of the key sets.

        A statement of format 1 names no set: its `key_set` is the newest one that it satisfies. ReleaseError when none
        of ours signed it.
        """
        if not self._sets:
            found = release.open_envelope(envelope, [signer.public_key for signer in self._signers])
            if found.key_set:
                raise ReleaseError(
                    "wrong-key", f"it is signed under key set {found.key_set}, and there is none"
                )
            return found
        refused: ReleaseError | None = None
        for of in reversed(self._sets):
            try:
                return _under(of, envelope)
            except ReleaseError as error:
                refused = refused or error
        assert refused is not None
        raise refused

    def forgotten_set(self, envelope: bytes) -> int:
        """Return the key set under which one of these keys signed a release, where this publish has none; else 0."""
        if self._sets:
            return 0
        try:
            return release.open_envelope(envelope, [signer.public_key for signer in self._signers]).key_set
        except ReleaseError:
            return 0

    def is_current(self, statement: Release) -> bool:
        """Tell whether a release of the target is signed as this publish would: under this key set, in this format.

        One that is not must be signed anew: a host that has taken a new key set up may refuse it at its next start.
        """
        return statement.key_set == self.key_set and statement.format == self.form


def _under(of: KeySet, envelope: bytes) -> Release:
    found = release.open_envelope(envelope, of.trusted, of.threshold)
    if found.format == 1:
        return replace(found, key_set=of.version)
    if found.key_set > of.version:
        # Only the holder of a key that was taken away since could have signed that.
        raise ReleaseError("wrong-key", f"it names key set {found.key_set}, and is signed under {of.version}")
    return found


def load_signing(keys: Sequence[str], chain_file: Path | None = None, form: int = release.FORMAT) -> Signing:
    """Read signing keys, each a file or an ssh-agent's (`agent:…`), and the chain of key sets.

    The chain is `chain_file`, or else the keys.json beside a key that is a file, if there is one. Raises Failure, one
    line, when a key is none, two files keys.json differ, or the newest set needs more signatures than these keys give;
    OSError.
    """
    signers = [keysource.load(key) for key in keys]
    links = _chain(keys, chain_file)
    if links:
        newest = links[-1].key_set
        known = {key.keyid for key in newest.trusted}
        have = len({signer.public_key.keyid for signer in signers} & known)
        if have < newest.threshold:
            raise Failure(
                f"version {newest.version} of the key set needs {newest.threshold} signatures, "
                f"{have or 'none'} of these keys count; give --key for {newest.threshold} of: "
                + ", ".join(keysource.fingerprint(pem) for pem in newest.keys)
            )
    return Signing(*signers, links=links, form=form)


def _chain(keys: Sequence[str], chain_file: Path | None) -> tuple[Link, ...]:
    if chain_file is None:
        beside = [Path(key).parent / KEYS_FILE for key in keys if not keysource.is_agent(key)]
        found = [path for path in dict.fromkeys(beside) if os.path.lexists(path)]
        chains = [read_chain(path) for path in found]
        for path, links in zip(found, chains, strict=True):
            if keyset.write(links) != keyset.write(chains[0]):
                raise Failure(f"{found[0]} and {path} differ; name the newer one with --keys")
        return chains[0] if chains else ()
    return read_chain(chain_file)


def read_chain(path: Path) -> tuple[Link, ...]:
    """Read a keys.json; Failure, one line, when it is none; OSError."""
    try:
        with path.open("rb") as file:
            return keyset.read(file.read(KEYS_MAX_BYTES + 1))
    except KeySetError as error:
        raise Failure(f"{path}: {error}; restore it from git, or from a release's directory") from None
