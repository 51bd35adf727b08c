"""Every form, with scripts and without: the plan comes first, then one commit that says what the form said."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page as Tab

from browser.site import Site
from controlkit import KEYS
from tidegate_control.access.caller import EDITOR

Open = Callable[..., Tab]
SCRIPTS = pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "plain"])
PLAN = "button:has-text('Show the plan')"
COMMIT = "button[value=commit]"


def main(tab: Tab) -> str:
    return tab.locator("main").inner_text()


def commit(tab: Tab, message: str = "") -> None:
    """Confirm the plan that is shown."""
    if message:
        tab.fill("#field-message", message)
    tab.click(COMMIT)
    tab.wait_for_url("**saved=**")
    assert "Committed" in tab.locator("[role=status]").inner_text()


@SCRIPTS
def test_logging_in_and_out(site: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(site, None, scripts=scripts)
    tab.goto("/")
    tab.fill("#token", site.tokens[EDITOR])
    tab.click("button:has-text('Log in')")
    assert tab.locator("h1").inner_text() == "Overview"
    if scripts:
        assert tab.evaluate("document.cookie") == ""  # no script reads it
    tab.click("button:has-text('Sign out')")
    tab.goto("/clients")
    assert "/login" in tab.url


@SCRIPTS
def test_an_edit_shows_who_gains_and_loses_before_it_is_saved(
    own: Site, open_tab: Open, scripts: bool
) -> None:
    tab = open_tab(own, scripts=scripts)
    before = own.inventory.head()
    tab.goto("/policies/eng-reads-prod-db")
    tab.click("a:has-text('Edit')")
    tab.fill("#field-from", "group:contractors")
    tab.fill("#field-expires", "")
    tab.click(PLAN)
    gained, lost = tab.locator(".gained").inner_text(), tab.locator(".lost").inner_text()
    assert "bob-laptop can reach 10.20.5.0/28" in gained
    assert "granted by eng-reads-prod-db" in gained
    assert "group:engineers (3 clients) can no longer reach" in lost
    assert "for instance" in lost
    assert "policy eng-reads-prod-db" in main(tab)
    assert own.inventory.head() == before  # nothing is saved yet
    commit(tab, "The project moved to the contractors")
    assert own.inventory.history(limit=1)[0].email == "editor@example.net"
    assert "eng-reads-prod-db" in own.log()[0]
    text = own.file("policies/engineering.yaml")
    assert "eng-reads-prod-db:\n  from: [group:contractors]" in text
    assert "reviewed every year" not in text.split("eng-reads-prod-db")[1] or "expires" not in text
    assert tab.url.startswith(f"{own.url}/policies/eng-reads-prod-db?saved=")


@SCRIPTS
def test_going_back_from_the_plan_keeps_what_was_written(own: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(own, scripts=scripts)
    tab.goto("/groups/contractors/edit")
    tab.fill("#field-members", "bob-laptop\nfrank-laptop\ncarol-laptop")
    tab.click(PLAN)
    tab.click("button:has-text('Back to the form')")
    assert tab.input_value("#field-members").split() == ["bob-laptop", "frank-laptop", "carol-laptop"]
    tab.click(PLAN)
    commit(tab)
    assert own.inventory.snapshot().objects("group")["contractors"].fields["members"][-1] == "carol-laptop"


NEW = {
    "clients": {
        "name": "zoe",
        "public_key": KEYS[0],
        "addresses": "10.64.9.9/32\nfd64::99/128",
        "gateways": "fra1",
    },
    "gateways": {
        "name": "tyo1",
        "public_key": KEYS[1],
        "endpoint": "203.0.113.30:51820",
        "networks": "10.40.0.0/16",
    },
    "groups": {
        "name": "auditors",
        "members": "alice-laptop\nbob-laptop",
        "expires": "bob-laptop: 2031-01-31",
    },
    "resources": {
        "name": "wiki",
        "addresses": "10.20.0.90/32",
        "ports": "tcp/443\nicmp",
        "file": "resources/wiki.yaml",
    },
    "policies": {
        "name": "wiki-for-all",
        "from": "all-clients",
        "to": "10.20.0.90/32",
        "action": "allow",
        "ports": "tcp/443",
        "not_before": "2030-01-01",
        "expires": "2031-01-01T06:00Z",
    },
    "tests": {
        "from": "client:alice-laptop",
        "to": "10.20.0.80",
        "port": "tcp/8080",
        "expect": "allow",
        "at": "2030-06-01",
        "file": "tests/engineering.yaml",
    },
}


def fill(tab: Tab, values: dict[str, str]) -> None:
    for name, value in values.items():
        if name in ("action", "expect"):
            tab.check(f"input[name={name}][value={value}]")
        else:
            tab.fill(f"#field-{name}", value)


@SCRIPTS
def test_a_new_object_of_every_kind(own: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(own, scripts=scripts)
    for path, values in NEW.items():
        tab.goto(f"/{path}")
        tab.click("a:has-text('New ')")
        fill(tab, values)
        tab.click(PLAN)
        assert tab.locator("h1").inner_text().startswith("New "), main(tab)
        commit(tab)
    snapshot = own.inventory.snapshot()
    assert snapshot.checked.inventory is not None
    assert snapshot.objects("client")["zoe"].fields["addresses"] == ["10.64.9.9/32", "fd64::99/128"]
    assert snapshot.objects("group")["auditors"].fields["expires"] == {"bob-laptop": "2031-01-31"}
    assert snapshot.objects("resource")["wiki"].file == "resources/wiki.yaml"
    assert snapshot.objects("policy")["wiki-for-all"].fields["expires"] == "2031-01-01T06:00Z"
    assert any(one.fields.get("at") == "2030-06-01" for one in snapshot.objects("test").values())
    assert len(own.log()) == 1 + len(NEW)


@SCRIPTS
def test_every_kind_is_edited_and_the_overlay_too(own: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(own, scripts=scripts)
    test = next(iter(own.inventory.snapshot().objects("test")))
    for path, field, value in (
        ("/clients/bob-laptop", "addresses", "10.64.0.12/32"),
        ("/gateways/nyc1", "endpoint", "203.0.113.21:51820"),
        ("/groups/operators", "members", "carol-laptop"),
        ("/resources/web", "ports", "tcp/8080\nicmp\ntcp/8443"),
        ("/policies/ci-writes-backups", "ports", "tcp/874"),
        (f"/tests/{test}", "port", "tcp/8080"),
        ("/overlay", "fleet", "other"),
    ):
        tab.goto(f"{path}/edit")
        tab.fill(f"#field-{field}", value)
        if path == f"/tests/{test}":
            tab.check("input[name=expect][value=deny]")
        tab.click(PLAN)
        assert tab.locator("h1").inner_text().startswith("Change "), main(tab)
        commit(tab)
    snapshot = own.inventory.snapshot()
    assert snapshot.objects("client")["bob-laptop"].fields["addresses"] == ["10.64.0.12/32"]
    assert snapshot.objects("overlay")["overlay"].fields["fleet"] == "other"
    assert "# Machines" in own.file("clients/operations.yaml")  # comments stay


@SCRIPTS
def test_a_delete_names_all_that_goes_with_it_first(own: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(own, scripts=scripts)
    tab.goto("/groups/engineers")
    tab.click("a:has-text('Delete')")
    assert "the policy eng-reaches-web, which is left with an empty 'from'" in main(tab)
    assert tab.locator(COMMIT).count() == 0
    tab.click("button:has-text('Plan it with all that')")
    assert "can no longer reach" in tab.locator(".lost").inner_text()
    commit(tab)
    snapshot = own.inventory.snapshot()
    assert "engineers" not in snapshot.objects("group")
    assert "eng-reaches-web" not in snapshot.objects("policy")
    tab.goto("/clients/monitor/delete")
    tab.click(COMMIT if tab.locator(COMMIT).count() else "button:has-text('Plan it with all that')")
    if "saved=" not in tab.url:
        commit(tab)
    assert "monitor" not in own.inventory.snapshot().objects("client")


@SCRIPTS
def test_a_commit_is_looked_at_and_reverted_by_a_new_one(own: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(own, scripts=scripts)
    own.push("resources/prod.yaml", own.file("resources/prod.yaml").replace("tcp/5432", "tcp/5433") + "\n")
    tab.goto("/history")
    tab.click(f"a[href='/history/{own.inventory.head()}'] >> nth=0")
    assert "+  ports: [tcp/5433]" in tab.locator(".diff").inner_text().replace("\n\n", "\n")
    tab.click("a:has-text('Revert')")
    assert "can reach 10.20.5.0/28, fd20:0:0:5::/64 on tcp/5432" in tab.locator(".gained").inner_text()
    commit(tab)
    assert "tcp/5432" in own.file("resources/prod.yaml")
    assert own.log()[0].startswith("Revert ")
    assert len(own.log()) == 3


@SCRIPTS
def test_a_host_is_enrolled_by_its_public_key(own: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(own, scripts=scripts)
    tab.goto("/enrol")
    assert "tidegate client init --name NAME --fleet example" in main(tab)
    tab.fill("#field-name", "zoe-laptop")
    tab.fill("#field-public_key", KEYS[0])
    tab.fill("#field-gateways", "fra1")
    tab.click(PLAN)
    assert "client zoe-laptop" in main(tab)
    commit(tab)
    fields = own.inventory.snapshot().objects("client")["zoe-laptop"].fields
    assert fields == {
        "public_key": KEYS[0],
        "addresses": ["10.64.0.2/32", "fd64::2/128"],
        "gateways": ["fra1"],
    }


@SCRIPTS
def test_a_change_of_nothing_makes_no_commit(own: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(own, scripts=scripts)
    tab.goto("/clients/bob-laptop/edit")
    tab.click(PLAN)
    assert "This changes nothing" in main(tab)
    assert tab.locator(COMMIT).count() == 0
    assert len(own.log()) == 1


def test_known_names_are_added_with_scripts(own: Site, open_tab: Open) -> None:
    tab = open_tab(own)
    tab.goto("/groups/operators/edit")
    tab.fill(".pick input", "bob-laptop")
    tab.keyboard.press("Enter")
    tab.fill(".pick input", "carol-laptop")  # is there already
    tab.click(".pick button")
    assert tab.input_value("#field-members").split() == ["carol-laptop", "erin-desktop", "bob-laptop"]
    tab.click(PLAN)
    commit(tab)


def test_a_save_by_the_keyboard_alone(own: Site, open_tab: Open) -> None:
    tab = open_tab(own)
    tab.goto("/policies/ci-writes-backups")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"

    def to(wanted: str) -> None:
        for _ in range(60):
            tab.keyboard.press("Tab")
            found = tab.evaluate(f"document.activeElement.matches({wanted!r})")
            ring = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert ring != "none", "focus is not to be seen"
            if found:
                return
        raise AssertionError(f"no way to {wanted}")

    to("a[href$='/edit']")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/edit")
    to("#field-ports")
    tab.keyboard.press("Control+A")
    tab.keyboard.type("tcp/8730")
    to("button[value=plan]")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(COMMIT)
    to("#field-message")
    tab.keyboard.type("By hand")
    tab.keyboard.press("Enter")  # the first button of the form
    tab.wait_for_url("**saved=**")
    assert re.search(r"ports: \[tcp/8730\]", own.file("policies/operations.yaml"))
