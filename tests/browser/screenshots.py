"""Makes the pictures of docs/ui.md: `python tests/browser/screenshots.py`. Look at them before you commit them."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from playwright.sync_api import Page as Tab  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from browser.conftest import chromium_path, flags  # noqa: E402
from browser.site import Site, flows, observed, serve  # noqa: E402

OUT = ROOT / "docs/images"
PLAN = "button[value=plan]"


def plan(tab: Tab) -> None:
    tab.goto("/policies/eng-reads-prod-db/edit")
    tab.fill("#field-from", "group:contractors")
    tab.fill("#field-ports", "")
    tab.click(PLAN)


def form(tab: Tab) -> None:
    tab.goto("/new/resources")
    tab.fill("#field-name", "wiki")
    tab.fill("#field-addresses", "10.20.0.90/24\nfd20::90/128")
    tab.fill("#field-ports", "tcp/443\ntcp/70000")
    tab.fill("#field-file", "resources/prod.yaml")
    tab.click(PLAN)


def commit(tab: Tab) -> None:
    tab.goto("/policies/ci-writes-backups/edit")
    tab.fill("#field-ports", "tcp/873\ntcp/874")
    tab.click(PLAN)
    tab.fill("#field-message", "The new mirror needs it")
    tab.click("button[value=commit]")
    tab.click("[role=status] a")


PICTURES = (
    ("overview", "/", "light", 1120, 760),
    ("plan", plan, "light", 1120, 590),
    ("access", "/access", "light", 1120, 760),
    ("flows", "/flows", "dark", 1120, 760),
    ("form", form, "light", 1120, 760),
    ("enrol-dark", "/enrol", "dark", 1120, 760),
    ("phone", "/policies", "light", 390, 844),
    ("commit", commit, "light", 1120, 760),
)

OBSERVED = (("replay", "/replay?span=7d", "light", 1120, 760),)
"""Of a gateway that observes."""


def shoot(site: Site, pictures: Iterable[tuple[str, str | Callable[[Tab], None], Any, int, int]]) -> None:
    """Make pictures."""
    OUT.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=flags())
        for name, what, scheme, width, height in pictures:
            context = browser.new_context(
                base_url=site.url, color_scheme=scheme, viewport={"width": width, "height": height}
            )
            context.add_cookies([site.cookie("editor")])
            tab = context.new_page()
            tab.goto(what) if isinstance(what, str) else what(tab)
            tab.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
            tab.screenshot(path=OUT / f"{name}.png")
            context.close()
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, serve(Path(place) / "site") as site:
        site.tell("fra1", flows(site, int(time.time())))
        shoot(site, PICTURES)
        with serve(Path(place) / "watched") as watched:
            watched.tell("fra1", observed(watched, int(time.time())))
            shoot(watched, OBSERVED)
    for path in sorted(OUT.glob("*.png")):
        sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes\n")
