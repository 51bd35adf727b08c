"""What goes wrong is told where it is, no text is lost, and nobody gets another plan than the one confirmed."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page as Tab

from browser.site import Site
from browser.test_forms import COMMIT, PLAN, SCRIPTS, commit, fill, main
from tidegate_control.access.caller import EDITOR, READER

Open = Callable[..., Tab]
# A key with the bits of a private one (RFC 7748, section 5), which a public one has once in 32 times.
CLAMPED = "CAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHl8="


def problem(tab: Tab, field: str) -> str:
    """Return what is said at a field; the field says by itself that it is wrong, and which words are about it."""
    one = tab.locator(f"#field-{field}")
    assert one.get_attribute("aria-invalid") == "true"
    assert f"problem-{field}" in str(one.get_attribute("aria-describedby"))
    return tab.locator(f"#problem-{field}").inner_text()


@SCRIPTS
def test_a_wrong_value_is_told_at_its_field_with_code_and_place(
    site: Site, open_tab: Open, scripts: bool
) -> None:
    tab = open_tab(site, scripts=scripts)
    head = site.inventory.head()
    for path, field, value, code in (
        ("/clients/bob-laptop", "addresses", "10.99.0.1/32", "TG0"),
        ("/clients/bob-laptop", "public_key", "abc", "TG020"),
        ("/gateways/fra1", "endpoint", "example.com:1", "TG025"),
        ("/groups/contractors", "expires", "frank-laptop: soon", "TG027"),
        ("/groups/contractors", "members", "bob-laptop\nnobody", "TG030"),
        ("/resources/web", "ports", "tcp/70000", "TG026"),
        ("/policies/ci-writes-backups", "to", "resource:nothing", "TG030"),
        ("/policies/ci-writes-backups", "ports", "", "TG"),
    ):
        tab.goto(f"{path}/edit")
        tab.fill(f"#field-{field}", value)
        tab.click(PLAN)
        assert "This cannot be saved" in main(tab), path
        if value:
            said = problem(tab, field)
            assert code in said, said
            assert ".yaml:" in said
            assert tab.input_value(f"#field-{field}") == ("" if code == "TG020" else value)
        else:
            assert code in main(tab)
    assert site.inventory.head() == head


@SCRIPTS
def test_a_new_object_with_a_name_that_is_none_or_taken(site: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(site, scripts=scripts)
    values = {"addresses": "10.20.0.99/32", "ports": "tcp/1", "file": "resources/prod.yaml"}
    for name, said in (
        ("web", "is there already"),
        ("No Name", "a-z"),
        ("../../etc", "a-z"),
        ("", "a-z"),
    ):
        tab.goto("/new/resources")
        fill(tab, values | {"name": name})
        tab.click(PLAN)
        assert (
            said in main(tab).split("Name (required)")[1].split("Addresses")[0] + main(tab).split("Name")[0]
        )
        assert tab.locator(COMMIT).count() == 0
        assert tab.input_value("#field-addresses") == values["addresses"]


@SCRIPTS
@pytest.mark.parametrize(
    "file", ["../x.yaml", "/etc/passwd", "clients/x.yaml", "resources/a/b.yaml", "resources/x.txt"]
)
def test_a_file_that_is_no_place_for_it(site: Site, open_tab: Open, scripts: bool, file: str) -> None:
    tab = open_tab(site, scripts=scripts)
    tab.goto("/new/resources")
    fill(tab, {"name": "lost", "addresses": "10.20.0.99/32", "ports": "tcp/1", "file": file})
    tab.click(PLAN)
    assert "This cannot be saved" in main(tab)
    assert tab.locator(COMMIT).count() == 0


def test_what_was_refused_has_the_focus_and_says_where_to_look(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    tab.goto("/resources/web/edit")
    tab.fill("#field-ports", "tcp/70000")
    tab.click(PLAN)
    assert "This cannot be saved" in tab.evaluate("document.activeElement.textContent")
    tab.click("[role=alert] a:has-text('Ports')")
    assert tab.evaluate("location.hash") == "#field-ports"


@SCRIPTS
def test_a_change_between_plan_and_commit_is_told_and_planned_anew(
    own: Site, open_tab: Open, scripts: bool
) -> None:
    tab = open_tab(own, scripts=scripts)
    tab.goto("/policies/ci-writes-backups/edit")
    tab.fill("#field-ports", "tcp/874")
    tab.click(PLAN)
    own.push("groups/people.yaml", own.file("groups/people.yaml") + "\nothers:\n  members: [ci-runner]\n")
    tab.click(COMMIT)
    assert "The inventory has changed since this plan was made" in main(tab)
    assert "tcp/874" not in own.file("policies/operations.yaml")
    commit(tab)
    assert "tcp/874" in own.file("policies/operations.yaml")
    assert "others" in own.file("groups/people.yaml")


@SCRIPTS
def test_a_change_of_the_same_object_meanwhile_is_not_written_over(
    own: Site, open_tab: Open, scripts: bool
) -> None:
    tab = open_tab(own, scripts=scripts)
    tab.goto("/policies/ci-writes-backups/edit")
    own.push(
        "policies/operations.yaml", own.file("policies/operations.yaml").replace("tcp/873", "tcp/8730") + "\n"
    )
    tab.fill("#field-ports", "tcp/874")
    tab.click(PLAN)
    assert "Somebody has changed this since you opened the form" in main(tab)
    assert "Ports is now: tcp/8730" in main(tab)
    assert tab.input_value("#field-ports") == "tcp/874"
    tab.click(PLAN)
    commit(tab)


@SCRIPTS
def test_an_object_that_is_gone_meanwhile(own: Site, open_tab: Open, scripts: bool) -> None:
    tab = open_tab(own, scripts=scripts)
    tab.goto("/policies/ci-writes-backups/delete")
    text = own.file("policies/operations.yaml")
    start, end = text.index("ci-writes-backups:"), text.index("monitor-scrapes:")
    own.push("policies/operations.yaml", text[:start] + text[end:] + "\n")
    tab.click(COMMIT)
    assert "there is no policy of that name" in main(tab)


@SCRIPTS
def test_a_broken_inventory_is_shown_and_can_be_mended(own: Site, open_tab: Open, scripts: bool) -> None:
    own.push("resources/prod.yaml", own.file("resources/prod.yaml").replace("tcp/5432", "tcp/70000") + "\n")
    tab = open_tab(own, scripts=scripts)
    tab.goto("/")
    assert "1 error keeps bundles from being made" in main(tab)
    for path in ("/access", "/flows", "/problems", "/resources", "/enrol", "/history"):
        answer = tab.goto(path)
        assert answer is not None
        assert answer.status == 200, path
    tab.goto("/resources/prod-db")
    assert "TG026" in tab.locator(".note").first.inner_text()
    tab.click("a:has-text('Edit')")
    tab.fill("#field-ports", "tcp/5432")
    tab.click(PLAN)
    assert "There is no plan" in main(tab)
    commit(tab)
    assert own.inventory.snapshot().checked.inventory is not None


@SCRIPTS
@pytest.mark.parametrize(
    "secret",
    [
        "PrivateKey = cKOlGUzZDlhap8RP7GzO5aWSaM1ZzdcdASrAWAEzrwk=",
        "-----BEGIN PRIVATE KEY-----",
        "[Peer] PresharedKey=x",
    ],
    ids=["wg", "pem", "psk"],
)
def test_a_private_key_is_refused_and_not_shown_again(
    site: Site, open_tab: Open, scripts: bool, secret: str
) -> None:
    tab = open_tab(site, scripts=scripts)
    tab.goto("/enrol")
    tab.fill("#field-name", "zoe-laptop")
    tab.fill("#field-public_key", secret)
    tab.click(PLAN)
    assert "this holds a private key" in problem(tab, "public_key")
    assert secret not in tab.content()


@SCRIPTS
def test_what_may_be_a_private_key_is_taken_only_when_confirmed(
    own: Site, open_tab: Open, scripts: bool
) -> None:
    tab = open_tab(own, scripts=scripts)
    tab.goto("/enrol")
    tab.fill("#field-name", "zoe-laptop")
    tab.fill("#field-public_key", CLAMPED)
    tab.fill("#field-gateways", "fra1")
    tab.click(PLAN)
    assert "this looks like a private key" in problem(tab, "public_key")
    assert CLAMPED not in tab.content()
    tab.fill("#field-public_key", CLAMPED)
    tab.check("input[name=confirm_key]")
    tab.click(PLAN)
    commit(tab)
    tab.goto("/clients/zoe-laptop/edit")  # what is there already is asked about no more
    tab.fill("#field-gateways", "fra1\nnyc1")
    tab.click(PLAN)
    commit(tab)


def test_forms_of_nobody_of_a_reader_and_of_another_site_change_nothing(own: Site) -> None:
    before = own.log()
    session = own.cookie(EDITOR)
    reader = own.cookie(READER)
    fields = {"action": "deny", "step": "commit", "from": "all-clients", "to": "10.20.0.0/16", "ports": "any"}
    with httpx.Client(base_url=own.url, headers={"origin": own.url, "accept": "text/html"}) as client:
        for path in (
            "/policies/ci-writes-backups/edit",
            "/policies/ci-writes-backups/delete",
            "/new/policies",
        ):
            assert client.post(path, data=fields).status_code == 401
            for cookie in (session, reader):
                cookies = {"cookie": f"{cookie['name']}={cookie['value']}"}
                answer = client.post(path, data=fields, headers=cookies)
                assert answer.status_code == 403
                assert "not one of this session" in answer.text
    assert own.log() == before


def test_a_reader_with_a_form_of_their_own_session_is_refused(own: Site, open_tab: Open) -> None:
    tab = open_tab(own, READER)
    tab.goto("/policies/ci-writes-backups")
    tab.evaluate(
        """() => {
            const form = document.querySelector("form[action='/logout']");
            form.action = "/policies/ci-writes-backups/delete";
            form.insertAdjacentHTML("beforeend", "<input name=step value=commit>");
        }"""
    )
    with tab.expect_navigation() as done:
        tab.click("button:has-text('Sign out')")
    assert done.value.status == 403
    assert "needs the scope editor" in main(tab)
    assert len(own.log()) == 1


def test_pages_and_names_that_are_not_there(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    for path in (
        "/nothing",
        "/clients/nobody",
        "/clients/nobody/edit",
        "/clients/..%2f..%2fetc%2fpasswd",  # 400, by the door, as the two others with signs
        "/clients/%00",
        "/new/overlay",
        "/new/nothing",
        "/overlay/overlay/delete",
        "/history/abc",
        f"/history/{'0' * 40}",
        f"/history/{'0' * 40}/revert",
        "/static/nothing.css",
        "/static/..%2fvisit.py",
    ):
        answer = tab.goto(path)
        assert answer is not None
        assert answer.status == (400 if "%" in path else 404), path
        assert "Traceback" not in tab.content()


def test_a_notice_of_a_save_is_of_a_real_commit_or_branch(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    for query in (f"saved={'0' * 40}", "saved=<b>x", "waiting=you have won", "waiting=tidegate/../x y"):
        tab.goto(f"/clients?{query}")
        assert tab.locator("[role=status]").count() == 0, query


def test_a_form_that_was_changed_asks_before_it_is_left(site: Site, open_tab: Open) -> None:
    tab = open_tab(site)
    asked: list[str] = []
    tab.on("dialog", lambda dialog: asked.append(dialog.type))
    tab.goto("/resources/web/edit")
    tab.press("#field-ports", "x")
    tab.click("nav >> text=Overview")
    tab.wait_for_url(f"{site.url}/")
    assert asked == ["beforeunload"]


def test_too_long_and_too_many_fields_are_refused(site: Site) -> None:
    cookie = site.cookie(EDITOR)
    head = {"cookie": f"{cookie['name']}={cookie['value']}", "origin": site.url, "accept": "text/html"}
    with httpx.Client(base_url=site.url, headers=head) as client:
        page = client.get("/new/clients").text
        own = page.split('name="csrf_token" value="')[1].split('"')[0]
        many = {f"field{number}": "x" for number in range(150)} | {"csrf_token": own}
        assert client.post("/new/clients", data=many).status_code == 400
        long = {"csrf_token": own, "name": "x" * (2 << 20)}
        assert client.post("/new/clients", data=long).status_code == 413
        answer = client.post("/new/clients", json={"csrf_token": own}, headers={"x-csrf-token": own})
        assert answer.status_code == 415
