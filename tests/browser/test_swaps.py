"""What htmx adds to pages that work without it: parts are replaced, forms are checked, and nothing gets lost.

The tabs are watched (`conftest.watch`): a request to elsewhere, or a violation of the content security policy,
fails the test by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page as Tab

from browser.site import Site, serve
from browser.test_forms import PLAN, SCRIPTS, commit
from browser.test_hostile import EVIL, assert_harmless, hostile
from browser.test_pages import RULES, faults
from tidegate_control.access.caller import EDITOR, READER
from tidegate_control.ui import listing
from tidegate_control.ui.kinds import kinds

Open = Callable[..., Tab]
OF_NYC1 = ["carol-laptop", "ci-runner", "dave-laptop", "erin-desktop", "monitor"]


def mark(tab: Tab) -> None:
    """Mark a page as loaded, to see later that it was not loaded again."""
    tab.evaluate("window.isOld = true")


def is_marked(tab: Tab) -> bool:
    return bool(tab.evaluate("window.isOld === true"))


def focus(tab: Tab) -> str:
    return str(tab.evaluate("document.activeElement.id"))


def names(tab: Tab) -> list[str]:
    return tab.locator("tbody th").all_inner_texts()


def send(tab: Tab) -> None:
    """Send a filter as one does without scripts."""
    tab.click("form.filter button")


# --- lists ------------------------------------------------------------------------------------------


def test_a_list_is_filtered_while_somebody_types(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/clients")
    mark(tab)
    everybody = names(tab)
    tab.click("#q")
    tab.keyboard.type("nyc1")
    tab.wait_for_url("**/clients?q=nyc1&sort=name")
    assert names(tab) == OF_NYC1
    assert focus(tab) == "q"
    assert tab.locator("#count[aria-live=polite]").inner_text() == "5 clients with this text"
    assert tab.locator("#all a").inner_text() == "Show all"
    tab.keyboard.type("x")
    tab.wait_for_url("**q=nyc1x**")
    assert tab.locator("#found").inner_text() == "No client has this text."
    assert tab.locator("#count").inner_text() == "0 clients with this text"
    assert is_marked(tab)
    tab.go_back()
    tab.wait_for_url("**q=nyc1&**")
    tab.wait_for_selector("tbody")
    assert names(tab) == OF_NYC1
    assert tab.input_value("#q") == "nyc1"
    tab.go_back()
    tab.wait_for_url("**/clients")
    tab.wait_for_selector("text=alice-laptop")
    assert names(tab) == everybody
    assert tab.input_value("#q") == ""


def test_sending_what_was_typed_is_one_step_back(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/clients")
    before = tab.evaluate("history.length")
    with tab.expect_response("**q=nyc1**"):
        tab.fill("#q", "nyc1")
    with tab.expect_response("**q=nyc1**"):
        tab.keyboard.press("Enter")
    tab.wait_for_function("!document.querySelector('.htmx-request')")
    assert tab.evaluate("history.length") == before + 1


def test_nothing_of_a_page_is_kept_in_the_browser(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/clients")
    tab.fill("#q", "nyc1")
    tab.wait_for_url("**q=nyc1**")
    tab.click("#sort-addresses")
    tab.wait_for_url("**sort=addresses**")
    kept = tab.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "laptop" not in kept
    assert "10.64" not in kept


@SCRIPTS
def test_a_list_is_sorted_and_filtered_in_that_order(site: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(site, scripts=scripts)
    tab.goto("/clients")
    if scripts:
        mark(tab)
    tab.click("#sort-name")
    tab.wait_for_url("**sort=-name**")
    assert tab.locator("th[aria-sort=descending]").count() == 1
    tab.fill("#q", "nyc1")
    if not scripts:
        send(tab)
    tab.wait_for_url("**q=nyc1&sort=-name")
    assert names(tab) == OF_NYC1[::-1]
    if scripts:
        assert is_marked(tab)
        tab.click("#sort-name")
        tab.wait_for_url("**q=nyc1&sort=name")
        assert focus(tab) == "sort-name"
        assert list(faults(tab, "sorted", RULES["light"])) == []


@SCRIPTS
def test_a_long_list_goes_on_in_pages(own: Site, open_tab: Open, scripts: bool) -> None:
    own.push("groups/many.yaml", "".join(f"team-{n:02}:\n  members: [ci-runner]\n" for n in range(60)))
    tab = open_tab(own, scripts=scripts)
    tab.goto("/groups?q=team-")
    if scripts:
        mark(tab)
    assert len(names(tab)) == 50
    tab.focus("a[rel=next]")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**after=**")
    assert names(tab) == [f"team-{n}" for n in range(50, 60)]
    assert tab.locator("#count").inner_text() == "60 groups with this text"
    if scripts:
        assert is_marked(tab)
        tab.wait_for_function(
            "document.activeElement.id === 'found'"
        )  # the link is gone, and with it its focus
    tab.click("a[rel=first]")
    tab.wait_for_url(lambda url: "after" not in url)
    assert names(tab)[0] == "team-00"


def test_a_link_goes_before_a_filter_that_is_still_being_answered(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/clients")
    tab.evaluate("console.error = () => {}")  # where htmx says that it has given one up
    held: list[Any] = []
    tab.route("**/clients?q=nyc1&**", lambda route: held.append(route))
    with tab.expect_event("requestfailed"):
        with tab.expect_request("**/clients?q=nyc1&**"):
            tab.fill("#q", "nyc1")
        tab.click("#sort-name")
    tab.wait_for_url("**/clients?q=&sort=-name")
    assert names(tab)[-1] == "alice-laptop"
    assert len(held) == 1


def test_a_client_id_leads_to_the_whole_page_of_its_client(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/clients")
    tab.fill("#q", str(site.inventory.snapshot().objects("client")["bob-laptop"].client_id))
    tab.wait_for_url("**/clients/bob-laptop")
    assert tab.locator("h1").all_inner_texts() == ["bob-laptop"]
    assert tab.locator("#q").count() == 0


# --- flows, access ----------------------------------------------------------------------------------


@SCRIPTS
def test_a_filter_of_flows_replaces_chart_and_table(site: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(site, READER, scripts=scripts)
    tab.goto("/flows")
    if scripts:
        mark(tab)
    assert tab.locator(".chart rect.allow").count() > 3
    tab.select_option("#verdict", "deny")
    if not scripts:
        send(tab)
    tab.wait_for_url("**verdict=deny**")
    assert tab.locator(".sheet > .chart rect.allow").count() == 0
    assert set(tab.locator("main .tag").all_inner_texts()) == {"deny"}
    tab.fill("#client", "bob-laptop")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**client=bob-laptop**")
    assert set(tab.locator("table.flows").first.locator("tbody th").all_inner_texts()) == {"bob-laptop"}
    if scripts:
        assert is_marked(tab)
        assert focus(tab) == "client"
        assert tab.locator("#count[aria-live=polite]").text_content() == "Page 1: 1 rows"
        assert list(faults(tab, "flows", RULES["light"])) == []
        tab.go_back()
        tab.wait_for_url(lambda url: "client=&" in url)
        tab.wait_for_selector("#found .chart")
        assert (tab.input_value("#client"), tab.input_value("#verdict")) == ("", "deny")


def test_a_page_says_that_it_waits(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/flows")
    held: list[Any] = []
    tab.route("**/flows?**", lambda route: held.append(route))
    assert not tab.locator("#wait").is_visible()
    tab.select_option("#span", "7d")
    tab.wait_for_selector("#wait", state="visible")
    assert list(faults(tab, "waiting", RULES["light"])) == []
    held[0].continue_()
    tab.wait_for_selector("#wait", state="hidden")
    assert "span=7d" in tab.url


def test_the_picture_of_access_is_swapped_in(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/access")
    mark(tab)
    tab.select_option("#view", "picture")
    tab.wait_for_url("**view=picture**")
    assert tab.locator("#found .picture svg").is_visible()
    assert is_marked(tab)


# --- forms ------------------------------------------------------------------------------------------


def test_a_field_is_checked_when_it_is_left(own: Site, open_tab: Open) -> None:
    tab = open_tab(own)
    tab.goto("/resources/web/edit")
    mark(tab)
    field, box = tab.locator("#field-ports"), tab.locator("#problem-ports")
    assert field.get_attribute("aria-describedby") == "hint-ports problem-ports"
    field.fill("tcp/70000")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#problem-ports .problem")
    tab.wait_for_selector("#field-ports[aria-invalid=true]")
    assert "TG026" in box.inner_text()
    assert ".yaml:" in box.inner_text()
    assert tab.locator("#checked[aria-live=polite]").inner_text() == "Not right yet: Ports."
    assert field.input_value() == "tcp/70000"
    assert tab.evaluate("document.activeElement.textContent") == "Show the plan"  # where Tab has led to
    assert Axe().run(tab, options=RULES["light"]).response["violations"] == []
    field.fill("tcp/8443")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#checked:has-text('Nothing is wrong so far.')")
    tab.wait_for_selector("#field-ports:not([aria-invalid])")
    assert box.inner_text() == ""
    assert is_marked(tab)
    assert len(own.log()) == 1
    tab.click(PLAN)  # which comes first, as ever
    assert "Nothing is saved yet" in tab.locator("main").inner_text()
    commit(tab)
    assert len(own.log()) == 2


def test_a_new_form_says_what_is_wrong_and_not_what_nobody_has_come_to(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/new/clients")
    tab.fill("#field-name", "bob-laptop")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#problem-name:has-text('is there already')")
    tab.fill("#field-name", "zoe")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#problem-name:not(:has(*))", state="attached")
    assert tab.locator("#checked").inner_text().split("\n\n") == [
        "Nothing is wrong so far.",
        "The public key is checked with the plan.",
        "Still to fill in: Addresses, Gateways.",
    ]
    tab.fill("#field-addresses", "10.99.0.1/32")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#problem-addresses:has-text('outside the overlay')")
    assert tab.locator(".problem").count() == 1
    tab.fill("#field-name", "")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#checked:has-text('Still to fill in: Name, Gateways.')")
    assert tab.locator(".problem").count() == 0  # nothing can be judged without a name


def test_a_name_that_is_picked_is_checked_too(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/groups/operators/edit")
    tab.fill(".pick input", "nobody")
    tab.click(".pick button")
    tab.wait_for_selector("#problem-members:has-text('TG030')")


def test_a_key_is_sent_nowhere_before_somebody_sends_it(site: Site, open_tab: Open) -> None:
    """It may be a private one, which somebody still notices."""
    tab = open_tab(site)
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.post_data or ""))
    secret = "cKOlGUzZDlhap8RP7GzO5aWSaM1ZzdcdASrAWAEzrwk"
    for path in ("/enrol", "/new/clients", "/clients/bob-laptop/edit", "/gateways/fra1/edit"):
        asked.clear()
        tab.goto(path)
        tab.fill("#field-public_key", f"{secret}=")
        tab.keyboard.press("Tab")
        tab.wait_for_selector("#checked p")
        tab.fill("#field-addresses, #field-networks", "10.99.0.1/33")
        tab.keyboard.press("Tab")
        if path in ("/enrol", "/new/clients"):
            tab.wait_for_selector("#checked:has-text('Still to fill in: Name')")
            tab.fill("#field-name", "zoe-laptop")
            tab.keyboard.press("Tab")
        tab.wait_for_selector(".problem:has-text('TG022')")
        assert tab.locator(".problem").count() == 1, path
        assert len([one for one in asked if "step=check" in one]) > 1
        assert secret not in "".join(asked), path


def test_without_scripts_nothing_is_checked_before_the_plan(site: Site, open_tab: Open) -> None:
    tab = open_tab(site, scripts=False)
    asked: list[str] = []
    tab.goto("/resources/web/edit")
    tab.on("request", lambda request: asked.append(request.method))
    tab.fill("#field-ports", "tcp/70000")
    tab.keyboard.press("Tab")
    tab.click(PLAN)
    assert "TG026" in tab.locator("#problem-ports").inner_text()
    assert asked.count("POST") == 1


# --- what goes wrong --------------------------------------------------------------------------------


def end(site: Site, tab: Tab) -> None:
    """End a tab's session on the server."""
    for cookie in tab.context.cookies():
        site.services.access.sessions.finish(str(cookie.get("value")))


