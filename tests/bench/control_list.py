"""One page of a list of a large fleet, and of an empty list: a request through the whole application, in this process.

The inventory stands in memory, as in a server that has answered before; what a list needs beyond it (its order, what a
filter finds) is made by the first request that asks for it, which is a row of its own. The percentile is of requests
that differ: every page begins elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import httpx

from bench import fleet
from bench.rows import Options, Row
from tidegate_control import api
from tidegate_control.access.caller import READER
from tidegate_control.app import Services, make_access, make_app
from tidegate_control.git.repository import Repository
from tidegate_control.inventory.service import Inventory
from tidegate_control.settings import Settings

CLIENTS = 100_000
TIMES = 5
REQUESTS = 400
LISTS = {
    "list page": "/clients?limit=50",
    "list page, sorted by address": "/clients?limit=50&sort=-addresses",
    "list page, filtered by text": "/clients?limit=50&q=laptop-0",
}
EMPTY = {
    "overlay.yaml": "overlay: {prefixes: [10.0.0.0/8]}\n",
    "clients/none.yaml": "{}\n",
}


def rows(_: Options) -> list[Row]:
    """Ask for pages of both, in turn."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        return asyncio.run(_rows(Path(scratch)))


async def _rows(place: Path) -> list[Row]:
    fleet.generate(place / "large" / "tree" / "inventory", CLIENTS)
    for path, text in EMPTY.items():
        file = place / "empty" / "tree" / "inventory" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    async with _client(place / "large") as large, _client(place / "empty") as empty:
        found = []
        for name, path in LISTS.items():
            first = await _timed(large, path)
            costs: dict[str, list[float]] = {"large": [], "empty": []}
            pages = cycle([path, *await _pages(large, path, 20)])
            for page in _some(pages):
                costs["large"].append(await _timed(large, page))
                costs["empty"].append(await _timed(empty, path))
            alone = _percentile(costs["empty"])
            size = f"{CLIENTS:,} clients"
            found.append(
                Row(
                    "control", f"{name}, {size}, p95", _percentile(costs["large"]), "ms", alone, TIMES * alone
                )
            )
            found.append(Row("control", f"{name}, {size}, the first time", first, "ms"))
        return found


def _client(place: Path) -> httpx.AsyncClient:
    tree, state = place / "tree", place / "state"
    _git(tree, "init", "-q", "-b", "main")
    _git(tree, "add", "-A")
    _git(tree, "commit", "-q", "-m", "Begin")
    _git(place, "clone", "-q", "--bare", "tree", "fleet.git")
    state.mkdir(mode=0o700)
    settings = Settings(repository=place / "fleet.git", state=state)
    inventory = Inventory(Repository(settings.repository))
    assert not inventory.snapshot().has_errors
    access = make_access(settings)
    token = access.tokens.add("bench", [READER], seconds=86400)[1]
    app = make_app(Services(settings, inventory, None, access), [api.routes])
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=("127.0.0.1", 1)),
        base_url=f"http://127.0.0.1:8080{api.PREFIX}",
        headers=headers,
    )


async def _pages(client: httpx.AsyncClient, path: str, most: int) -> list[str]:
    """Return the addresses of the pages that follow."""
    found: list[str] = []
    at = path
    while len(found) < most:
        following = (await client.get(at)).json()["next"]
        if following is None:
            break
        at = following.removeprefix(api.PREFIX)
        found.append(at)
    return found


def _some(pages: Iterator[str]) -> Iterator[str]:
    return (next(pages) for _ in range(REQUESTS))


async def _timed(client: httpx.AsyncClient, path: str) -> float:
    """Return the milliseconds that an answer takes."""
    begin = time.perf_counter()
    answer = await client.get(path)
    taken = time.perf_counter() - begin
    assert answer.status_code == 200, answer.text
    return taken * 1000


def _percentile(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def _git(place: Path, *words: str) -> None:
    who = {f"GIT_{r}_{k}": "bench@example.net" for r in ("AUTHOR", "COMMITTER") for k in ("NAME", "EMAIL")}
    clean = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *words], cwd=place, check=True, env=clean, stdout=subprocess.DEVNULL)
