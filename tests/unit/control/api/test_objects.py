"""Create, read, change, delete: each kind, good and bad, and what git has afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import controlkit
from apikit import BASE, Api
from apisamples import CHANGED, KINDS, NEW, WRONG
from tidegate_compiler.codes import CODES
from tidegate_compiler.diagnostics import Diagnostic, Where
from tidegate_control import problems
from tidegate_control.api import kinds
from tidegate_control.inventory.snapshot import Objects
from tidegate_schema import validation
from tidegate_schema.keys import client_id, parse_public_key

OF = {kind.path: kind for kind in kinds.KINDS}


def made(api: Api, path: str) -> Any:
    answer = api("POST", f"/{path}", NEW[path])
    assert answer.status_code == 201, answer.text
    return answer


@pytest.mark.parametrize("path", KINDS)
def test_the_life_of_an_object(api: Api, path: str) -> None:
    before = api.commits()
    answer = made(api, path)
    where = answer.headers["location"]
    assert where.startswith(f"{BASE}/{path}/")
    assert answer.headers["etag"] == f'"{answer.json()["commit"]}"' == f'"{api.inventory.head()}"'

    found = api("GET", where)
    fields = {key: value for key, value in NEW[path].items() if key not in ("name", "file")}
    assert {key: found.json()[key] for key in fields} == fields
    assert found.json() == answer.json()["object"]

    changed = {**fields, **CHANGED[path]}
    answer = api("PUT", where, changed, match=found.headers["etag"])
    assert answer.status_code == 200, answer.text
    where = f"{BASE}/{path}/{answer.json()['object']['name']}"
    found = api("GET", where).json()
    assert {key: found[key] for key in changed} == changed

    answer = api("DELETE", where, match=answer.headers["etag"])
    assert answer.status_code == 200, answer.text
    assert api("GET", where).status_code == 404
    assert api("DELETE", where, match="*").status_code == 404
    assert api.commits() == before + 3


@pytest.mark.parametrize("path", KINDS)
def test_a_dry_run_tells_the_plan_and_changes_nothing(api: Api, path: str) -> None:
    before = api.inventory.head()
    answer = api("POST", f"/{path}?dry_run=true", NEW[path])
    assert answer.status_code == 200
    told = answer.json()
    assert told["commit"] is None
    assert not validation.errors("plan", told["plan"])
    assert told["plan"]["changes"]
    assert any(line.startswith("+") for line in told["diff"])
    name = api("GET", f"/{path}?limit=1").json()["items"][0]["name"]
    answer = api("DELETE", f"/{path}/{name}?dry_run=true&cascade=true")
    assert answer.status_code in (200, 422), answer.text
    assert api.inventory.head() == before


@pytest.mark.parametrize(
    ("path", "field", "value", "code"),
    WRONG,
    ids=[f"{path}-{field}-{code}" for path, field, _, code in WRONG],
)
def test_what_means_nothing_gets_the_diagnostics(
    api: Api, path: str, field: str, value: Any, code: str
) -> None:
    before = api.inventory.head()
    answer = api("POST", f"/{path}", {**NEW[path], field: value})
    assert answer.status_code == 422, answer.text
    found = answer.json()["diagnostics"]
    assert code in [one["code"] for one in found]
    for one in found:
        assert one["where"] == f"{one['file']}:{one['line']}:{one['column']}"
        assert one["severity"] == "error"
        assert one["hint"]
    assert api.inventory.head() == before


@pytest.mark.parametrize("path", KINDS)
def test_what_has_not_the_shape_gets_pointers(reading: Api, path: str) -> None:
    body = {**NEW[path], "surprise": 1}
    field = OF[path].schema["required"][0]
    body[field] = 7
    answer = reading("POST", f"/{path}?dry_run=true", body)
    assert answer.status_code == 422
    assert {f"/{field}", ""} <= {one["pointer"] for one in answer.json()["errors"]}
    assert reading("POST", f"/{path}?dry_run=true", []).status_code == 422


@pytest.mark.parametrize("field", ["authz_mode", "logging_enabled", "private_key"])
@pytest.mark.parametrize("path", KINDS)
def test_what_is_no_part_of_an_inventory_is_refused_by_name(reading: Api, path: str, field: str) -> None:
    answer = reading("POST", f"/{path}?dry_run=true", {**NEW[path], field: "enforce"})
    assert answer.status_code == 422
    assert field in answer.json()["detail"]


def test_a_name_is_taken_once(api: Api) -> None:
    made(api, "clients")
    answer = api("POST", "/clients", NEW["clients"])
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/exists")


def test_the_author_is_the_caller(api: Api) -> None:
    api("POST", "/groups?message=because%20of%20%0ACo-authored-by:%20x", NEW["groups"])
    told = controlkit.git(api.repository, "log", "-1", "--format=%an <%ae>|%s|%b|%(trailers)", "main")
    author, subject, body, trailers = told.split("|")
    assert author == "editor <editor@example.net>"
    assert "testers" in subject
    assert "because of" in body
    assert not trailers.strip()


def test_the_client_id_is_shown_and_cannot_be_changed(api: Api) -> None:
    answer = made(api, "clients")
    one = answer.json()["object"]
    assert one["client_id"] == client_id(parse_public_key(one["public_key"]))
    where, match = answer.headers["location"], answer.headers["etag"]
    for member, value in (
        ("client_id", "0" * 32),
        ("client_id", None),
        ("name", "other"),
        ("file", "clients/x.yaml"),
    ):
        for method in ("PUT", "PATCH"):
            answer = api(method, where, {**one, member: value}, match=match)
            assert answer.status_code == 422 or (method == "PATCH" and value is None), answer.text
    # Sent back as it was, with another key: the ID follows the key.
    answer = api("PUT", where, {**one, "public_key": controlkit.KEYS[1], "line": 999}, match=match)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"]["client_id"] == client_id(parse_public_key(controlkit.KEYS[1]))
    assert api("POST", "/clients", {**NEW["clients"], "name": "y", "client_id": "0" * 32}).status_code == 422


def test_a_merge_patch_changes_what_it_names(api: Api) -> None:
    answer = made(api, "groups")
    where = answer.headers["location"]
    answer = api("PATCH", where, {"expires": {"bob-laptop": "2031-01-01"}}, match=answer.headers["etag"])
    assert answer.json()["object"]["expires"] == {"bob-laptop": "2031-01-01"}
    assert answer.json()["object"]["members"] == NEW["groups"]["members"]
    answer = api("PATCH", where, {"expires": None}, match="*")
    assert "expires" not in answer.json()["object"]
    assert api("PATCH", where, {"members": None}, match="*").status_code == 422
    assert api("PATCH", where, {"name": "else"}, match="*").status_code == 422
    assert api("PATCH", where, [], match="*").status_code == 422
    assert api("PATCH", "/groups/nobody", {}, match="*").status_code == 404


def test_a_write_says_what_was_seen(api: Api) -> None:
    seen = api("GET", "/groups/contractors")
    body, old = seen.json(), seen.headers["etag"]
    path = "/groups/contractors"
    for method, sent in (("PUT", body), ("PATCH", {}), ("DELETE", None)):
        assert api(method, path, sent).status_code == 428
        assert api(method, path, sent, match=f'"{"0" * 40}"').status_code == 412
    made(api, "groups")
    for method, sent in (("PUT", body), ("PATCH", {}), ("DELETE", None)):
        answer = api(method, path, sent, match=old)
        assert answer.status_code == 412
        assert answer.json()["type"].endswith("/stale")
    assert api("POST", "/resources", NEW["resources"], match=old).status_code == 412


def test_another_file_may_be_named_inside_the_inventory_only(api: Api) -> None:
    answer = api("POST", "/clients", {**NEW["clients"], "file": "clients/new-team.yaml"})
    assert answer.json()["object"]["file"] == "clients/new-team.yaml"
    assert "zed-laptop" in api.file("clients/new-team.yaml")
    for file in (
        "../x.yaml",
        "/etc/x.yaml",
        "clients/../../x.yaml",
        "clients/x.yml",
        "clients/a/b.yaml",
        "groups/x.yaml",
        "clients/.x.yaml",
        "clients/x\n.yaml",
        "clients/x\0.yaml",
        ".git/config",
        "",
        "clients\\x.yaml",
    ):
        before = api.inventory.head()
        answer = api("POST", "/clients", {**NEW["clients"], "name": "y", "file": file})
        assert answer.status_code in (409, 422), (file, answer.text)
        assert api.inventory.head() == before, file


def test_the_overlay_is_read_and_changed(api: Api) -> None:
    answer = api("GET", "/overlay")
    one = answer.json()
    one["prefixes"].append("10.65.0.0/16")
    answer = api("PUT", "/overlay", one, match=answer.headers["etag"])
    assert answer.status_code == 200, answer.text
    assert api("GET", "/overlay").json()["prefixes"][-1] == "10.65.0.0/16"
    assert api("PATCH", "/overlay", {"prefixes": ["10.1.0.0/16"]}, match="*").status_code == 422
    assert api("DELETE", "/overlay", match="*").status_code == 405
    assert api("POST", "/overlay", one).status_code == 405


def test_a_delete_that_takes_more_is_refused_and_tells_it(api: Api) -> None:
    answer = api("DELETE", "/groups/engineers", match="*")
    assert answer.status_code == 409
    losses = answer.json()["losses"]
    assert losses
    assert all(set(one) == {"where", "message", "widens"} for one in losses)
    answer = api("DELETE", "/groups/engineers?cascade=true", match="*")
    assert answer.status_code == 200
    assert answer.json()["losses"] == losses


def test_comments_stay(api: Api) -> None:
    before = api.file("policies/engineering.yaml")
    one = api("GET", "/policies/eng-reaches-web").json()
    api("PUT", "/policies/eng-reaches-web", {**one, "expires": "2031-06-30"}, match="*")
    after = api.file("policies/engineering.yaml")
    lost = [line for line in before.splitlines() if line not in after.splitlines()]
    assert not [line for line in lost if "#" in line]
    assert "2031-06-30" in after


def test_what_is_known_is_not_sent_again(api: Api) -> None:
    for path in (
        "/clients",
        "/clients/alice-laptop",
        "/overlay",
        "/validate",
        "/access",
        "/compile",
        "/history",
    ):
        answer = api("GET", path)
        tag = answer.headers["etag"]
        again = api("GET", path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), path
        assert api("GET", path, headers={"If-None-Match": f'"{"0" * 40}"'}).status_code == 200, path
    tag = api("GET", "/clients").headers["etag"]
    assert api("GET", "/validate?at=now", headers={"If-None-Match": tag}).status_code == 200
    made(api, "groups")
    assert api("GET", "/clients", headers={"If-None-Match": tag}).status_code == 200


def test_an_inventory_with_errors_is_read_and_mended(tmp_path: Path) -> None:
    files = controlkit.example()
    files["groups/people.yaml"] += "broken: {members: [nobody], surprise: .inf}\n"
    api = Api(controlkit.bare(tmp_path, files))
    assert api("GET", "/status").json()["errors"] > 0
    for path in ("/compile", "/compile.tar", "/access", "/test-run", f"/plan?from={api.inventory.head()}"):
        answer = api("GET", path)
        assert answer.status_code == 409, path
        assert answer.json()["diagnostics"], path
    found = api("GET", "/groups?q=nobody").json()
    assert [(one["name"], one["surprise"]) for one in found["items"]] == [("broken", "inf")]
    assert api("POST", "/groups", NEW["groups"]).status_code == 201
    assert api("DELETE", "/groups/broken?cascade=true", match="*").status_code == 200
    assert api("GET", "/status").json()["errors"] == 0


def test_the_status_names_what_was_published_last(api: Api) -> None:
    assert api("GET", "/status").json()["released"] is None
    head = api.inventory.head()
    controlkit.git(api.repository, "update-ref", "refs/tidegate/published", head)
    assert api("GET", "/status").json()["released"] == head


def test_an_unknown_answer_is_bounded_and_printable(reading: Api) -> None:
    answer = reading("GET", "/clients/" + "a" * 4000)
    assert answer.status_code == 404
    assert len(json.dumps(answer.json())) < 400


def test_a_hundred_diagnostics_are_told_and_all_are_counted(api: Api) -> None:
    many = 2 * problems.MOST
    group = {"name": "many", "members": [f"c{number}" for number in range(many)]}
    refused = api("POST", "/groups?dry_run=true", group)
    assert refused.status_code == 422
    told = refused.json()
    assert (len(told["diagnostics"]), told["diagnostics_total"]) == (problems.MOST, many)
    same = "{from: [group:engineers], to: [resource:web], action: allow}"
    files = {"files": {"policies/many.yaml": "".join(f"p{number}: {same}\n" for number in range(many))}}
    found = api("POST", "/validate", files).json()
    assert len(found["diagnostics"]) == problems.MOST
    assert found["diagnostics_total"] == found["warnings"] >= many
    planned = api("POST", "/plan", files).json()
    assert len(planned["warnings"]) == problems.MOST
    assert planned["warnings_total"] >= many


def test_a_dry_run_tells_a_hundred_new_warnings_and_counts_all(tmp_path: Path) -> None:
    many = 2 * problems.MOST
    policy = "p{0}: {{from: [group:engineers], to: [10.20.9.{0}/32], action: allow, ports: [any]}}\n"
    files = {"policies/many.yaml": "".join(policy.format(number) for number in range(many))}
    api = Api(controlkit.bare(tmp_path, {**controlkit.example(), **files}))
    deny = {
        "name": "none",
        "from": ["all-clients"],
        "to": ["10.20.9.0/24"],
        "action": "deny",
        "ports": ["any"],
    }
    told = api("POST", "/policies?dry_run=true", {**deny, "file": "policies/many.yaml"}).json()
    assert (len(told["warnings"]), told["warnings_total"]) == (problems.MOST, many)


def test_errors_are_told_before_warnings() -> None:
    error, warning = (
        next(code for code, one in CODES.items() if one.severity == of) for of in ("error", "warning")
    )
    many = [Diagnostic(Where("a.yaml", line + 1, 1), warning, "") for line in range(problems.MOST)]
    last = Diagnostic(Where("z.yaml", 1, 1), error, "")
    assert problems.told([*many, last]) == [last, *many[:-1]]
    assert problems.told(many) == many


def test_after_a_commit_a_list_reads_only_the_files_that_it_changed(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert api("GET", "/clients?sort=addresses").status_code == 200
    assert api("PATCH", "/clients/bob-laptop", {"addresses": ["10.64.0.99/32"]}, match="*").status_code == 200
    read: list[str] = []
    real = Objects.__getitem__

    def counted(self: Objects, name: str) -> Any:
        read.append(name)
        return real(self, name)

    monkeypatch.setattr(Objects, "__getitem__", counted)
    found = api("GET", "/clients?sort=addresses&limit=1").json()
    assert {*read} == {"bob-laptop", "frank-laptop", found["items"][0]["name"]}, "the file and the page"