@pytest.mark.parametrize(
    ("path", "field", "onward"),
    [
        ("/clients", "#q", "/clients?q=nyc1&sort=name"),
        ("/groups/contractors/edit", "#field-members", "/groups/contractors/edit"),
    ],
    ids=["list", "form"],
)
def test_an_ended_session_leads_to_the_form_to_log_in_as_a_whole(
    site: Site, open_tab: Open, path: str, field: str, onward: str
) -> None:
    tab = open_tab(site)
    tab.goto(path)
    end(site, tab)
    tab.fill(field, "nyc1")
    tab.keyboard.press("Tab")
    tab.wait_for_url("**/login?next=**")
    assert tab.locator("h1").all_inner_texts() == ["Log in to Tidegate"]
    assert tab.locator("nav, #found").count() == 0
    tab.fill("#token", site.tokens[EDITOR])
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"{site.url}{onward}")


def test_going_back_after_the_session_has_ended_asks_to_log_in(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/clients")
    tab.fill("#q", "nyc1")
    tab.wait_for_url("**q=nyc1**")
    end(site, tab)
    tab.go_back()
    tab.wait_for_url("**/login?next=%2Fclients")
    assert tab.locator("h1").all_inner_texts() == ["Log in to Tidegate"]


def test_what_the_server_refuses_is_told_in_a_line(
    site: Site, open_tab: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = open_tab(site)
    tab.goto("/flows")
    address = tab.url
    tab.fill("#port", "x")
    tab.keyboard.press("Enter")
    note = tab.locator("#found [role=alert]")
    note.wait_for()
    assert note.inner_text() == "write a port as tcp/443, udp/53, icmp, icmpv6 or proto/47"
    assert tab.locator("#found table").count() == 0  # it would be of another question
    assert tab.url == address
    tab.fill("#port", "tcp/22")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#found table.flows")
    assert note.count() == 0

    def broken(*_: object) -> None:
        raise RuntimeError("inside")

    tab.goto("/clients")
    monkeypatch.setattr(listing, "read", broken)
    tab.fill("#q", "x")
    note.wait_for()
    assert "\n" not in note.inner_text()
    assert "inside" not in note.inner_text()
    assert list(faults(tab, "refused", RULES["light"])) == []


def test_an_error_of_whatever_stands_between_is_told_as_text(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/clients")
    note = tab.locator("#found [role=alert]")
    bodies = iter([(502, "<h1>Bad"), (503, ""), (500, f'<img src=x><div class="note"><p>{escape(EVIL)}')])

    def answer(route: Any) -> None:
        status, body = next(bodies)
        route.fulfill(status=status, body=body)

    tab.route("**/clients?**", answer)
    for said in (
        "The server answered with status 502.",
        "The server answered with status 503.",
        "<script>alert(1)",
    ):
        tab.click("form.filter button")
        tab.wait_for_selector(f"#found [role=alert]:has-text({said!r})")
        assert_harmless(tab, said)
    assert note.count() == 1
    tab.unroute("**/clients?**")
    tab.route("**/clients?**", lambda route: route.abort())
    tab.evaluate("console.error = () => {}")  # where htmx says it, too
    tab.click("form.filter button")
    tab.wait_for_selector("#found [role=alert]:has-text('The server does not answer.')")
    tab.unroute("**/clients?**")
    tab.click("form.filter button")
    tab.wait_for_selector("#found tbody")


def test_an_error_of_a_check_leaves_the_form_as_it_is(own: Site, open_tab: Open) -> None:
    tab = open_tab(own)
    tab.goto("/policies/ci-writes-backups/edit")
    text = own.file("policies/operations.yaml")
    start, stop = text.index("ci-writes-backups:"), text.index("monitor-scrapes:")
    own.push("policies/operations.yaml", text[:start] + text[stop:] + "\n")
    tab.fill("#field-ports", "tcp/874")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#checked [role=alert]:has-text('there is no policy of that name')")
    assert tab.input_value("#field-ports") == "tcp/874"


# --- hostile text -----------------------------------------------------------------------------------


def test_hostile_text_stays_text_in_what_is_swapped(tmp_path: Path, open_tab: Open) -> None:
    with serve(tmp_path / "evil", hostile()) as site:
        tab = open_tab(site)
        for kind in kinds().values():
            if kind.word == "overlay":
                continue
            tab.goto(f"/{kind.path}")
            mark(tab)
            tab.fill("#q", EVIL[:30])
            tab.wait_for_url("**?q=**")
            assert tab.locator("tbody tr").count() == 1, kind.path
            assert_harmless(tab, kind.path)
            assert EVIL[:30] in tab.locator("#found").inner_text()
            assert is_marked(tab)


def test_hostile_text_stays_text_in_a_check_and_in_a_refusal(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/groups/contractors/edit")
    tab.fill("#field-members", EVIL)
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#problem-members .problem")
    assert_harmless(tab, "check")
    assert "onerror" in tab.locator("#problem-members").inner_text()
    tab.goto("/access")
    tab.fill("#client", EVIL)
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#found [role=alert]:has-text('onerror')")
    assert_harmless(tab, "refusal")
