"""What was found out about a host, as values; None where it could not be found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate_agents.host import Places


@dataclass(frozen=True)
class Tool:
    """A program: where it is, None when it is not on PATH, and the first line of its version."""

    path: str | None
    version: str = ""


@dataclass(frozen=True)
class Try:
    """Something that was tried in a network namespace of its own; `worked` is None when it could not be tried."""

    worked: bool | None
    said: str = ""


@dataclass(frozen=True)
class Link:
    """An interface."""

    mtu: int
    up: bool
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """A default route: its family (4 or 6), interface, and who made it (ra: a router's advertisement)."""

    family: int
    link: str
    protocol: str = ""


@dataclass(frozen=True)
class Chain:
    """A base chain of somebody else's nftables that lets nothing pass but what its rules name."""

    family: str
    table: str
    name: str
    hook: str


@dataclass(frozen=True)
class Entry:
    """A file or directory: its type and permissions (st_mode), and its owner."""

    mode: int
    uid: int


@dataclass(frozen=True)
class Space:
    """Free bytes and free inodes of a file system; inodes None where it has no number of them."""

    bytes: int
    inodes: int | None


@dataclass(frozen=True)
class Facts:
    """Everything the checks judge."""

    places: Places
    bundles: Path
    settings: Mapping[str, Any]
    now: float
    settings_problem: str | None = None
    identity_problem: str | None = None
    key_problem: str | None = None
    memory_problem: str | None = None
    remembered: float = 0.0
    """The highest time the host has seen, Unix seconds; 0 when it has seen none."""
    synchronised: bool | None = None
    """Whether the kernel takes its clock for synchronised (adjtimex(2))."""
    agent: int | None = None
    """The process of the agent that runs here."""
    release_problem: str | None = None
    not_after: float | None = None
    """The end of the release that is offered, Unix seconds; None when there is none."""
    kernel: tuple[int, int] = (0, 0)
    machine: str = ""
    tools: Mapping[str, Tool] = field(default_factory=dict)
    tries: Mapping[str, Try] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    uplinks: tuple[Route, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """By path below /proc/sys/net; those that are not there are left out."""
    sysctls_writable: bool = True
    entries: Mapping[Path, Entry | None] = field(default_factory=dict)
    """What is at each path that matters; None when nothing is."""
    space: Mapping[Path, Space] = field(default_factory=dict)
    closed_chains: tuple[Chain, ...] | None = None
    legacy_tables: tuple[str, ...] = ()
    """Tables of the older iptables in the kernel, which nft does not list."""
    udp_ports: frozenset[int] = frozenset()
    interface_is_ours: bool | None = None
    """Whether the interface that is there has this host's key; None when there is none, or it cannot be asked."""
    users: Mapping[int, str] = field(default_factory=dict)
    """Names of the users that have a number of the settings."""
    libatomic: bool = True

    @property
    def kind(self) -> str:
        """Which kind of host it is: client or gateway."""
        return self.places.kind

    @property
    def is_gateway(self) -> bool:
        """Whether it is a gateway."""
        return self.kind == "gateway"

    @property
    def interface(self) -> str:
        """The WireGuard interface's name."""
        return str(self.settings["interface"])
