"""Every page: everybody can read it, in light and dark and on a phone, and nobody sees more than they may."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page as Tab

import controlkit
from browser.site import Site
from tidegate_control.access.caller import EDITOR, READER
from tidegate_control.ui.routes import PAGES

Open = Callable[..., Tab]
ROOT = Path(__file__).parents[2]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# What differs between light and dark is colour, so the rest is looked at once.
OWN = "script:not([src]), style, [style], [onclick], [onload], [onerror]"
RULES: dict[str, dict[str, Any]] = {
    "light": {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]},
    "dark": {"runOnly": {"type": "rule", "values": ["color-contrast"]}, "resultTypes": ["violations"]},
}
NAMES = {
    "clients": "alice-laptop",
    "gateways": "fra1",
    "groups": "contractors",
    "resources": "prod-db",
    "policies": "eng-reads-prod-db",
}


def paths(site: Site, *, forms: bool) -> list[str]:
    """Return an address for every page and kind: of those with a form, or without one."""
    head = site.inventory.head()
    test = next(iter(site.inventory.snapshot().objects("test")))
    names = NAMES | {"tests": test}
    found = []
    for page in PAGES:
        if ("POST" in page.methods) != forms:
            continue
        filled = page.path.replace("{commit}", head)
        if "{kind}" in filled:
            # What a delete shows is alike for every kind: a plain one, and one that takes others along.
            kinds_ = ("groups", "tests") if filled.endswith("/delete") else tuple(names)
            found += [filled.format(kind=kind, name=names[kind]) for kind in kinds_]
        else:
            found.append(filled)
    return list(dict.fromkeys(found))


def faults(tab: Tab, path: str, rules: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the page that a tab shows."""
    for one in Axe().run(tab, options=rules).response["violations"]:
        yield f"{path}: {one['id']}: {one['nodes'][0]['html'][:150]}"
    if tab.locator("h1").count() != 1 or not tab.title().endswith(" · Tidegate"):
        yield f"{path}: not one heading and a title"
    if tab.locator(OWN).count():
        yield f"{path}: a script or style of its own, which the policy of the door refuses"
    if tab.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
        yield f"{path}: scrolls sideways"


