"""A real Chromium, servers at work, and tabs that are watched: for foreign requests, dialogs, faults and violations."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from browser.site import Site, flows, serve

Open = Callable[..., Page]


def chromium_path() -> str | None:
    """Return where Debian's Chromium is."""
    return shutil.which("chromium")


def flags() -> list[str]:
    """Return Chromium's flags. As root it has no sandbox of its own; what it loads here is our own server alone."""
    return [
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-extensions",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]


# Playwright's event loop runs in this thread until it ends: no test of another folder may meet it.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = chromium_path()
    if path is None:
        pytest.skip("needs chromium (not installed)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags())
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with a day of flows, for tests that change nothing."""
    with serve(tmp_path_factory.mktemp("site") / "shared") as site:
        site.tell("fra1", flows(site, int(time.time())))
        yield site


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Site]:
    """A server of the test's own."""
    with serve(tmp_path / "own") as site:
        yield site


@pytest.fixture
def open_tab(chromium: Browser) -> Iterator[Open]:
    """Return a function that opens a tab: open_tab(site, scope="editor", scripts=True, scheme="light", width=1280)."""
    contexts = []
    seen: list[str] = []

    def open_(
        site: Site,
        scope: str | None = "editor",
        *,
        scripts: bool = True,
        scheme: Any = "light",
        width: int = 1280,
    ) -> Page:
        context = chromium.new_context(
            base_url=site.url,
            java_script_enabled=scripts,
            color_scheme=scheme,
            viewport={"width": width, "height": 900},
        )
        contexts.append(context)
        context.set_default_timeout(30_000)
        if scope is not None:
            context.add_cookies([site.cookie(scope)])
        page = context.new_page()
        watch(page, site, seen)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert seen == []


def watch(page: Page, site: Site, seen: list[str]) -> None:
    """Note whatever no page may do."""

    def on_dialog(dialog: Any) -> None:
        if dialog.type == "beforeunload":
            dialog.accept()
        else:
            seen.append(f"dialog: {dialog.message}")
            dialog.dismiss()

    def on_request(request: Any) -> None:
        if not request.url.startswith((f"{site.url}/", "data:")):
            seen.append(f"request: {request.url}")

    def on_console(message: Any) -> None:
        # A page that answers 4xx is told of as an error, too: that is what some tests are for.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            seen.append(f"console: {message.text}")

    page.on("dialog", on_dialog)
    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: seen.append(f"fault: {error}"))
