"""Where releases are pushed to: one narrow protocol, and one module for each way.

    open_target("/srv/bundles")            directory.py
    open_target("ssh://user@host/path")    ssh.py
    open_target("nats://host")             nats.py

A target holds for each host the releases of the last publishes, one of them its current one. It is a transport and
nothing more: whatever it answers is hostile input, bounded before it is read, and believed only where a signature
of ours covers it. The worst that one can do is to withhold.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

from tidegate_compiler.diagnostics import show
from tidegate_schema.extras import advice

Host = tuple[str, str]  # (kind, name)

# Scheme -> the module whose `open_(name, options)` makes the target; imported only when it is used.
_SCHEMES = {
    "ssh": "tidegate_compiler.targets.ssh",
    "nats": "tidegate_compiler.targets.nats",
    "tls": "tidegate_compiler.targets.nats",
}


class TargetError(Exception):
    """The target refuses, cannot be read, or holds what is not read; one line."""


class Unavailable(TargetError):  # noqa: N818 - it names what happened
    """What speaks to this kind of target is not installed."""


class Conflict(TargetError):  # noqa: N818 - it names what happened
    """Somebody else published to this host or target meanwhile; this run has to begin again."""


class Lost(TargetError):  # noqa: N818 - it names what happened
    """The way to the target is gone: nothing more can be done in this run, and what is done stays done."""


@dataclass(frozen=True)
class NatsOptions:
    """How a NATS server is told who publishes (files in PEM), and on how many of a cluster's a new stream lives."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    replicas: int = 1


@dataclass(frozen=True)
class Options:
    """How a target is opened. `write` False: only looked at, nothing made or locked. `jobs`: threads that will call."""

    write: bool = True
    jobs: int = 4
    ssh_config: str = ""
    """A configuration file for OpenSSH's client instead of the user's own."""
    fleet: str = ""
    nats: NatsOptions = NatsOptions()


@dataclass(frozen=True)
class Found:
    """What a target holds of one host; nothing of it is verified but that `digest` is that of the bytes there.

    `digest` is of the payload files of the release that `current` names, computed from them, and "" when there is none,
    or it is damaged; `envelopes` the release.json of `current` first (when it has one), then of other kept releases,
    newest first, at most ENVELOPES_MAX; `keys` the keys.json of `current`, b"" when absent; `token` is for `put`.
    """

    digest: str = ""
    envelopes: tuple[bytes, ...] = ()
    has_current: bool = False
    """Whether the first envelope is that of `current`."""
    keys: bytes = b""
    token: object = None


ENVELOPES_MAX = 64


class Target(Protocol):
    """A place that holds releases.

    `find` and `put` are called from several threads, each for another host; all else from one. Everything raises
    TargetError (or its Conflict, Lost) or OSError, one line each.
    """

    def __enter__(self) -> Self:
        """Connect, and keep a second publisher out where the transport can: TargetError when one is at work."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of it."""

    def hosts(self) -> Mapping[Host, str]:
        """Return every host there, with its stamp: text that differs whenever its current release does.

        A cheap look that proves nothing: whoever can write there can make it lie, and so withhold a release, which he
        can anyway. "" when the target cannot tell cheaply: then the host is read in full.
        """

    def find(self, kind: str, host: str) -> Found:
        """Read what there is of a host; an empty Found when there is nothing."""

    def put(
        self, kind: str, host: str, digest: str, files: Mapping[str, bytes], found: Found, keep: int
    ) -> str:
        """Store a release completely, then make it the current one in one step, durably; return the host's new stamp.

        `files` are the payload files that `digest` is of, and besides release.json and maybe keys.json. Of releases
        with the same digest only the newest is held. Raises Conflict when what is there is not `found` any more. Of
        the releases there the newest `keep` (at least 1) stay, this one always.
        """

    def index(self) -> bytes:
        """Return what `remember` stored last; b"" when there is nothing, or the target has no place for it."""

    def remember(self, index: bytes) -> None:
        """Store the publisher's index, some 200 bytes a host; a target may have no place for it and do nothing."""


def open_target(name: str, options: Options | None = None) -> Target:
    """Return the target of this name, not yet connected. TargetError when there is no such kind of target."""
    options = options or Options()
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", name)
    if scheme and scheme[1] in _SCHEMES:
        try:
            module = importlib.import_module(_SCHEMES[scheme[1]])
        except ModuleNotFoundError as error:
            raise Unavailable(
                f"a target {scheme[1]}:// needs the module {error.name!r}; {advice('publish')}"
            ) from None
        return cast(Target, module.open_(name, options))
    if scheme or ":" in name.partition("/")[0] or not name:
        raise TargetError(
            f"{show(name)}: no such kind of target; name a directory (./{show(name)} if it is one), "
            "ssh://user@host/path, tls://host or nats://host"
        )
    from tidegate_compiler.targets.directory import Directory

    return Directory(name, options)
