"""What the hosts would be sent: the compile output, as a listing, one host's files, or all of it as a tar archive.

These are public keys, addresses and policies, all of which whoever reads the inventory can make by `tidegate compile`.
No private key is in any of it: the inventory has none.
"""

from __future__ import annotations

import hashlib
import tarfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

from tidegate_compiler.diagnostics import show
from tidegate_compiler.plan.hosts import Key, Rendered
from tidegate_compiler.render import render
from tidegate_control.api import proposal
from tidegate_control.api.listing import Query, write_cursor
from tidegate_control.api.lists import CURSOR_PARAMETER, LIMIT_PARAMETER, after, paged
from tidegate_control.api.operation import Answer, Call, Parameter
from tidegate_control.api.spool import Spool
from tidegate_control.inventory.errors import NotFound

HOST_KINDS = ("client", "gateway")
PARAMETERS = (
    Parameter("kind", "Only hosts of this kind.", {"type": "string", "enum": list(HOST_KINDS)}),
    LIMIT_PARAMETER,
    CURSOR_PARAMETER,
)
TAR = "application/x-tar"
_ORDER = Query(sort="host")


def listing(call: Call) -> Answer:
    """Answer with the digest of the inventory and one page of hosts, each with its files' names, sizes and hashes."""
    snapshot = call.services.inventory.snapshot()
    compiled = proposal.compiled(snapshot)
    every = call.made.get(snapshot.commit, "hosts", lambda: sorted(Rendered(compiled.fleet)))
    kind = call.query.get("kind")
    hosts = every if kind is None else [host for host in every if host[0] == kind]
    last = after(call, _ORDER.order)
    begin = 0 if last is None else bisect_right(hosts, last)
    shown = hosts[begin : begin + call.query["limit"]]
    cursor = write_cursor(_ORDER, shown[-1]) if begin + len(shown) < len(hosts) else None
    rendered = Rendered(compiled.fleet)
    items = [_summary(host, rendered[host]) for host in shown]
    return paged(call, "compile", items, len(hosts), cursor, commit=snapshot.commit, digest=compiled.digest)


def _summary(host: Key, files: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "kind": host[0],
        "host": host[1],
        "files": [
            {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in sorted(files.items())
        ],
    }


def one(call: Call) -> Answer:
    """Answer with the files of one host."""
    snapshot = call.services.inventory.snapshot()
    rendered = Rendered(proposal.compiled(snapshot).fleet)
    host = (call.path["kind"], call.path["name"])
    if host not in rendered:
        raise NotFound(f"there is no {show(host[0])} host {show(host[1])}")
    files = {name: data.decode("utf-8") for name, data in rendered[host].items()}
    body = {"commit": snapshot.commit, "kind": host[0], "host": host[1], "files": files}
    return Answer(body, commit=snapshot.commit)


def archive(call: Call) -> Answer:
    """Answer with everything that `tidegate compile` writes, as a tar archive: the same commit, the same bytes."""
    snapshot = call.services.inventory.snapshot()
    compiled = proposal.compiled(snapshot)
    state = call.services.settings.state
    kept = call.made.get(
        snapshot.commit, "archive", lambda: Spool(state, _tar(render(compiled.fleet, compiled.digest)))
    )
    name = f"tidegate-{snapshot.commit[:12]}.tar"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Answer(commit=snapshot.commit, headers=headers, media_type=TAR, pieces=kept)


def _tar(files: Mapping[str, bytes]) -> Iterator[bytes]:
    """Yield an archive (POSIX ustar) piece by piece: regular files that only their owner reads, without times."""
    for path, data in sorted(files.items()):
        member = tarfile.TarInfo(path)
        member.size, member.mode = len(data), 0o600
        padding = -len(data) % tarfile.BLOCKSIZE
        yield member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(padding)
    yield bytes(2 * tarfile.BLOCKSIZE)