@pytest.mark.parametrize("forms", [False, True], ids=["shown", "forms"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_sound_in_light_on_a_desk_and_in_dark_on_a_phone(
    site: Site, open_tab: Open, scheme: str, forms: bool
) -> None:
    tab = open_tab(site, scheme=scheme, width=1280 if scheme == "light" else 390)
    more = (
        []
        if forms
        else [
            "/access?view=picture",
            "/flows?verdict=deny",
            "/clients/nobody",
            "/flows?port=x",
            "/replay?span=7d",
            "/suggest?span=7d",
        ]
    )
    found = []
    for path in [*paths(site, forms=forms), *more]:
        tab.goto(path)
        tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        found += faults(tab, path, RULES[scheme])
    assert found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_to_log_in_is_sound(site: Site, open_tab: Open, scheme: str) -> None:
    tab = open_tab(site, None, scheme=scheme, width=390)
    tab.goto("/login")
    tab.fill("#token", "wrong")
    tab.click("button:has-text('Log in')")
    assert tab.locator("[role=alert]").count() == 1
    assert list(faults(tab, "/login", RULES[scheme])) == []


def test_a_phone_has_its_menu_folded_and_without_scripts_open(site: Site, open_tab: Open) -> None:
    tab = open_tab(site, width=390)
    tab.goto("/")
    assert not tab.locator("nav >> text=Policies").is_visible()
    tab.click("summary:has-text('Menu')")
    tab.click("nav >> text=Policies")
    assert tab.title().startswith("Policies")
    plain = open_tab(site, width=390, scripts=False)
    plain.goto("/")
    assert plain.locator("nav >> text=Policies").is_visible()


def test_the_document_lists_every_page_and_no_other() -> None:
    rows = re.findall(r"^\| `(/[^`]*)` \| (\w+) \|", (ROOT / "docs/ui.md").read_text(), re.MULTILINE)
    door = {("/login", "nobody"), ("/logout", "nobody")}
    assert set(rows) - door == {(page.path, page.scope) for page in PAGES}
    assert door <= set(rows)


# --- who sees what ----------------------------------------------------------------------------------


def test_a_stranger_is_shown_the_form_to_log_in_and_comes_back(site: Site, open_tab: Open) -> None:
    tab = open_tab(site, None)
    tab.goto("/policies/eng-reads-prod-db")
    assert tab.url == f"{site.url}/login?next=%2Fpolicies%2Feng-reads-prod-db"
    tab.fill("#token", site.tokens[READER])
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/policies/eng-reads-prod-db")
    assert tab.locator("h1").inner_text() == "eng-reads-prod-db"


def test_a_reader_sees_no_way_to_change_anything(site: Site, open_tab: Open) -> None:
    tab = open_tab(site, READER)
    for path in paths(site, forms=False):
        tab.goto(path)
        main = tab.locator("main")
        assert main.locator("form[method=post]").count() == 0, path
        links = [link.get_attribute("href") or "" for link in main.locator("a").all()]
        assert not [to for to in links if re.search(r"/(edit|delete|revert)$|^/new/", to)], path


def test_a_reader_is_refused_every_form(site: Site, open_tab: Open) -> None:
    tab = open_tab(site, READER)
    for path in paths(site, forms=True):
        answer = tab.goto(path)
        assert answer is not None
        assert answer.status == 403, path
        assert "needs the scope editor" in tab.locator("main").inner_text()


def test_every_page_needs_a_scope_and_those_with_a_form_the_editors() -> None:
    assert {page.scope for page in PAGES} == {READER, EDITOR}
    assert all((page.scope == EDITOR) == ("POST" in page.methods) for page in PAGES)


# --- what pages show --------------------------------------------------------------------------------


def test_the_overview_shows_hosts_accounts_and_changes(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/")
    row = tab.locator("tr", has=tab.locator("text=fra1")).inner_text()
    assert re.search(r"203\.0\.113\.10:51820.*168\s+3\s+0\s+0", row, re.DOTALL)
    assert "none yet" in tab.locator("tr", has=tab.locator("text=nyc1")).inner_text()
    assert "Begin" in tab.locator("main").inner_text()


def test_the_overview_says_what_was_published_last(own: Site, open_tab: Open) -> None:
    tab = open_tab(own)
    tab.goto("/")
    assert "has not been told of one" in tab.locator("main").inner_text()
    controlkit.git(own.repository, "update-ref", "refs/tidegate/published", own.inventory.head())
    tab.reload()
    assert "nothing has changed" in tab.locator("main").inner_text()


def test_a_list_is_filtered_sorted_and_found_by_client_id(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/clients?q=nyc1")
    names = ["carol-laptop", "ci-runner", "dave-laptop", "erin-desktop", "monitor"]
    assert tab.locator("tbody th").all_inner_texts() == names
    tab.click("thead >> text=Name")
    tab.wait_for_url("**sort=-name**")
    assert tab.locator("th[aria-sort=descending]").count() == 1
    assert tab.locator("tbody th").first.inner_text() == "monitor"
    tab.goto("/clients")
    tab.click("thead >> text=Addresses")
    tab.wait_for_url("**sort=addresses**")
    assert tab.locator("tbody th").first.inner_text() == "alice-laptop"
    bob = site.inventory.snapshot().objects("client")["bob-laptop"].client_id
    tab.fill("#q", str(bob))
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/clients/bob-laptop")


def test_the_matrix_says_who_reaches_what(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/access")
    row = tab.locator(".matrix tbody tr", has=tab.locator("text=ci-runner"))
    assert row.locator("td").first.inner_text().replace("\n", " ").startswith("◐")
    assert row.locator("td .hidden").nth(1).inner_text() == "nothing"
    tab.fill("#resource", "prod-db")
    tab.fill("#at", "2032-01-01")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**resource=prod-db**")
    assert tab.locator(".matrix .full, .matrix .partial").count() == 0  # what there was ends before
    tab.goto("/access?client=nobody")
    assert "there is no nobody" in tab.locator("[role=alert]").inner_text()
    tab.goto("/access?view=picture")
    assert (
        tab.locator(".picture svg title").first.text_content()
        == "Who reaches what in example, whatever the time"
    )


def test_flows_are_filtered_charted_and_told_as_a_table(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/flows")
    assert tab.locator(".chart .deny").count() > 3
    tab.select_option("#verdict", "deny")  # acts at once
    tab.wait_for_url("**verdict=deny**")
    assert set(tab.locator("main .tag").all_inner_texts()) == {"deny"}
    tab.goto("/flows?client=bob-laptop&port=tcp/22")
    assert tab.locator("table.flows").first.locator("tbody tr").count() == 1
    tab.click("summary:has-text('The same as a table')")
    assert tab.locator("details table tbody tr").count() > 2
    for wrong in ("port=x", "client=UPPER", "to=10.0.0.999", "gateway=..", "policy=A b"):
        answer = tab.goto(f"/flows?{wrong}")
        assert answer is not None
        assert answer.status == 422, wrong
        assert tab.locator("[role=alert]").count() == 1


def test_a_policy_shows_the_flows_that_it_decided(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/policies/nobody-logs-in-to-databases")
    assert "Flows that this policy denied" in tab.locator("main").inner_text()
    assert tab.locator("tbody tr", has=tab.locator("text=carol-laptop")).count() == 1
    tab.click("text=All of them, with a chart")
    assert tab.input_value("#policy") == "nobody-logs-in-to-databases"
    assert tab.input_value("#span") == "7d", "the same time as on the page before"
