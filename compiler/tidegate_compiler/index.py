"""The publisher's index of a target: for each host the stamp that was seen there, and what it stood for.

    {"format":1,"fleet":…,"keys":<SHA-256 of the chain of key sets>,"sample":<an envelope of ours>,
     "hosts":{"client/alice":[stamp, digest, serial, not_after], …}}

It lies in the target, which is hostile: a file that does not have this form is none, and one that has it is a hint
that saves reading. `sample` is there so that another key does not take its predecessor's hosts for its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate_compiler.signing import Signing
from tidegate_compiler.targets import Host
from tidegate_schema import jsonfile
from tidegate_schema.release import DIGEST_PATTERN, ReleaseError

FORMAT = 1
_FIXED_BYTES, _HOST_BYTES = 1 << 20, 1 << 10
"""More than an index takes, for the sample and for each host; parsed JSON takes up to thirty times its bytes."""


@dataclass(frozen=True)
class Entry:
    """One host's release as it was published: `not_after` in Unix seconds."""

    stamp: str
    digest: str
    serial: int
    not_after: int


@dataclass(frozen=True)
class Index:
    """What was there when the last publish ended."""

    fleet: str
    keys: str
    sample: bytes
    hosts: Mapping[Host, Entry] = field(default_factory=dict)

    @classmethod
    def read(cls, data: bytes, fleet: str, keys: str, signing: Signing, hosts: int) -> Index:
        """Return an index of this fleet, key set and signer; an empty one for anything else.

        One that is larger than `hosts` hosts need is not parsed.
        """
        nothing = cls(fleet, keys, b"")
        if len(data) > _FIXED_BYTES + _HOST_BYTES * hosts:
            return nothing
        try:
            document = jsonfile.parse(data) if data else {}
            if (document["format"], document["fleet"], document["keys"]) != (FORMAT, fleet, keys):
                return nothing
            sample = document["sample"].encode("ascii")
            if signing.open(sample).fleet != fleet:
                return nothing
            return cls(fleet, keys, sample, dict(map(_entry, document["hosts"].items())))
        except (ValueError, KeyError, TypeError, AttributeError, ReleaseError):
            return nothing

    def encode(self) -> bytes:
        """Return the file's bytes."""
        hosts = {
            f"{kind}/{name}": [one.stamp, one.digest, one.serial, one.not_after]
            for (kind, name), one in self.hosts.items()
        }
        return jsonfile.canonical(
            {
                "format": FORMAT,
                "fleet": self.fleet,
                "keys": self.keys,
                "sample": self.sample.decode("ascii"),
                "hosts": hosts,
            }
        )


def _entry(item: tuple[str, Any]) -> tuple[Host, Entry]:
    kind, _, name = item[0].partition("/")
    stamp, digest, serial, not_after = item[1]
    is_right = isinstance(stamp, str) and DIGEST_PATTERN.fullmatch(digest)
    if not is_right or type(serial) is not int or type(not_after) is not int:
        raise ValueError
    return (kind, name), Entry(stamp, digest, serial, not_after)
