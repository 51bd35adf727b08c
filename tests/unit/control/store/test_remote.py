"""With a remote its branch is the truth: what it refuses is not written, what others merge there is seen."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from controlkit import ALICE, bare, git
from tidegate_control.git import refs
from tidegate_control.git.process import GitError
from tidegate_control.git.remote import Remote
from tidegate_control.git.repository import Repository
from tidegate_control.inventory.errors import Unavailable
from tidegate_control.inventory.service import Inventory

LAB = {"addresses": ["10.20.9.0/28"], "ports": ["tcp/22"]}


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    return bare(tmp_path)


@pytest.fixture
def local(remote: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "-q", "--bare", "--template=", str(remote), "server.git")
    return tmp_path / "server.git"


def _service(local: Path, remote: Path | str, seconds: float = 30, review: bool = False) -> Inventory:
    return Inventory(Repository(local, remote=str(remote), remote_seconds=seconds, review=review))


def _write(inventory: Inventory, name: str) -> str:
    outcome = inventory.create("resource", name, LAB, author=ALICE, file=f"resources/{name}.yaml")
    assert outcome.commit is not None
    return outcome.commit


def _hook(repository: Path, name: str, body: str) -> Path:
    path = repository / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def _push(tmp_path: Path, repository: Path, name: str) -> str:
    tree = tmp_path / "seed"
    git(tree, "pull", "-q", "--rebase", str(repository), "main")
    (tree / name).write_text("x")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", name)
    git(tree, "push", "-q", str(repository), "HEAD:main")
    return git(tree, "rev-parse", "HEAD")


def test_every_write_is_at_the_remote(local: Path, remote: Path) -> None:
    commit = _write(_service(local, remote), "lab")
    assert git(remote, "rev-parse", "main") == commit == git(local, "rev-parse", "main")


def test_what_was_published_last_is_what_the_remote_says(local: Path, remote: Path, tmp_path: Path) -> None:
    inventory = _service(local, remote)
    assert inventory.released() is None
    first = inventory.head()
    git(remote, "update-ref", "refs/tidegate/published", first)
    inventory.refresh()
    released = inventory.released()
    assert released is not None
    assert (released.entry.commit, released.is_current) == (first, True)
    second = _write(inventory, "lab")
    assert (released := inventory.released()) is not None
    assert not released.is_current
    for published in (second, first):  # an earlier commit may be published again
        git(remote, "update-ref", "refs/tidegate/published", published)
        inventory.refresh()
        assert (released := inventory.released()) is not None
        assert released.entry.commit == published
    assert git(local, "rev-parse", "main") == second


def test_what_others_merge_there_is_built_upon(local: Path, remote: Path, tmp_path: Path) -> None:
    inventory = _service(local, remote)
    theirs = _push(tmp_path, remote, "note")
    commit = _write(inventory, "lab")
    assert git(remote, "rev-parse", "main") == commit
    assert git(remote, "rev-parse", "main^") == theirs
    later = _push(tmp_path, remote, "more")
    assert inventory.head() == commit
    inventory.refresh()
    assert inventory.head() == later


def test_a_refused_push_is_a_refused_write(local: Path, remote: Path) -> None:
    inventory = _service(local, remote)
    head = inventory.head()
    hook = _hook(remote, "pre-receive", 'printf "only by \\033[31mreview\\n"; exit 1')
    with pytest.raises(Unavailable) as refused:
        _write(inventory, "lab")
    assert str(refused.value) == (
        "the remote refused the change: [remote rejected] (pre-receive hook declined) only by ?[31mreview"
    )
    assert inventory.head() == head == git(remote, "rev-parse", "main") == git(local, "rev-parse", "main")
    assert "lab" not in inventory.snapshot().objects("resource")
    hook.unlink()
    _write(inventory, "lab")


def test_a_remote_that_does_not_answer(local: Path, remote: Path) -> None:
    inventory = _service(local, remote, seconds=1)
    head = inventory.head()
    _hook(remote, "pre-receive", "exec sleep 100")
    begin = time.monotonic()
    with pytest.raises(Unavailable, match="longer than 1 s"):
        _write(inventory, "lab")
    assert time.monotonic() - begin < 90  # and not until the hook has slept
    assert inventory.head() == head == git(remote, "rev-parse", "main")


def test_a_remote_that_took_it_and_was_cut_off_is_followed(local: Path, remote: Path, tmp_path: Path) -> None:
    # As after a kill between the push and the move of our own ref.
    inventory = _service(local, remote)
    repository = Repository(local)
    commit = repository.commit(
        repository.head(),
        {"resources/lost.yaml": b"lost: {addresses: [10.20.9.0/28], ports: [any]}\n"},
        ("a", "b"),
        "m",
    )
    Remote(repository.directory, str(remote)).push(commit, "refs/heads/main", repository.head())
    assert git(local, "rev-parse", "main") != commit
    assert git(remote, "rev-parse", f"{_write(inventory, 'lab')}^") == commit
    assert {"lab", "lost"} <= set(inventory.snapshot().objects("resource"))


def test_what_was_pushed_here_goes_there_and_what_diverged_is_said(
    local: Path, remote: Path, tmp_path: Path
) -> None:
    inventory = _service(local, remote)
    here = _push(tmp_path, local, "here")
    inventory.refresh()
    assert git(remote, "rev-parse", "main") == here
    newer = _push(tmp_path, local, "newer")
    git(tmp_path / "seed", "checkout", "-q", "-b", "x", here)
    git(tmp_path / "seed", "commit", "-q", "--allow-empty", "-m", "there")
    git(tmp_path / "seed", "push", "-q", str(remote), "HEAD:main")
    with pytest.raises(Unavailable, match="have diverged; merge"):
        _write(inventory, "lab")
    assert git(local, "rev-parse", "main") == newer


@pytest.mark.parametrize("then", ["nothing", "another"])
@pytest.mark.parametrize("came", ["written", "followed", "brought"])
def test_what_was_taken_back_there_is_not_pushed_again_but_taken_back_here(
    local: Path, remote: Path, tmp_path: Path, came: str, then: str
) -> None:
    inventory = _service(local, remote)
    before = inventory.head()
    if came == "written":
        _write(inventory, "bad")
    else:
        _push(tmp_path, remote if came == "followed" else local, "bad")
        inventory.refresh()
    bad = git(remote, "rev-parse", "main")
    assert bad == inventory.head() != before
    git(remote, "update-ref", "refs/heads/main", before)
    if then == "another":
        git(tmp_path / "seed", "checkout", "-q", "-B", "main", before)
        git(tmp_path / "seed", "commit", "-q", "--allow-empty", "-m", "another")
        git(tmp_path / "seed", "push", "-q", str(remote), "HEAD:main")
    there = git(remote, "rev-parse", "main")
    mend = f"from {bad[:12]} to {there[:12]}.*git update-ref refs/heads/main {there[:12]}"
    for act in (inventory.refresh, lambda: _write(inventory, "lab"), inventory.refresh):
        with pytest.raises(Unavailable, match=mend):
            act()
    assert git(remote, "rev-parse", "main") == there
    git(local, "update-ref", "refs/heads/main", there[:12])
    inventory.refresh()
    assert git(remote, "rev-parse", f"{_write(inventory, 'lab')}^") == there


def test_remotes_that_are_none(local: Path, tmp_path: Path) -> None:
    for name in ("", "-x", "--upload-pack=x", "a\nb"):
        with pytest.raises(GitError, match="a name or a URL"):
            Repository(local, remote=name)
    with pytest.raises(Unavailable, match="the remote refused the change"):
        _write(_service(local, tmp_path / "nowhere"), "lab")
    with pytest.raises(Unavailable, match="cannot be read"):
        _service(local, tmp_path / "nowhere").refresh()


@pytest.mark.parametrize("at", ["remote", "here"])
def test_a_branch_for_each_change(local: Path, remote: Path, at: str, tmp_path: Path) -> None:
    inventory = (
        _service(local, remote, review=True) if at == "remote" else Inventory(Repository(local, review=True))
    )
    head = _push(tmp_path, remote if at == "remote" else local, "newer")
    outcome = inventory.create("resource", "lab", LAB, author=ALICE, file="resources/lab.yaml")
    assert outcome.commit is not None
    assert outcome.branch == f"tidegate/alice-admin/{outcome.commit[:10]}"
    assert outcome.revision == head == inventory.head()
    where = remote if at == "remote" else local
    assert git(where, "rev-parse", f"refs/heads/{outcome.branch}") == outcome.commit
    assert git(where, "rev-parse", "main") == head == git(where, "rev-parse", f"{outcome.commit}^")
    assert "lab" in outcome.snapshot.objects("resource")
    assert "lab" not in inventory.snapshot().objects("resource")


@pytest.mark.parametrize("before", ["a", "z"])
def test_a_branch_whose_name_ends_like_ours_is_not_ours(local: Path, remote: Path, before: str) -> None:
    inventory = _service(local, remote, review=True)
    head = inventory.head()
    proposed = inventory.create("resource", "lab", LAB, author=ALICE, file="resources/lab.yaml").commit
    # An editor who may push branches, but not to main; the server has the commit already.
    git(remote, "update-ref", f"refs/heads/{before}/refs/heads/main", str(proposed))
    inventory.refresh()
    assert inventory.head() == head
    git(remote, "update-ref", "-d", "refs/heads/main")
    with pytest.raises(Unavailable, match="no branch main"):
        inventory.refresh()
    assert inventory.head() == head


def test_with_review_what_was_taken_back_there_is_not_pushed_again(
    local: Path, remote: Path, tmp_path: Path
) -> None:
    inventory = _service(local, remote, review=True)
    before = inventory.head()
    bad = _push(tmp_path, remote, "bad")
    inventory.refresh()
    assert inventory.head() == bad
    git(remote, "update-ref", "refs/heads/main", before)
    with pytest.raises(Unavailable, match="was taken back at the remote"):
        inventory.refresh()
    assert git(remote, "rev-parse", "main") == before


def test_a_branch_may_be_called_after_one_that_is_gone(local: Path, remote: Path) -> None:
    _service(local, remote).refresh()  # notes where main is
    for repository in (remote, local):
        git(repository, "update-ref", "refs/heads/new", "refs/heads/main")
        git(repository, "symbolic-ref", "HEAD", "refs/heads/new")
        git(repository, "update-ref", "-d", "refs/heads/main")
        git(repository, "update-ref", "refs/heads/main/next", "refs/heads/new")
    inventory = Inventory(Repository(local, branch="main/next", remote=str(remote)))
    inventory.refresh()
    commit = _write(inventory, "lab")
    assert git(remote, "rev-parse", "main/next") == commit == inventory.head()


def test_names_of_branches_are_told_apart_in_what_is_noted(local: Path, remote: Path) -> None:
    for branch in ("a/b", "a%2Fb", "a%252Fb"):
        for repository in (remote, local):
            git(repository, "update-ref", f"refs/heads/{branch}", "refs/heads/main")
        _write(Inventory(Repository(local, branch=branch, remote=str(remote))), "lab")
    assert len(git(local, "for-each-ref", "refs/tidegate/remote").splitlines()) == 3


def test_a_write_that_the_remote_has_is_told_so_where_it_cannot_be_noted(
    local: Path, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refs, "WAIT_SECONDS", 0.2)
    inventory = _service(local, remote)
    inventory.refresh()
    lock = local / "refs" / "tidegate" / "remote" / "main.lock"
    lock.touch()
    with pytest.raises(Unavailable, match=r"the remote has the change, but .* remove main\.lock beside it"):
        _write(inventory, "lab")
    lock.unlink()
    inventory.refresh()
    commit = git(remote, "rev-parse", "main")
    assert commit == inventory.head() == git(local, "rev-parse", "refs/tidegate/remote/main")
    assert "lab" in inventory.snapshot().objects("resource")
