"""Hostile text, by every way that it comes to a page: it is shown as text, and nothing of it is ever run.

The tabs are watched (`conftest.watch`): a dialog, a fault, a request to elsewhere or a violation of the content
security policy fails the test by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page as Tab

import controlkit
from browser.site import Site, serve
from browser.test_forms import PLAN
from browser.test_pages import paths
from tidegate_control.ui.kinds import CHOICE, LINES, PAIRS, TEXT, kinds

Open = Callable[..., Tab]
EVIL = (
    "\"'><script>window.hit=1</script><img src=x onerror=window.hit=1></textarea></title>"
    "<script>alert(1)</script>{{7*7}}${7*7}<svg/onload=alert(2)>javascript:alert(3)"
)
NAME = EVIL.replace("/", "")
"""No address has room for a slash within a name, so what has one is in lists alone."""
MADE = "img, iframe, script:not([src]), [onerror], [onload], svg:not([viewBox]), a[href^='javascript']"


def assert_harmless(tab: Tab, path: str) -> None:
    assert tab.evaluate("window.hit") is None, path
    assert tab.locator(MADE).count() == 0, path
    assert "49" not in tab.locator("h1").inner_text(), path


def test_hostile_text_in_every_field_of_every_form(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    for kind in kinds().values():
        for path in ("/overlay/edit",) if kind.word == "overlay" else (f"/new/{kind.path}",):
            tab.goto(path)
            texts = [field.name for field in kind.fields if field.shape != CHOICE]
            own = [] if kind.word == "overlay" else ["file"] + ["name"] * kind.is_named
            for name in [*texts, *own]:
                tab.evaluate(f"document.getElementById('field-{name}').removeAttribute('maxlength')")
                tab.fill(f"#field-{name}", EVIL)
            tab.click(PLAN)
            assert_harmless(tab, path)
            assert tab.locator("[role=alert]").count(), path
            for name in texts:
                if name != "public_key":
                    assert tab.input_value(f"#field-{name}") == EVIL, (path, name)


def test_hostile_text_one_field_at_a_time_next_to_good_ones(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    for path, object_ in (
        ("clients", "bob-laptop"),
        ("policies", "eng-reads-prod-db"),
        ("groups", "contractors"),
    ):
        for field in kinds()[path].fields:
            if field.shape == CHOICE:
                continue
            tab.goto(f"/{path}/{object_}/edit")
            tab.fill(f"#field-{field.name}", EVIL)
            tab.click(PLAN)
            assert_harmless(tab, f"{path} {field.name}")
            assert tab.locator(f"#problem-{field.name}, [role=alert]").count() > 0


def test_hostile_text_in_every_query(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    for path, names in {
        "/flows": ("client", "to", "port", "verdict", "reason", "gateway", "policy", "span", "page"),
        "/access": ("client", "resource", "at", "view"),
        "/clients": ("q", "sort", "after", "saved", "waiting"),
        "/history": ("before", "saved"),
        "/new/clients": ("name", "public_key", "addresses", "file"),
    }.items():
        for name in names:
            tab.goto(f"{path}?{name}={EVIL.replace('&', '%26').replace('#', '%23')}")
            assert_harmless(tab, f"{path} {name}")
    stranger = open_tab(site, None)
    stranger.goto(f"/login?next={EVIL}")
    assert_harmless(stranger, "/login")
    assert stranger.input_value("input[name=next]") == "/"


def hostile() -> dict[str, str]:
    """Return an inventory in which every name and every value is hostile; JSON is YAML."""
    files = controlkit.example()
    shapes = {TEXT: EVIL, CHOICE: EVIL, LINES: [EVIL, "x"], PAIRS: {EVIL: EVIL}}
    for kind in kinds().values():
        fields = {field.name: shapes[field.shape] for field in kind.fields} | {EVIL: EVIL}
        if kind.word != "overlay":
            files[f"{kind.path}/evil.yaml"] = json.dumps([fields] if kind.word == "test" else {NAME: fields})
    return files


def test_an_inventory_full_of_hostile_text_on_every_page(tmp_path: Path, open_tab: Open) -> None:
    with serve(tmp_path / "evil", hostile()) as site:
        tab = open_tab(site)
        for path in [*paths(site, forms=False), *paths(site, forms=True)]:
            tab.goto(path)
            assert_harmless(tab, path)
        for kind in kinds().values():
            if kind.word == "overlay":
                continue
            tab.goto(f"/{kind.path}?q={EVIL[:30]}")
            assert tab.locator("tbody tr").count() == 1, kind.path
            tab.locator("tbody a").first.click()
            assert_harmless(tab, kind.path)
            assert EVIL in tab.locator("main").inner_text()
            base = tab.url
            for page in ("edit", "delete"):
                tab.goto(f"{base}/{page}")
                assert_harmless(tab, f"{kind.path} {page}")


def test_a_hostile_author_subject_and_file_in_the_history(own: Site, open_tab: Open) -> None:
    clone = own.repository.parent / "clone"
    controlkit.git(own.repository.parent, "clone", "-q", str(own.repository), str(clone))
    name = "\"'><img src=x onerror=alert(4)>.yaml"
    (clone / "inventory" / "clients" / name).write_text(f"# {EVIL}\n")
    controlkit.git(clone, "add", "-A")
    author = "<b>x</b>\"'><img src=x onerror=alert(5)>".replace("<", "").replace(">", "")
    controlkit.git(clone, "commit", "-q", "-m", EVIL, f"--author={author} <a@b.example>")
    controlkit.git(clone, "push", "-q", "origin", "HEAD:main")
    tab = open_tab(own)
    head = f"/history/{own.inventory.head()}"
    for path in ("/", "/history", head, f"{head}/revert", "/problems"):
        tab.goto(path)
        assert_harmless(tab, path)
    tab.goto("/history")
    assert EVIL[:60] in tab.locator("tbody").inner_text()
