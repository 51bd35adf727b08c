"""A side of a plan from what the command line names: a directory, a compile output, or a git revision. The I/O edge.

A directory with a manifest.json is a compile output, any other one an inventory; a name that is no directory is
a git revision, REV or REV:path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidegate_compiler import files, output
from tidegate_compiler.diagnostics import Diagnostic, Where, show
from tidegate_compiler.model import Lazily
from tidegate_compiler.plan import revision
from tidegate_compiler.plan.hosts import Hosts, Rendered, peer_addresses
from tidegate_compiler.render import MANIFEST
from tidegate_schema import jsonfile, wgquick

if TYPE_CHECKING:  # a plan of compile outputs does without the compiler
    from tidegate_compiler.model import Inventory
    from tidegate_compiler.pipeline import Compiled


class SourceError(Exception):
    """What was named cannot be read, or is neither an inventory nor an output; one line."""


@dataclass(frozen=True)
class Side:
    """One side of a plan: its hosts' files and policies, the clients' names by ID, and its inventory if it has one.

    `root` is the directory that places in the inventory are relative to, as people know it. `others` is how many
    clients there are beside those in `names`, the same ones on both sides.
    """

    title: str
    root: str
    hosts: Hosts
    policies: Mapping[str, Mapping[str, Any] | None]
    names: Mapping[str, str]
    inventory: Inventory | None
    diagnostics: tuple[Diagnostic, ...] = ()
    others: int = 0

    def place(self, where: Where | None) -> str | None:
        """Return the path of a place's file from where people stand, or None for None."""
        return None if where is None else f"{self.root}/{where.file}"


@dataclass(frozen=True)
class Content:
    """What was read of an inventory, before anything is made of it."""

    title: str
    root: str
    files: Mapping[str, bytes]
    problems: list[Diagnostic]


def read(name: str) -> Content | Side:
    """Read what a name stands for: an inventory's files, or a finished side for a compile output.

    Raises SourceError in one line, and OSError for a directory that cannot be read.
    """
    path = Path(name)
    if name and path.is_dir():
        if (path / MANIFEST).is_file():
            return _of_output(name, path)
        found, problems = files.read(path)
        return Content(name, name.rstrip("/") or "/", found, problems)
    if name and path.exists():
        raise SourceError(f"{show(name)}: neither a directory nor a git revision")
    try:
        root, found, problems = revision.read(name)
    except revision.RevisionError as error:
        raise SourceError(f"{show(name)}: {error}") from None
    return Content(name, root, found, problems)


def of_compiled(content: Content, compiled: Compiled) -> Side:
    """Return the side of an inventory that is compiled already."""
    fleet = compiled.fleet
    return Side(
        content.title,
        content.root,
        Rendered(fleet),
        Lazily(fleet.gateways, fleet.policy, {}),
        {identifier: name for name, identifier in fleet.ids.items()},
        compiled.inventory,
        compiled.diagnostics,
        compiled.others,
    )


def _of_output(title: str, path: Path) -> Side:
    try:
        found = output.read(path)
    except output.OutputError as error:
        raise SourceError(str(error)) from None
    return of_hosts(title, found.hosts)


def of_hosts(title: str, hosts: Hosts) -> Side:
    """Return the side of hosts' files alone, each of them one that a host would take; there is no inventory."""
    gateways = {host: files for (kind, host), files in hosts.items() if kind == "gateway"}
    policies: Lazily[Mapping[str, Any] | None] = Lazily(gateways, lambda host: _policy(gateways[host]), {})
    return Side(title, title.rstrip("/") or "/", hosts, policies, _names(hosts), None)


def _policy(files: Mapping[str, bytes]) -> Mapping[str, Any] | None:
    return jsonfile.parse(files["policy.json"]) if "policy.json" in files else None


def _names(hosts: Hosts) -> dict[str, str]:
    """Return the clients' names by ID. A client's file has no key of its own: its addresses tell who it is."""
    of_address = {
        address: host
        for (kind, host), data in hosts.items()
        if kind == "client"
        for address in _addresses(data["wg0.conf"])
    }
    return {
        client: of_address[address]
        for (kind, _), data in hosts.items()
        if kind == "gateway"
        for client, addresses in peer_addresses(data["peers.json"])
        for address in addresses
        if address in of_address
    }


_ADDRESS = re.compile(rb"\[Interface\]\nAddress = ([0-9a-f.:/]+(?:, [0-9a-f.:/]+)*)\n")


def _addresses(file: bytes) -> Sequence[str]:
    """Return a client's addresses, of a file that is known to be right: as we write them, or else by parsing it all."""
    match = _ADDRESS.match(file)
    return match[1].decode().split(", ") if match else wgquick.parse(file).addresses
