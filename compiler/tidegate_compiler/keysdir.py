"""The files of `tidegate keys`: a directory with the chain of key sets, and a set that waits for signatures.

DIR/keys.json        the chain (tidegate_schema.keyset), only ever one that hosts would read
DIR/keys.next.json   one envelope, whose signatures are not enough yet
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tidegate_compiler.signing import read_chain
from tidegate_schema import keyset, signatures
from tidegate_schema.cli import Failure
from tidegate_schema.keyset import KEYS_FILE, KEYS_MAX_BYTES, KeySetError, Link

NEXT_FILE = "keys.next.json"
_PUBLIC_MAX_BYTES = 1 << 16


def chain(directory: Path) -> tuple[Link, ...]:
    """Return the chain of DIR, empty when it has none; Failure, one line; OSError."""
    path = directory / KEYS_FILE
    if not directory.is_dir():
        raise Failure(f"{directory}: not a directory; make one with 'tidegate keys init'")
    return read_chain(path) if os.path.lexists(path) else ()


def waiting(directory: Path, before: Sequence[Link]) -> Link | None:
    """Return the set that waits for signatures, of which none is checked; None when none waits; Failure; OSError.

    One that the chain `before` has reached waits for nothing: a run was cut when it had taken it up.
    """
    path = directory / NEXT_FILE
    try:
        with path.open("rb") as file:
            links = keyset.read_unsigned(file.read(KEYS_MAX_BYTES + 1))
        if len(links) > 1:
            raise KeySetError("more than one key set")
    except FileNotFoundError:
        return None
    except KeySetError as error:
        raise Failure(f"{path}: {error}; remove it and propose the set again") from None
    is_late = bool(before) and links[0].key_set.version <= before[-1].key_set.version
    return None if is_late else links[0]


def public(path: Path) -> str:
    """Return the public key in a file as PEM; Failure, one line; OSError."""
    try:
        with path.open("rb") as file:
            return signatures.public_pem(file.read(_PUBLIC_MAX_BYTES))
    except ValueError as error:
        raise Failure(f"{path}: {error}") from None


def put(directory: Path, before: Sequence[Link], link: Link) -> str | None:
    """Write a set where it belongs: to the end of the chain when its signatures are enough, else beside it.

    Returns what it lacks, one line, or None. Raises Failure, and OSError.
    """
    last = before[-1].key_set if before else None
    known = {key.keyid for key in (*link.key_set.trusted, *(last.trusted if last else ()))}
    if set(link.envelope.signatures) - known:
        raise Failure("a --key is neither in the set before nor in the new one; its signature counts nowhere")
    lacking = keyset.missing(link, last)
    try:
        if lacking is None:
            _replace_chain(directory, [*before, link])
            (directory / NEXT_FILE).unlink(missing_ok=True)
        else:
            if before and not (directory / KEYS_FILE).exists():
                _replace_chain(directory, before)
            _replace(directory / NEXT_FILE, keyset.write([link]))
    except KeySetError as error:
        raise Failure(f"version {link.key_set.version} of the key set: {error}") from None
    return lacking


def _replace_chain(directory: Path, links: Sequence[Link]) -> None:
    data = keyset.write(links)
    keyset.read(data)  # or hosts would refuse it
    _replace(directory / KEYS_FILE, data)


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    write_new(aside, data, 0o644)
    aside.replace(path)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet, durably; OSError when it is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
