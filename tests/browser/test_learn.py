"""Replay and suggest on the pages: asked for, read, led to a form; nothing is applied, nothing switched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page as Tab

from browser.site import Site, observed, serve
from browser.test_forms import COMMIT, PLAN, SCRIPTS, main
from browser.test_pages import RULES, faults
from tidegate_control.access.caller import READER
from tidegate_control.learn import asking
from tidegate_control.learn.asking import Bounds

Open = Callable[..., Tab]
RECORDED = "button[name=recorded]"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server whose gateway observes."""
    with serve(tmp_path_factory.mktemp("watched") / "site") as site:
        site.tell("fra1", observed(site, int(time.time())))
        yield site


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A glance may take as long as it takes here: how long that is, the machine says."""
    monkeypatch.setattr(asking, "GLANCE", Bounds(60, asking.GLANCE.rows))


@SCRIPTS
def test_replay_says_what_enforce_would_break_and_offers_no_switch(
    watched: Site, open_tab: Open, scripts: bool
) -> None:
    tab = open_tab(watched, READER, scripts=scripts)
    tab.goto("/replay")
    assert "Would break" not in main(tab)
    tab.click("main button:has-text('Replay')")
    tab.wait_for_selector("h2:has-text('Readiness')")
    said = main(tab)
    assert "Would break (3)" in said
    assert "bob-laptop → resource:prod-db (10.20.5.3) tcp/5432" in said
    assert "no policy matches" in said
    assert "nobody-logs-in-to-databases denies it (inventory/policies/" in said
    rows = tab.locator("main table tbody tr")
    assert "bob-laptop" in rows.first.inner_text()
    assert tab.locator("main pre").inner_text() == "tidegate gateway set authz_mode=enforce"
    assert tab.locator("main form[method=post]").count() == 0
    assert "enforce" not in " ".join(tab.locator("main button").all_inner_texts())


def test_replay_is_narrowed_to_a_gateway_and_a_client(watched: Site, open_tab: Open) -> None:
    tab = open_tab(watched, READER)
    tab.goto("/replay?span=7d&client=carol-laptop")
    assert "Would break (1)" in main(tab)
    tab.goto("/replay?span=7d&gateway=nowhere&client=%3Cb%3E")
    assert "Nothing was recorded in this time" in main(tab)
    assert tab.input_value("#client") == "<b>"
    tab.goto("/replay?span=9999d")
    assert tab.input_value("#span") == "7d"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_they_show_is_sound(watched: Site, open_tab: Open, scheme: str) -> None:
    tab = open_tab(watched, scheme=scheme, width=1280 if scheme == "light" else 390)
    found = []
    for path in ("/replay?span=7d", "/suggest?span=7d", "/groups/contractors/delete"):
        tab.goto(path)
        found += faults(tab, path, RULES[scheme])
    assert found == []


@SCRIPTS
def test_a_suggestion_leads_to_a_form_and_that_to_its_plan(
    watched: Site, open_tab: Open, scripts: bool
) -> None:
    head = watched.inventory.head()
    tab = open_tab(watched, scripts=scripts)
    tab.goto("/suggest")
    assert tab.locator("main section").count() == 0
    tab.click("main button:has-text('Suggest')")
    tab.wait_for_selector("h2:has-text('Unused')")
    said = main(tab)
    assert "Policies that decided nothing" in said
    assert "Not asked for" in said  # what a deny policy refuses on purpose
    one = tab.locator("main section", has=tab.locator("text=to: [resource:git]"))
    name = one.locator("h3").inner_text()
    assert "action: allow" in one.locator("pre").inner_text()
    one.locator("button").click()
    assert tab.locator("h1").inner_text() == "New policy"
    assert tab.input_value("#field-name") == name
    assert tab.input_value("#field-to") == "resource:git"
    assert tab.locator("input[name=action]:checked").get_attribute("value") == "allow"
    assert tab.locator(COMMIT).count() == 0
    tab.click(PLAN)
    assert "Nothing is saved yet" in main(tab)
    assert tab.locator(COMMIT).count() == 1
    assert watched.inventory.head() == head


def test_a_reader_is_shown_suggestions_and_no_form(watched: Site, open_tab: Open) -> None:
    tab = open_tab(watched, READER)
    tab.goto("/suggest?span=7d")
    assert tab.locator("main section pre").count() > 2
    assert tab.locator("main form[method=post]").count() == 0


@SCRIPTS
def test_a_plan_says_who_would_notice(watched: Site, open_tab: Open, scripts: bool) -> None:
    head = watched.inventory.head()
    tab = open_tab(watched, scripts=scripts)
    tab.goto("/policies/eng-and-contractors-use-git/edit")
    tab.fill("#field-from", "group:engineers")
    tab.click(PLAN)
    said = tab.locator("#recorded").inner_text()
    assert "bob-laptop → resource:git (10.20.0.22) tcp/22" in said
    assert "16 flows of 1 client" in said.replace("\n", " ")
    assert "are not followed here" in said
    tab.click(RECORDED)
    said = tab.locator("#recorded").inner_text()
    assert "bob-laptop → resource:git (10.20.0.22) tcp/22" in said
    assert "are not followed here" not in said
    assert tab.locator(RECORDED).count() == 0
    assert tab.locator(COMMIT).count() == 1
    assert watched.inventory.head() == head


def test_a_delete_says_it_too(watched: Site, open_tab: Open) -> None:
    tab = open_tab(watched)
    tab.goto("/groups/contractors/delete")
    assert "bob-laptop → resource:git" in tab.locator("#recorded").inner_text()
    tab.click(RECORDED)
    assert "bob-laptop → resource:git" in tab.locator("#recorded").inner_text()
    assert tab.locator(COMMIT).count() == 1


def test_a_glance_that_takes_too_long_becomes_a_button(
    watched: Site, open_tab: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "GLANCE", Bounds(60, 2))
    tab = open_tab(watched)
    tab.goto("/groups/contractors/delete")
    assert "bob-laptop" not in tab.locator("#recorded").inner_text()
    tab.click(RECORDED)
    assert "bob-laptop → resource:git" in tab.locator("#recorded").inner_text()


def test_one_question_at_a_time_and_plans_wait_for_none(watched: Site, open_tab: Open) -> None:
    tab = open_tab(watched)
    with watched.services.learning.taken():
        for path in ("/replay?span=7d", "/suggest?span=7d"):
            answer = tab.goto(path)
            assert answer is not None
            assert (answer.status, answer.header_value("retry-after")) == (503, "5")
            assert "answered one by one" in main(tab)
        answer = tab.goto("/groups/contractors/delete")
        assert answer is not None
        assert answer.status == 200
        assert tab.locator(RECORDED).count() == tab.locator(COMMIT).count() == 1
        tab.click(RECORDED)
        assert "answered one by one" in tab.locator("#recorded [role=alert]").inner_text()
        assert tab.locator(RECORDED).count() == 1


def test_a_question_larger_than_its_bounds_is_a_page_that_says_so(
    watched: Site, open_tab: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "WHOLE", Bounds(60, 2))
    answer = open_tab(watched).goto("/replay?span=7d")
    assert answer is not None
    assert answer.status == 422
    assert "ask about fewer days" in answer.text()


def test_an_inventory_with_errors_judges_nothing(own: Site, open_tab: Open) -> None:
    own.push("resources/prod.yaml", own.file("resources/prod.yaml").replace("tcp/5432", "tcp/70000") + "\n")
    tab = open_tab(own)
    for path in ("/replay?span=7d", "/suggest?span=7d"):
        answer = tab.goto(path)
        assert answer is not None
        assert answer.status == 200
        assert "nothing can be judged by it" in tab.locator("[role=alert]").inner_text()
    tab.goto("/groups/contractors/delete")
    assert tab.locator("#recorded").count() == 0
