"""A forwarder's counters in a mapped page: written by it alone, read by anyone without asking it.

    word  0 ‥ 15   packets by reason (tidegate_schema.policy.Reason)
    word 16 ‥ 31   bytes by reason
    word 32        packets the kernel did not take back from the forwarder
    word 33        super-packets among these, after which the TUN gives none any more

Little-endian 8-byte words; only the forwarder in charge of the TUN writes, so the counts go on over hand-overs.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from tidegate_schema.policy import Reason

_BYTES = 4096
_FIRST_BYTES = 16
_WRITE_ERRORS, _REFUSED_SUPER_PACKETS = 32, 33
_WORD = (1 << 64) - 1
REASONS = 16
"""Room for numbers of reasons."""


class Counters:
    """The mapped page at a path; made when it is not there."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _BYTES)
            self._words = memoryview(mmap.mmap(fd, _BYTES)).cast("Q")
        finally:
            os.close(fd)

    def add(self, reason: int, packets: int, octets: int) -> None:
        """Add packets and bytes to those of a reason."""
        # Whatever stands there: a page that somebody has spoilt must not end its forwarders.
        self._words[reason] = self._words[reason] + packets & _WORD
        self._words[_FIRST_BYTES + reason] = self._words[_FIRST_BYTES + reason] + octets & _WORD

    def count_write_error(self) -> None:
        """Count a packet that was allowed but that the kernel did not take."""
        self._words[_WRITE_ERRORS] = self._words[_WRITE_ERRORS] + 1 & _WORD

    def count_refused_super_packet(self) -> None:
        """Count a super-packet that this kernel hands over but does not take."""
        self._words[_REFUSED_SUPER_PACKETS] = self._words[_REFUSED_SUPER_PACKETS] + 1 & _WORD


@dataclass(frozen=True)
class Snapshot:
    """What the counters said at one moment."""

    packets: dict[str, int]
    bytes: dict[str, int]
    write_errors: int
    refused_super_packets: int


def read(path: Path) -> Snapshot:
    """Read a counter page; OSError when there is none."""
    with path.open("rb") as file:
        words = memoryview(file.read(_BYTES).ljust(_BYTES, b"\0")).cast("Q")
    names = {reason: reason.name.lower().replace("_", "-") for reason in Reason}
    return Snapshot(
        {name: words[reason] for reason, name in names.items()},
        {name: words[_FIRST_BYTES + reason] for reason, name in names.items()},
        words[_WRITE_ERRORS],
        words[_REFUSED_SUPER_PACKETS],
    )
