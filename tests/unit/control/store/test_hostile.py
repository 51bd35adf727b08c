"""Whatever a caller sends, the repository stays whole: refused by name, or written as the text that it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlkit import ALICE, KEYS, bare, example, git, service
from tidegate_compiler.times import format_instant
from tidegate_control.git.process import GitError
from tidegate_control.git.repository import Repository
from tidegate_control.inventory import past
from tidegate_control.inventory.errors import Invalid, InventoryError, Refused, Unavailable
from tidegate_control.inventory.model import Author
from tidegate_control.inventory.secrets import HIDDEN
from tidegate_control.inventory.service import DIFF_MAX_BYTES, Inventory

CLIENT: dict[str, Any] = {"public_key": KEYS[0], "addresses": ["10.64.0.99/32"], "gateways": ["fra1"]}
DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return bare(tmp_path)


@pytest.fixture
def inventory(repository: Path) -> Inventory:
    return service(repository)


VALUES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a number": ({**CLIENT, "addresses": 5}, ["TG014"]),
    "null": ({**CLIENT, "gateways": None}, ["TG014"]),
    "nested": ({**CLIENT, "addresses": [["10.64.0.99/32"]]}, ["TG014"]),
    "a truth": ({**CLIENT, "public_key": True}, ["TG014"]),
    "a field that is none": ({**CLIENT, "shell": "x"}, ["TG011"]),
    "a field with a line break": ({**CLIENT, "a\nb: {c": "x"}, ["TG011"]),
    "a private key": ({**CLIENT, "private_key": KEYS[1]}, ["TG013"]),
    "a local setting": ({**CLIENT, "authz_mode": "observe"}, ["TG013"]),
    "YAML in a value": ({**CLIENT, "addresses": ["10.64.0.99/32]\nevil: {a: ["]}, ["TG022"]),
    "an anchor in a value": ({**CLIENT, "gateways": ["&x fra1"]}, ["TG017"]),
    "nothing": ({}, ["TG012"]),
    "an empty list": ({**CLIENT, "addresses": []}, ["TG015"]),
    "not JSON": ({**CLIENT, "addresses": [float("nan")]}, []),
    "too deep": ({**CLIENT, "addresses": DEEP}, []),
}


@pytest.mark.parametrize("name", list(VALUES))
@pytest.mark.parametrize("verb", ["create", "update"])
def test_values(inventory: Inventory, name: str, verb: str) -> None:
    fields, codes = VALUES[name]
    head = inventory.head()
    write = inventory.create if verb == "create" else inventory.update
    with pytest.raises(Invalid) as invalid:
        write("client", "zoe" if verb == "create" else "alice-laptop", fields, author=ALICE)
    assert set(codes) <= {d.code for d in invalid.value.diagnostics}
    told = [str(invalid.value), *(f"{d.where} {d.message}" for d in invalid.value.diagnostics)]
    assert all(line.isprintable() and KEYS[1] not in line for line in told)
    assert inventory.head() == head


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "A", "a\n", "a b", "-x", "a" * 64, "é", "a\0b"])
def test_names(inventory: Inventory, name: str) -> None:
    for kind in ("client", "policy"):
        with pytest.raises(Invalid):
            inventory.create(kind, name, CLIENT, author=ALICE)


@pytest.mark.parametrize(
    "file",
    ["../clients/x.yaml", "clients/../../x.yaml", "/etc/x.yaml", "clients/.x.yaml", "clients/x.yml", "groups/x.yaml",
     "clients/a/b.yaml", "clients/.git/x.yaml", "clients/a\nb.yaml", ".yaml", ""],
    ids=str,
)  # fmt: skip
def test_files(inventory: Inventory, file: str) -> None:
    with pytest.raises(Refused):
        inventory.create("client", "zoe", CLIENT, author=ALICE, file=file)


@pytest.mark.parametrize("kind", ["clients", "", "..", "overlay\n", "Client"])
def test_kinds(inventory: Inventory, kind: str) -> None:
    with pytest.raises(InventoryError):
        inventory.create(kind, "x", CLIENT, author=ALICE)
    with pytest.raises(InventoryError):
        inventory.delete(kind, "x", author=ALICE)


AUTHORS = {
    "line breaks": Author("Eve\nparent 123\ncommitter x", "e@x\n\nmessage"),
    "angles": Author("Eve <root@x> ", "<a@b> <c>"),
    "nothing": Author("", ""),
    "what git strips": Author(" .,:;<>\"'\\ ", "<>"),
    "controls": Author("E\x1b[31mve\x00", "e\x00@x"),
    "a surrogate": Author("E\udcffve", "e\udcff@x"),
    "long": Author("e" * 10_000, "e" * 10_000),
}


@pytest.mark.parametrize("name", list(AUTHORS))
def test_authors_and_messages(inventory: Inventory, repository: Path, name: str) -> None:
    before = inventory.head()
    outcome = inventory.create(
        "client",
        "zoe",
        CLIENT,
        author=AUTHORS[name],
        message="why\r\nSigned-off-by: root <r@x>\n\x1b[2J\udcff\0",
    )
    assert outcome.commit is not None
    raw = git(repository, "cat-file", "commit", outcome.commit)
    heads, _, text = raw.partition("\n\n")
    assert [line.split(" ")[0] for line in heads.splitlines()] == ["tree", "parent", "author", "committer"]
    assert heads.splitlines()[1] == f"parent {before}"
    assert heads.splitlines()[3].startswith("committer tidegate control <")
    assert text.splitlines()[0] == "client zoe: add"
    assert "\x1b" not in raw
    assert git(repository, "log", "-1", "--format=%(trailers)", outcome.commit) == ""
    entry = inventory.history(limit=1)[0]
    assert (entry.name + entry.email + entry.subject).isprintable()
    git(repository, "fsck", "--strict", "--no-dangling")


@pytest.mark.parametrize(
    "commit", ["", "HEAD", "main", "main~1", "-1", "--all", ":/x", "0" * 40, "g" * 40, "a\nb", "ab"]
)
def test_commits_are_named_by_their_ids_alone(inventory: Inventory, commit: str) -> None:
    for ask in (inventory.snapshot, inventory.diff, lambda c: inventory.history(before=c)):
        with pytest.raises(InventoryError):
            ask(commit)
    with pytest.raises(InventoryError):
        inventory.revert(commit, author=ALICE)
    with pytest.raises(InventoryError):
        inventory.create("client", "zoe", CLIENT, author=ALICE, expected=commit or "x")


def test_a_link_or_a_submodule_in_the_way_is_never_written_through(tmp_path: Path) -> None:
    tree = tmp_path / "seed"
    repository = bare(
        tmp_path, {path: text for path, text in example().items() if not path.startswith("groups/")}
    )
    (tree / "inventory" / "groups").symlink_to("../../outside")
    (tree / "inventory" / "clients" / "zoe.yaml").symlink_to("/etc/passwd")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "Links")
    git(tree, "push", "-q", str(repository), "main")
    inventory = service(repository)
    assert {d.code for d in inventory.snapshot().checked.diagnostics} >= {"TG002"}
    with pytest.raises(Refused):
        inventory.create("group", "all", {"members": ["alice-laptop"]}, author=ALICE, file="groups/x.yaml")
    inside = Repository(repository)
    with pytest.raises(Exception, match="a symbolic link stands there"):
        inside.commit(inside.head(), {"groups/x.yaml": b"x"}, ("a", "b"), "m")
    with pytest.raises(Exception, match="a symbolic link stands there"):
        inside.commit(inside.head(), {"clients/zoe.yaml": b"x"}, ("a", "b"), "m")
    for path in ("../x", "a/../b", "/x", ".git/config", "a/.GIT/x"):
        with pytest.raises(Exception, match="no path for a file"):
            inside.commit(inside.head(), {path: b"x"}, ("a", "b"), "m")


def test_hooks_and_filters_of_the_repository_are_not_run(
    repository: Path, inventory: Inventory, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    for hook in ("reference-transaction", "pre-push", "post-commit", "pre-commit", "update"):
        path = repository / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {told}\nexit 1\n")
        path.chmod(0o755)
    git(repository, "config", "filter.x.clean", f"touch {told}")
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info" / "attributes").write_text("* filter=x diff=x\n")
    git(repository, "config", "diff.x.textconv", f"touch {told}")
    outcome = inventory.create("client", "zoe", CLIENT, author=ALICE)
    assert outcome.commit is not None
    inventory.diff(outcome.commit)
    assert not told.exists()


def test_a_broken_inventory_may_be_mended_but_not_guessed_at(tmp_path: Path) -> None:
    files = example()
    broken = {**files, "groups/lost.yaml": "lost: {members: [nobody-here]}\n"}
    inventory = service(bare(tmp_path / "one", broken))
    assert inventory.snapshot().compiled is None
    inventory.create("client", "zoe", CLIENT, author=ALICE)  # brings no new error
    outcome = inventory.update("group", "lost", {"members": ["zoe"]}, author=ALICE)
    assert outcome.snapshot.compiled is not None
    unknown = {**files, "groups/odd.yaml": "odd: &x {members: [alice-laptop]}\n"}
    inventory = service(bare(tmp_path / "two", unknown))
    with pytest.raises(Refused, match="mend the file first") as refused:
        inventory.create("client", "zoe", CLIENT, author=ALICE)
    assert [d.code for d in refused.value.diagnostics] == ["TG006"]


def test_repositories_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(GitError, match=r"^no git repository"):
        Repository(tmp_path)
    repository = bare(tmp_path)
    with pytest.raises(GitError, match="checked out"):
        Repository(tmp_path / "seed")
    git(tmp_path / "seed", "checkout", "-q", "-b", "other")
    assert Repository(tmp_path / "seed").head() == Repository(repository).head()
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"), "main")
    with pytest.raises(GitError, match="checked out"):
        Repository(repository)
    for branch in ("", "-x", "a..b", "a b", "x.lock"):
        with pytest.raises(GitError):
            Repository(repository, branch=branch)
    for inside in ("../x", "/x", "a:b"):
        with pytest.raises(GitError):
            Repository(repository, inventory=inside)
    with pytest.raises(Unavailable, match="no branch nope"):
        Inventory(Repository(repository, branch="nope")).head()
    with pytest.raises(Unavailable, match="no directory nope"):
        Inventory(Repository(tmp_path / "seed", inventory="nope")).snapshot()


@pytest.mark.parametrize(
    ("author", "subject"),
    [
        pytest.param("E <e@example.net> 1 +0000", "//", id="subject"),
        pytest.param("// <//> 1 +0000", "x", id="author"),
        pytest.param("E <e@example.net> x +0000", "x", id="no-date"),
        pytest.param("E <e@example.net> -5 +0000", "x", id="before-1970"),
        pytest.param("E <e@example.net> 253402300800 +0000", "x", id="year-10000"),
        pytest.param("E <e@example.net> 99999999999999999999 +0000", "x", id="past-64-bits"),
    ],
)
def test_a_commit_that_imitates_the_log_is_one_entry(
    inventory: Inventory, repository: Path, author: str, subject: str
) -> None:
    before = inventory.history()
    blob = git(repository, "hash-object", "-w", "--stdin", given="# x\n")
    listed = git(repository, "ls-tree", "main:inventory")
    inner = git(repository, "mktree", given=f"{listed}\n100644 blob {blob}\tREADME\n")
    tree = git(repository, "mktree", given=f"040000 tree {inner}\tinventory\n")
    text = (
        f"tree {tree}\nparent {inventory.head()}\nauthor {author}\ncommitter C <c@x> 1 +0000\n\n{subject}\n"
    )
    made = git(repository, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", given=text)
    git(repository, "update-ref", "refs/heads/main", made)
    found = inventory.history()
    assert [one.commit for one in found] == [made, *(one.commit for one in before)]
    assert (found[0].subject, found[0].files[0]) == (subject, "README")
    assert inventory.entry(made).commit == made
    format_instant(found[0].when)


def _commit(repository: Path, folder: str) -> None:
    tree = git(repository, "mktree", given=f"040000 tree {folder}\tinventory\n")
    commit = git(repository, "commit-tree", "-p", "main", "-m", "bomb", tree)
    git(repository, "update-ref", "refs/heads/main", commit)


def _tree(repository: Path, *entries: str) -> str:
    return git(repository, "mktree", given="".join(f"{entry}\n" for entry in entries))


def test_a_tree_that_lists_itself_without_end_is_given_up(inventory: Inventory, repository: Path) -> None:
    inner = _tree(repository, f"100644 blob {git(repository, 'hash-object', '-w', '--stdin', given='x')}\tx")
    for _ in range(12):  # 10^12 files in a kilobyte
        inner = _tree(repository, *(f"040000 tree {inner}\t{name}" for name in range(10)))
    _commit(repository, inner)
    with pytest.raises(Unavailable, match="ls-tree prints more than"):
        inventory.snapshot()


def test_a_file_that_stands_in_a_thousand_places_is_not_read(inventory: Inventory, repository: Path) -> None:
    blob = git(repository, "hash-object", "-w", "--stdin", given="#" * (1 << 20))
    files = _tree(repository, *(f"100644 blob {blob}\tf{number}.yaml" for number in range(300)))
    _commit(repository, _tree(repository, f"040000 tree {files}\tclients"))
    with pytest.raises(Unavailable, match="the inventory has more than"):
        inventory.snapshot()


def test_a_large_file_of_the_past_is_not_read(
    inventory: Inventory, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "FILE_MAX_BYTES", 10)
    assert inventory.history(kind="gateway", name="fra1") == []


def test_a_difference_is_cut_and_git_ended(inventory: Inventory, repository: Path) -> None:
    blob = git(repository, "hash-object", "-w", "--stdin", given="x\n" * (1 << 20))
    _commit(repository, _tree(repository, f"100644 blob {blob}\tx.txt"))
    found = inventory.diff(inventory.head())
    assert sum(len(line) + 1 for line in found) <= DIFF_MAX_BYTES + 1


def test_a_private_key_that_somebody_committed_is_shown_to_nobody(tmp_path: Path) -> None:
    for style in (
        "h:\n  public_key: {0}\n  private_key: {1}\n",
        'h: {{public_key: {0}, "PrivateKey": "{1}"}}\n',
    ):
        place = tmp_path / style[3]
        place.mkdir()
        inventory = service(bare(place, {**example(), "clients/h.yaml": style.format(*KEYS)}))
        found = inventory.snapshot().objects("client")["h"]
        secret = next(name for name in found.fields if name.lower().startswith("private"))
        assert found.fields == {"public_key": KEYS[0], secret: HIDDEN}
        told = inventory.diff(inventory.head())
        assert any(HIDDEN in line for line in told)
        assert KEYS[1] not in "".join(told)
        outcome = inventory.delete("client", "h", author=ALICE, dry_run=True)
        assert any(HIDDEN in line for line in outcome.diff)
        assert KEYS[1] not in "".join(outcome.diff)


def test_no_attribute_hides_a_change(inventory: Inventory, repository: Path) -> None:
    place = repository / "info" / "attributes"
    place.parent.mkdir(exist_ok=True)
    place.write_text("* -diff\n")
    assert any(line.startswith("+fra1:") for line in inventory.diff(inventory.head()))
