"""Pages of a large fleet and of a small one: a request through the whole application, in this process.

One page of a list, of the API and of the web pages, beside an empty list; the page and the form of one client, beside
those of an inventory that has one of each kind. The web's are asked by a session's cookie, without scripts.

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
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path

import httpx

from bench import fleet
from bench.rows import Options, Row
from tidegate_control import api
from tidegate_control.access.caller import EDITOR
from tidegate_control.api.listing import Query, write_cursor
from tidegate_control.app import Services, make_access, make_app
from tidegate_control.git.repository import Repository
from tidegate_control.inventory.service import Inventory
from tidegate_control.settings import Settings
from tidegate_control.ui import routes as ui

CLIENTS = 100_000
TIMES = 5
REQUESTS = 400
API_LISTS = {
    "list page": "/clients?limit=50",
    "list page, sorted by address": "/clients?limit=50&sort=-addresses",
    "list page, filtered by text": "/clients?limit=50&q=laptop-0",
}
WEB_LISTS = {
    "web list, first page": "/clients",
    "web list, filtered by text": "/clients?q=laptop-0",
    "web list, deep pages": f"/clients?after={write_cursor(Query(), ('', 'laptop-050000'))}",
}
OBJECTS = {"web page of a client": "", "web form of a client": "/edit"}
NAMES = [f"laptop-{number:06}" for number in range(7, CLIENTS, CLIENTS // 21)]
EMPTY = {
    "overlay.yaml": "overlay: {prefixes: [10.0.0.0/8]}\n",
    "clients/none.yaml": "{}\n",
}
SMALL = {
    "overlay.yaml": "overlay: {prefixes: [10.64.0.0/10, 'fd64::/48']}\n",
    "clients/all.yaml": fleet.client(7, 0).replace("gw-000, gw-001", "gw-000"),
    "gateways/all.yaml": f"gw-000: {{public_key: '{fleet.key('gateway 0')}', endpoint: '203.0.113.1:51820', "
    "networks: [172.16.0.0/20]}\n",
    "groups/all.yaml": "group-0000: {members: [laptop-000007]}\n",
    "resources/all.yaml": "res-0000: {addresses: [172.16.0.0/28], ports: [tcp/1000]}\n",
    "policies/all.yaml": "p-0000: {from: [group:group-0000], to: [resource:res-0000], action: allow}\n",
}


class Site:
    """An application over an inventory; what is asked of it, by a token or in a session."""

    def __init__(self, place: Path) -> None:
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
        self._token = access.tokens.add("bench", [EDITOR], seconds=86400)[1]
        app = make_app(Services(settings, inventory, None, access), [api.routes, ui.routes])
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")
        self._headers = {"Authorization": f"Bearer {self._token}"}

    async def log_in(self) -> None:
        """Begin a session."""
        headers = {"Origin": str(self.http.base_url), "Sec-Fetch-Site": "same-origin"}
        answer = await self.http.post("/login", data={"token": self._token}, headers=headers)
        assert answer.status_code == 303, answer.text

    async def get(self, path: str) -> httpx.Response:
        """Return an answer of the API's, or a page."""
        is_api = path.startswith(api.PREFIX)
        return await self.http.get(path, headers=self._headers if is_api else {})

    async def timed(self, path: str) -> float:
        """Return the milliseconds that an answer takes."""
        begin = time.perf_counter()
        answer = await self.get(path)
        taken = time.perf_counter() - begin
        assert answer.status_code == 200, answer.text
        return taken * 1000


def rows(_: Options) -> list[Row]:
    """Ask for pages of both, in turn."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        return asyncio.run(_rows(Path(scratch)))


async def _rows(place: Path) -> list[Row]:
    fleet.generate(place / "large" / "tree" / "inventory", CLIENTS)
    _write(place / "empty", EMPTY)
    _write(place / "small", SMALL)
    large, empty, small = (Site(place / name) for name in ("large", "empty", "small"))
    found = []
    async with large.http, empty.http, small.http:
        for name, path in API_LISTS.items():
            at = f"{api.PREFIX}{path}"
            first = await large.timed(at)
            pages = [at, *await _pages(large, at, 20)]
            found += [*await _row(name, large, pages, empty, at), _first(name, first)]
        for site in (large, empty, small):
            await site.log_in()
        for name, path in WEB_LISTS.items():
            first = await large.timed(path)
            pages = [path] if "after" not in path else list(map(_behind, NAMES[1:]))
            found += [*await _row(name, large, pages, empty, path), _first(name, first)]
        for name, path in OBJECTS.items():
            pages = [f"/clients/{client}{path}" for client in NAMES]
            first = await large.timed(pages[0])
            found += [*await _row(name, large, pages, small, pages[0]), _first(name, first)]
    return found


async def _row(name: str, large: Site, pages: list[str], other: Site, path: str) -> list[Row]:
    costs: dict[str, list[float]] = {"large": [], "other": []}
    for page in islice(cycle(pages), REQUESTS):
        costs["large"].append(await large.timed(page))
        costs["other"].append(await other.timed(path))
    alone = _percentile(costs["other"])
    told = f"{name}, {CLIENTS:,} clients, p95"
    return [Row("control", told, _percentile(costs["large"]), "ms", alone, TIMES * alone)]


def _first(name: str, value: float) -> Row:
    return Row("control", f"{name}, {CLIENTS:,} clients, the first time", value, "ms")


def _write(place: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        file = place / "tree" / "inventory" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _behind(name: str) -> str:
    return f"/clients?after={write_cursor(Query(), ('', name))}"


async def _pages(site: Site, path: str, most: int) -> list[str]:
    """Return the addresses of the pages that follow."""
    found: list[str] = []
    at = path
    while len(found) < most:
        following = (await site.get(at)).json()["next"]
        if following is None:
            break
        at = following
        found.append(at)
    return found


def _percentile(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def _git(place: Path, *words: str) -> None:
    who = {f"GIT_{r}_{k}": "bench@example.net" for r in ("AUTHOR", "COMMITTER") for k in ("NAME", "EMAIL")}
    clean = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *words], cwd=place, check=True, env=clean, stdout=subprocess.DEVNULL)
