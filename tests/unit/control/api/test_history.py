"""The history, what a commit changed, undoing it, and handing it over."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from pathlib import Path

import pytest

import controlkit
from apikit import Api
from apisamples import NEW
from tidegate_control.api import handover
from tidegate_control.git.repository import Repository
from tidegate_control.inventory.service import Inventory


def test_commits_are_listed_and_undone(api: Api) -> None:
    began = api.inventory.head()
    made = api("POST", "/groups", NEW["groups"]).json()["commit"]
    api("POST", "/resources", NEW["resources"])
    told = api("GET", "/history?limit=2").json()
    assert [one["subject"].split(":")[0] for one in told["items"]] == ["resource lab", "group testers"]
    assert told["items"][0]["author"] == {"name": "editor", "email": "editor@example.net"}
    assert api("GET", f"/history?before={told['next']}").json()["items"][0]["commit"] == began
    of_group = api("GET", "/history?kind=groups&name=testers").json()["items"]
    assert [one["commit"] for one in of_group] == [made]
    one = api("GET", f"/history/{made}").json()
    assert any(line.startswith("+testers") for line in one.pop("diff"))
    assert [one] == of_group

    assert api("POST", f"/history/{made}/revert").status_code == 428
    told = api("POST", f"/history/{made}/revert?dry_run=true").json()
    assert told["commit"] is None
    assert told["plan"]["objects"][0]["change"] == "removed"
    answer = api("POST", f"/history/{made}/revert", match=f'"{api.inventory.head()}"')
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"].endswith(answer.json()["commit"])
    assert api("GET", "/groups/testers").status_code == 404
    assert api("GET", "/resources/lab").status_code == 200
    for commit, status in (("0" * 40, 404), ("HEAD", 404), (made[:12], 404)):
        assert api("POST", f"/history/{commit}/revert", match="*").status_code == status
        assert api("GET", f"/history/{commit}").status_code == status


def test_a_commit_is_planned_against_another(api: Api) -> None:
    began = api.inventory.head()
    made = api("POST", "/policies", NEW["policies"]).json()["commit"]
    api("POST", "/resources", NEW["resources"])
    plan = api("GET", f"/plan?from={began}&to={made}").json()["plan"]
    assert [one["name"] for one in plan["objects"]] == ["alice-in-lab"]
    assert len(api("GET", f"/plan?from={began}").json()["plan"]["objects"]) == 2
    assert api("GET", f"/plan?from={made}&to={made}").json()["plan"]["changes"] is False


def _aside(api: Api, subject: str = "Aside") -> str:
    """Commit the branch's tree on a branch that is not served; return the commit's ID."""
    git = controlkit.git
    commit = git(api.repository, "commit-tree", "main^{tree}", "-p", "main", "-m", subject)
    git(api.repository, "update-ref", "refs/heads/elsewhere", commit)
    return commit


def test_a_commit_of_another_branch_is_none_here(api: Api) -> None:
    began, aside = api.inventory.head(), _aside(api)
    asked = [
        ("GET", f"/history/{aside}"),
        ("GET", f"/history?before={aside}"),
        ("POST", f"/history/{aside}/revert?dry_run=true"),
        ("GET", f"/plan?from={aside}"),
        ("GET", f"/plan?from={began}&to={aside}"),
        ("GET", f"/replay?commit={aside}"),
        ("GET", f"/replay?against={aside}"),
        ("GET", f"/readiness?commit={aside}"),
        ("GET", f"/suggest?commit={aside}"),
    ]
    for method, path in asked:
        answer = api(method, path, match="*" if method == "POST" else None)
        assert answer.status_code == 404, path
        nowhere = api(method, path.replace(aside, "0" * 40), match="*" if method == "POST" else None)
        said = answer.json()["detail"].replace(aside, "0" * 40)
        assert said == nowhere.json()["detail"], "one that is hidden looks like one that is not there"
    for path in (f"/history/{aside}", f"/history?before={aside}", f"/history/{aside}/revert"):
        assert api.page(path).status_code == 404, path
    assert "Aside" not in api.page(f"/clients?saved={aside}").text


def test_a_commit_is_read_once_it_is_merged_and_hidden_once_it_is_taken_back(api: Api) -> None:
    began, aside = api.inventory.head(), _aside(api)
    assert api("GET", f"/history/{aside}").status_code == 404
    merged = controlkit.git(
        api.repository, "commit-tree", "main^{tree}", "-p", "main", "-p", aside, "-m", "Merge"
    )
    controlkit.git(api.repository, "update-ref", "refs/heads/main", merged)
    assert api("GET", f"/history/{aside}").status_code == 200
    assert api("GET", f"/history/{began}").status_code == 200
    controlkit.git(api.repository, "update-ref", "refs/heads/main", began)
    assert api("GET", f"/history/{aside}").status_code == 404


def test_git_is_asked_once_whether_the_branch_has_a_commit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    began = api.inventory.head()
    api("POST", "/groups", NEW["groups"])
    asked: list[str] = []
    has = Repository._has

    def counted(self: Repository, commit: str, tip: str) -> bool:
        asked.append(commit)
        return has(self, commit, tip)

    monkeypatch.setattr(Repository, "_has", counted)
    for _ in range(3):
        assert api("GET", f"/history/{began}").status_code == 200
        assert api("GET", f"/history/{api.inventory.head()}").status_code == 200
    assert asked == [began]


def test_what_was_published_is_shown_whichever_branch_it_is_of(api: Api) -> None:
    controlkit.git(api.repository, "update-ref", "refs/tidegate/published", _aside(api, "A hotfix"))
    assert "A hotfix" in api.page("/").text


def test_an_undoing_that_waits_for_review_has_no_address(tmp_path: Path) -> None:
    place = controlkit.bare(tmp_path)
    members = {"members": ["alice-laptop"]}
    made = controlkit.service(place).create("group", "testers", members, author=controlkit.ALICE).commit
    waiting = Api(place, inventory=Inventory(Repository(place, review=True)))
    answer = waiting("POST", f"/history/{made}/revert", match="*")
    assert answer.status_code == 201
    assert answer.json()["branch"].startswith("tidegate/editor/")
    assert "location" not in answer.headers
    assert waiting("GET", f"/history/{answer.json()['commit']}").status_code == 404


def test_a_commit_is_called_by_its_whole_name(reading: Api) -> None:
    head = reading.inventory.head()
    assert reading("GET", f"/history/{head}").status_code == 200
    for name in (head[:12], "main", "HEAD", f"{head}^", head.upper()):
        assert reading("GET", f"/history/{name}").status_code == 404


def publish(api: Api, commit: str | None = None, scope: str = "publisher") -> tuple[int, dict[str, object]]:
    answer = api("POST", "/publish", {"commit": commit or api.inventory.head()}, scope=scope)
    return answer.status_code, answer.json()


def served(place: Path, **settings: object) -> Api:
    return Api(controlkit.bare(place), **settings)


def test_nobody_to_hand_over_to(reading: Api) -> None:
    assert publish(reading)[0] == 409


def test_a_request_in_a_directory(tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    requests.mkdir()
    api = served(tmp_path / "fleet", publish_directory=requests)
    for _ in range(2):
        status, told = publish(api)
        assert (status, told["handed_to"]) == (202, "directory")
    (file,) = requests.iterdir()
    assert file.name == told["file"] == f"{api.inventory.head()}.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    request = json.loads(file.read_bytes())
    assert request["commit"] == api.inventory.head()
    assert request["by"] == {"name": "publisher", "email": "publisher@example.net"}
    # A link in the way is replaced, not followed.
    target = tmp_path / "target"
    target.write_text("mine")
    file.unlink()
    file.symlink_to(target)
    assert publish(api)[0] == 202
    assert target.read_text() == "mine"
    assert not file.is_symlink()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    api = served(tmp_path, publish_directory=tmp_path / "missing")
    status, told = publish(api)
    assert status == 503
    assert "publish directory" in str(told["detail"])


def test_only_the_tip_is_published(tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    requests.mkdir()
    api = served(tmp_path / "fleet", publish_directory=requests)
    old = api.inventory.head()
    api("POST", "/groups", NEW["groups"])
    assert publish(api, old)[0] == 412
    assert api("POST", "/publish", {}, scope="publisher").status_code == 422
    assert api("POST", "/publish", {"commit": old, "force": True}, scope="publisher").status_code == 422
    assert not list(requests.iterdir())


def test_what_was_taken_back_at_the_remote_is_not_published(tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    requests.mkdir()
    remote = tmp_path / "remote.git"
    repository = controlkit.bare(tmp_path / "fleet")
    controlkit.git(tmp_path, "clone", "-q", "--bare", str(repository), str(remote))
    followed = controlkit.service(repository, remote=str(remote))
    api = Api(repository, followed, publish_directory=requests)
    before = api.inventory.head()
    assert api("POST", "/groups", NEW["groups"]).status_code == 201
    controlkit.git(remote, "update-ref", "refs/heads/main", before)
    status, told = publish(api)
    assert (status, list(requests.iterdir())) == (503, [])
    assert "taken back at the remote" in str(told["detail"])
    controlkit.git(api.repository, "update-ref", "refs/heads/main", before)
    assert publish(api)[0] == 202


def test_an_inventory_with_errors_is_not_published(tmp_path: Path) -> None:
    files = controlkit.example()
    files["groups/people.yaml"] += "broken: {members: [nobody]}\n"
    requests = tmp_path / "requests"
    requests.mkdir()
    api = Api(controlkit.bare(tmp_path / "fleet", files), publish_directory=requests)
    assert publish(api)[0] == 409
    assert not list(requests.iterdir())


REPORT = """
import json, os, sys
given = json.load(sys.stdin)
told = {"given": given, "environment": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv[1:]}
json.dump(told, open(sys.argv[1], "w"))
"""


def test_a_command_gets_the_request_and_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of the server's")
    out = tmp_path / "out.json"
    words = ("$(touch /tmp/x)", "; exit 3", "`id`", "*")
    api = served(tmp_path / "fleet", publish_command=(sys.executable, "-c", REPORT, str(out), *words))
    assert publish(api) == (200, {"commit": api.inventory.head(), "handed_to": "command", "file": None})
    told = json.loads(out.read_text())
    assert told["given"]["commit"] == told["environment"]["TIDEGATE_COMMIT"] == api.inventory.head()
    assert tuple(told["argv"][1:]) == words
    assert told["cwd"] == "/"
    assert set(told["environment"]) <= {"PATH", "HOME", "LANG", "TZ", "TIDEGATE_COMMIT", "LC_CTYPE"}


def test_a_command_that_fails_is_told_without_what_it_said(tmp_path: Path) -> None:
    api = served(tmp_path, publish_command=("sh", "-c", "echo a-secret; echo a-secret >&2; exit 3"))
    status, told = publish(api)
    assert status == 502
    assert "status 3" in str(told["detail"])
    assert "a-secret" not in json.dumps(told)
    api = served(tmp_path / "b", publish_command=(str(tmp_path / "no-such-command"),))
    assert publish(api)[0] == 502


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = ("sh", "-c", f"sleep 1000 & echo $! $$ > {pids}; wait")
    request = handover.Request("a" * 40, "main", "n", "n@example.net", 0)
    with pytest.raises(handover.HandoverError, match="longer than") as raised:
        handover.run(command, request, seconds=1)
    assert raised.value.status == 504
    for pid in map(int, pids.read_text().split()):
        assert _has_ended(pid)
    handover.run(("true",), request)


def _has_ended(pid: int) -> bool:
    """Wait until a process is gone, or a corpse that nobody has buried yet."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        os.sched_yield()
        time.sleep(0.02)
    return False


def test_one_command_at_a_time() -> None:
    request = handover.Request("a" * 40, "main", "n", "n@example.net", 0)
    with handover._TURN, pytest.raises(handover.HandoverError) as raised:
        handover.run(("true",), request)
    assert raised.value.status == 409
    handover.run(("true",), request)


def test_a_ref_that_is_called_like_a_commit_is_not_it(api: Api) -> None:
    began = api.inventory.head()
    api("POST", "/groups", NEW["groups"])
    later = api.inventory.head()
    short, long = began[:12], "0" * 63 + "1"
    assert api.inventory.entry(short).commit == began
    for name in (short, long):
        controlkit.git(api.repository, "update-ref", f"refs/tags/{name}", later)
        assert api.page(f"/history/{name}").status_code == 404
        assert api.page(f"/history/{name}/revert").status_code == 404
    for path in (f"/history/{long}", f"/plan?from={long}"):
        assert api("GET", path).status_code == 404
    assert api("GET", f"/history/{began}").json()["commit"] == began
