"""Validate, explain, access, test-run, plan, compile: the answers are those of the commands on the same inventory."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import controlkit
from apikit import Api
from apisamples import NEW
from tidegate_schema import validation

PREFIXES = ["10.64.0.0/16", "fd64::/48", "10.65.0.0/16"]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def tree(reading: Api, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same inventory as files."""
    place = tmp_path_factory.mktemp("tree")
    for path, text in controlkit.example().items():
        (place / "inventory" / path).parent.mkdir(parents=True, exist_ok=True)
        (place / "inventory" / path).write_text(text)
    return place


@pytest.mark.parametrize(
    ("client", "destination", "port", "at"),
    [
        ("alice-laptop", "10.20.0.80", "tcp/8080", "2030-01-01"),
        ("bob-laptop", "10.20.5.3", "tcp/5432", "2030-01-01"),
        ("frank-laptop", "fd20::22", "tcp/22", "2031-02-01T00:00Z"),
        ("alice-laptop", "192.0.2.1", "icmp", "2030-01-01"),
    ],
)
def test_explain_says_what_the_command_says(
    reading: Api, tree: Path, tidegate: Command, client: str, destination: str, port: str, at: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tree)
    _, out, _ = tidegate("explain", "inventory", client, destination, port, "--at", at, "--json")
    answer = reading("GET", f"/explain?client={client}&destination={destination}&port={port}&at={at}")
    told = answer.json()
    del told["commit"]
    assert told == json.loads(out)


@pytest.mark.parametrize("at", ["", "2030-01-01", "2031-06-30T12:00Z"])
def test_access_says_what_the_command_says(
    reading: Api, tree: Path, tidegate: Command, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    options = ["--at", at] if at else []
    _, out, _ = tidegate(
        "access", "inventory", "--json", "--client", "alice-laptop", "--client", "ops-desk", *options
    )
    if not out:
        _, out, _ = tidegate("access", "inventory", "--json", "--client", "alice-laptop", *options)
        query = "client=alice-laptop"
    else:
        query = "client=alice-laptop&client=ops-desk"
    told = reading("GET", f"/access?{query}" + (f"&at={at}" if at else "")).json()
    assert told == json.loads(out)
    assert not validation.errors("access", told)


def test_tests_are_run_as_the_command_runs_them(
    reading: Api, tree: Path, tidegate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    _, out, _ = tidegate("test", "inventory", "--json", "--at", "2030-01-01")
    told = reading("GET", "/test-run?at=2030-01-01").json()
    del told["commit"]
    assert told == json.loads(out)


def test_the_archive_is_what_compile_writes(
    reading: Api, tree: Path, tidegate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    assert tidegate("compile", "inventory", "--out", "out")[0] == 0
    written = {
        str(path.relative_to("out")): path.read_bytes() for path in Path("out").rglob("*") if path.is_file()
    }
    answer = reading("GET", "/compile.tar")
    assert answer.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        members = archive.getmembers()
        found = {one.name: archive.extractfile(one).read() for one in members}  # type: ignore[union-attr]
    assert found == {path: data for path, data in written.items() if not path.startswith(".")}
    assert all(one.isreg() and one.mode == 0o600 and ".." not in one.name for one in members)
    assert reading("GET", "/compile.tar").content == answer.content


def test_no_answer_has_a_private_key(reading: Api) -> None:
    with tarfile.open(fileobj=io.BytesIO(reading("GET", "/compile.tar").content)) as archive:
        for member in archive.getmembers():
            data = archive.extractfile(member).read()  # type: ignore[union-attr]
            assert b"PrivateKey" not in data
            assert b"PresharedKey" not in data


def test_hosts_are_listed_page_by_page(reading: Api) -> None:
    met, path = [], "/compile?limit=3"
    while path:
        answer = reading("GET", path).json()
        met += answer["items"]
        path = answer["next"]
    assert len(met) == answer["total"]
    assert [(one["kind"], one["host"]) for one in met] == sorted((one["kind"], one["host"]) for one in met)
    for one in (met[0], met[-1]):
        files = reading("GET", f"/compile/{one['kind']}/{one['host']}").json()["files"]
        assert [
            {"file": name, "sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text.encode())}
            for name, text in sorted(files.items())
        ] == one["files"]
    gateways = reading("GET", "/compile?kind=gateway").json()
    assert {one["kind"] for one in gateways["items"]} == {"gateway"}
    assert reading("GET", "/compile/gateway/alice-laptop").status_code == 404
    assert reading("GET", "/compile/host/alice-laptop").status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/explain", 400, "'client': is missing"),
        ("/explain?client=nobody&destination=10.20.0.80&port=icmp", 404, "no client 'nobody'"),
        ("/explain?client=alice-laptop&destination=web.example&port=icmp", 400, "'destination'"),
        ("/explain?client=alice-laptop&destination=10.20.0.80&port=tcp", 400, "'port'"),
        ("/explain?client=alice-laptop&destination=10.20.0.80&port=tcp/70000", 400, "'port'"),
        ("/explain?client=alice-laptop&destination=10.20.0.80&port=icmp&at=2031-02-30", 400, "'at'"),
        ("/explain?client=alice-laptop&destination=10.20.0.80&port=icmp&at=soon", 400, "'at'"),
        ("/access?client=nobody", 404, "no client"),
        ("/access?resource=nowhere", 404, "no resource"),
        ("/access?at=1969-01-01", 400, "years start"),
        ("/plan?from=HEAD", 400, "'from'"),
        (f"/plan?from={'0' * 40}", 404, "no commit"),
        ("/history?kind=clients", 400, "both, or neither"),
        ("/history?limit=501", 400, "1 to 500"),
        (f"/history?before={'0' * 40}", 404, "no commit"),
        ("/clients?sort=size", 400, "is one of"),
        ("/clients?cursor=x", 400, "take the cursor"),
        ("/clients?limt=5", 400, "did you mean 'limit'"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("/") else "",
)  # fmt: skip
def test_a_question_without_meaning(reading: Api, path: str, status: int, why: str) -> None:
    answer = reading("GET", path)
    assert answer.status_code == status, answer.text
    assert why in answer.json()["detail"]


def test_a_plan_of_edits(reading: Api) -> None:
    head = reading.inventory.head()
    answer = reading("POST", "/plan", {"edits": [
        {"op": "create", "kind": "resources", "object": NEW["resources"]},
        {"op": "create", "kind": "policies", "object": NEW["policies"] | {"to": ["resource:lab"]}},
        {"op": "replace", "kind": "overlay", "object": {"fleet": "example", "prefixes": PREFIXES}},
        {"op": "delete", "kind": "tests", "name": reading("GET", "/tests?limit=1").json()["items"][0]["name"]},
    ]})  # fmt: skip
    assert answer.status_code == 200, answer.text
    plan = answer.json()["plan"]
    assert not validation.errors("plan", plan)
    assert [one["policy"]["name"] for one in plan["access"]["gained"]] == ["alice-in-lab"]
    assert {(one["kind"], one["name"], one["change"]) for one in plan["objects"]} >= {
        ("resource", "lab", "added"), ("policy", "alice-in-lab", "added")
    }  # fmt: skip
    assert reading.inventory.head() == head


def test_a_plan_of_files_and_its_diagnostics(reading: Api) -> None:
    text = "alice-in-lab: {from: [client:alice-laptop], to: [10.20.9.0/24], action: allow, ports: [tcp/80]}\n"
    answer = reading("POST", "/plan", {"files": {"policies/lab.yaml": text, "tests/operations.yaml": None}})
    assert [one["policy"]["file"] for one in answer.json()["plan"]["access"]["gained"]] == [
        "inventory/policies/lab.yaml"
    ]
    broken = {"files": {"policies/lab.yaml": text.replace("alice-laptop", "nobody")}}
    answer = reading("POST", "/plan", broken)
    assert answer.status_code == 422
    assert [one["where"] for one in answer.json()["diagnostics"]] == ["policies/lab.yaml:1:23"]
    answer = reading("POST", "/validate", broken)
    assert (answer.status_code, answer.json()["errors"]) == (200, 1)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"edits": [{"op": "drop", "kind": "clients"}]},
        {"edits": [{"op": "create", "kind": "clients"}]},
        {"edits": [{"op": "create", "kind": "hosts", "object": {}}]},
        {"edits": [{"op": "delete", "kind": "overlay", "name": "overlay"}]},
        {"edits": [{"op": "create", "kind": "overlay", "object": {}}]},
        {"edits": [{"op": "replace", "kind": "clients", "object": {}, "name": "alice-laptop"}]},
        {"edits": [{}] * 101},
        {"files": {"../x.yaml": ""}},
        {"files": {"overlay.yaml/../x.yaml": ""}},
        {"files": {"/etc/passwd": ""}},
        {"files": {"hosts/x.yaml": ""}},
        {"files": {"clients/.x.yaml": ""}},
        {"files": {"clients/x.yaml": 7}},
        {"files": {"clients/a/x.yaml": ""}},
        {"files": {"clients/x\n.yaml": ""}},
        {"files": {"clients/x.yml": ""}},
        {"edits": [], "more": 1},
        [],
        None,
    ],
    ids=lambda body: json.dumps(body)[:50],
)
def test_a_proposal_of_the_wrong_shape(reading: Api, body: object) -> None:
    for path in ("/plan", "/validate"):
        answer = reading("POST", path, raw=json.dumps(body).encode())
        assert answer.status_code == 422, (path, answer.text)


def test_a_proposal_that_cannot_be_made(reading: Api) -> None:
    for edit, status in (
        ({"op": "delete", "kind": "clients", "name": "nobody"}, 404),
        ({"op": "replace", "kind": "groups", "object": {"members": ["bob-laptop"]}}, 404),
        ({"op": "delete", "kind": "groups", "name": "engineers"}, 409),
        ({"op": "create", "kind": "groups", "object": {"name": "engineers", "members": ["bob-laptop"]}}, 409),
    ):
        assert reading("POST", "/plan", {"edits": [edit]}).status_code == status, edit


def test_lists_are_filtered_sorted_and_linked(reading: Api) -> None:
    answer = reading("GET", "/clients?gateways=nyc1&sort=-name&limit=1")
    told = answer.json()
    assert answer.headers["total-count"] == str(told["total"])
    assert f'<{told["next"]}>; rel="next"' in answer.headers["link"]
    following = reading("GET", told["next"]).json()
    assert following["items"][0]["name"] < told["items"][0]["name"]
    assert all("nyc1" in one["gateways"] for one in [*told["items"], *following["items"]])
    assert reading("GET", "/policies?q=PROD-DB&action=allow").json()["total"] >= 1
    assert reading("GET", "/clients?q=%00").json()["items"] == []
