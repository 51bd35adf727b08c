"""The inventory service on real repositories: what it reads, what it writes, what it refuses."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest

from controlkit import ALICE, KEYS, bare, example, git, service
from tidegate_control.git.repository import Repository
from tidegate_control.inventory import past
from tidegate_control.inventory.errors import Exists, Invalid, NotFound, Refused, Stale
from tidegate_control.inventory.service import Inventory

CLIENT = {"public_key": KEYS[0], "addresses": ["10.64.0.99/32"], "gateways": ["fra1"]}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return bare(tmp_path)


@pytest.fixture
def inventory(repository: Path) -> Inventory:
    return service(repository)


def test_objects_are_read_as_they_are_written(inventory: Inventory) -> None:
    snapshot = inventory.snapshot()
    alice = snapshot.objects("client")["alice-laptop"]
    assert alice.fields["addresses"][0] == "10.64.0.11/32"
    assert alice.client_id is not None
    assert snapshot.files[alice.file].decode().splitlines()[alice.line - 1].startswith("alice-laptop:")
    assert snapshot.objects("overlay")["overlay"].fields["fleet"] == "example"
    for kind in ("client", "gateway", "group", "resource", "policy", "test"):
        objects = snapshot.objects(kind)
        assert list(objects) == sorted(objects)
        assert len(objects) > 0
        assert all(objects[name].name == name for name in objects)


def test_a_write_is_one_commit_by_its_author(inventory: Inventory, repository: Path) -> None:
    before = inventory.head()
    outcome = inventory.create("client", "zoe-laptop", CLIENT, author=ALICE, file="clients/zoe.yaml")
    assert outcome.commit == inventory.head() == git(repository, "rev-parse", "main")
    assert git(repository, "rev-parse", "main^") == before
    assert git(repository, "log", "-1", "--format=%an|%ae|%cn|%s", "main") == (
        "Alice Admin|alice@example.net|tidegate control|client zoe-laptop: add"
    )
    assert git(repository, "diff", "--name-only", before, "main") == "inventory/clients/zoe.yaml"
    assert outcome.snapshot.objects("client")["zoe-laptop"].fields == CLIENT
    assert service(repository).snapshot().files == outcome.snapshot.files


def test_a_check_judges_as_a_write_does_and_writes_nothing(inventory: Inventory) -> None:
    before = inventory.head()
    inventory.check("client", "zoe-laptop", CLIENT, is_new=True, file="clients/zoe.yaml")
    inventory.check("client", "alice-laptop", CLIENT, is_new=False)
    with pytest.raises(Exists):
        inventory.check("client", "alice-laptop", CLIENT, is_new=True)
    with pytest.raises(NotFound):
        inventory.check("client", "zoe-laptop", CLIENT, is_new=False)
    with pytest.raises(Invalid) as caught:
        inventory.check("client", "alice-laptop", CLIENT | {"addresses": ["10.99.0.1/32"]}, is_new=False)
    assert [problem.code for problem in caught.value.diagnostics] == ["TG040"]
    assert inventory.head() == before


def test_update_and_delete(inventory: Inventory) -> None:
    fields = dict(inventory.snapshot().objects("client")["alice-laptop"].fields)
    fields["addresses"] = ["10.64.0.77/32", *fields["addresses"][1:]]
    changed = inventory.update("client", "alice-laptop", fields, author=ALICE)
    assert changed.snapshot.objects("client")["alice-laptop"].fields == fields
    gone = inventory.delete("test", next(iter(changed.snapshot.objects("test"))), author=ALICE)
    assert len(gone.snapshot.objects("test")) == len(changed.snapshot.objects("test")) - 1


def test_a_dry_run_has_a_plan_and_changes_nothing(inventory: Inventory) -> None:
    before = inventory.head()
    outcome = inventory.delete(
        "policy", next(iter(inventory.snapshot().objects("policy"))), author=ALICE, dry_run=True
    )
    assert outcome.commit is None
    assert outcome.revision == before == inventory.head()
    assert outcome.plan is not None
    assert outcome.plan.objects


def test_refusals(inventory: Inventory) -> None:
    head = inventory.head()
    with pytest.raises(Exists):
        inventory.create("client", "alice-laptop", CLIENT, author=ALICE)
    with pytest.raises(NotFound):
        inventory.update("client", "nobody", CLIENT, author=ALICE)
    with pytest.raises(NotFound):
        inventory.snapshot("0" * 40)
    with pytest.raises(Invalid) as invalid:
        inventory.create("client", "zoe-laptop", {**CLIENT, "gateways": ["nowhere"]}, author=ALICE)
    assert [d.code for d in invalid.value.diagnostics] == ["TG030"]
    with pytest.raises(Refused) as refused:
        inventory.delete("gateway", "fra1", author=ALICE)
    assert refused.value.losses
    assert inventory.head() == head


def test_a_stale_revision_is_refused(inventory: Inventory) -> None:
    seen = inventory.head()
    inventory.create("client", "zoe-laptop", CLIENT, author=ALICE, expected=seen, file="clients/zoe.yaml")
    with pytest.raises(Stale):
        inventory.delete("client", "zoe-laptop", author=ALICE, expected=seen)


def test_revert_takes_back_one_commit_and_keeps_what_came_later(inventory: Inventory) -> None:
    before = inventory.snapshot()
    first = inventory.create("client", "zoe-laptop", CLIENT, author=ALICE, file="clients/operations.yaml")
    second = inventory.create(
        "resource",
        "lab",
        {"addresses": ["10.20.9.0/28"], "ports": ["tcp/22"]},
        author=ALICE,
        file="resources/lab.yaml",
    )
    assert first.commit is not None
    outcome = inventory.revert(first.commit, author=ALICE)
    assert outcome.commit == inventory.head()
    assert "zoe-laptop" not in outcome.snapshot.objects("client")
    assert dict(outcome.snapshot.files) == {
        **before.files,
        "resources/lab.yaml": second.snapshot.files["resources/lab.yaml"],
    }
    newest = inventory.history(limit=1)[0]
    assert newest.subject == f"Revert {first.commit[:12]}: client zoe-laptop: add"
    with pytest.raises(Refused, match="nothing is left"):
        inventory.revert(first.commit, author=ALICE)
    with pytest.raises(Refused, match="first commit"):
        inventory.revert(before.commit, author=ALICE)


def test_history_and_diff(inventory: Inventory) -> None:
    begin = inventory.head()
    outcome = inventory.create(
        "client", "zoe-laptop", CLIENT, author=ALICE, file="clients/zoe.yaml", message="Why:\nnew"
    )
    newest, oldest = inventory.history()
    assert (newest.commit, newest.name, newest.email, newest.files) == (
        outcome.commit,
        "Alice Admin",
        "alice@example.net",
        ("clients/zoe.yaml",),
    )
    assert oldest.commit == begin
    assert inventory.history(before=newest.commit) == [oldest]
    assert inventory.history(before=begin) == []
    assert outcome.commit is not None
    lines = inventory.diff(outcome.commit)
    assert "+++ b/inventory/clients/zoe.yaml" in lines
    assert any(line.startswith("+zoe-laptop:") for line in lines)


@pytest.mark.parametrize("seed", range(3))
def test_the_history_of_one_object_is_that_of_all_revisions(inventory: Inventory, seed: int) -> None:
    chance = random.Random(seed)
    names, files = ["zoe", "zac"], ["clients/operations.yaml", "clients/a.yaml", "clients/z.yaml"]
    for step in range(25):
        name = chance.choice(names)
        fields = {**CLIENT, "public_key": KEYS[names.index(name)], "addresses": [f"10.64.9.{step}/32"]}
        if name not in inventory.snapshot().objects("client"):
            inventory.create("client", name, fields, author=ALICE, file=chance.choice(files))
        elif chance.random() < 0.5:
            inventory.update("client", name, fields, author=ALICE)
        else:
            inventory.delete("client", name, author=ALICE)
    for name in names:
        found = [entry.commit for entry in inventory.history(kind="client", name=name, limit=100)]
        every = [entry.commit for entry in inventory.history(limit=100)]
        shown = [_shown(inventory, commit, name) for commit in every] + [None]
        assert found == [every[n] for n in range(len(every)) if shown[n] != shown[n + 1]]
        behind = inventory.history(kind="client", name=name, limit=100, before=every[9])
        assert [entry.commit for entry in behind] == [one for one in found if one in every[10:]]


def _shown(inventory: Inventory, commit: str, name: str) -> object:
    one = inventory.snapshot(commit).objects("client").get(name)
    return None if one is None else (one.file, one.fields)


def test_a_commit_that_leaves_an_object_s_file_alone_is_not_looked_into(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = inventory.head()
    for number in range(5):
        fields = {**CLIENT, "addresses": [f"10.64.9.{number}/32"]}
        write = inventory.update if number else inventory.create
        write("client", "zoe", fields, author=ALICE, **({} if number else {"file": "clients/z.yaml"}))
    read: list[str] = []
    part = past._part

    def counted(repository: Repository, commit: str, kind: str, file: str, name: str) -> object:
        read.append(commit)
        return part(repository, commit, kind, file, name)

    monkeypatch.setattr(past, "_part", counted)
    inventory.snapshot()
    assert [one.commit for one in inventory.history(kind="client", name="alice-laptop")] == [begin]
    assert set(read) == {inventory.head(), begin}


def test_what_differs_between_two_revisions_is_told_by_their_files(inventory: Inventory) -> None:
    before = inventory.snapshot()
    inventory.create("client", "zoe-laptop", CLIENT, author=ALICE, file="clients/operations.yaml")
    after = inventory.snapshot()
    differing = after.objects("client").differing(before.objects("client"))
    assert "zoe-laptop" in differing
    of_file = {name for name, one in after.objects("client").items() if one.file == "clients/operations.yaml"}
    assert differing == of_file
    assert after.objects("group").differing(before.objects("group")) == set()


def test_the_file_that_an_object_is_in_is_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = "c{0}: {{public_key: {1}, addresses: [10.64.9.{0}/32], gateways: [fra1]}}\n"
    keys = [base64.b64encode(bytes([number]) * 32).decode() for number in range(3, 43)]
    files = {f"clients/z{number}.yaml": client.format(number, keys[number]) for number in range(40)}
    inventory = service(bare(tmp_path, {**example(), **files}))
    assert not inventory.snapshot().has_errors
    read: list[str] = []
    part = past._part

    def counted(repository: Repository, commit: str, kind: str, file: str, name: str) -> object:
        read.append(file)
        return part(repository, commit, kind, file, name)

    monkeypatch.setattr(past, "_part", counted)
    assert len(inventory.history(kind="client", name="c39")) == 1
    assert set(read) == {"inventory/clients/z39.yaml"}


def test_the_history_of_one_object(inventory: Inventory, repository: Path) -> None:
    begin = inventory.head()
    made = inventory.create("client", "zoe-laptop", CLIENT, author=ALICE, file="clients/operations.yaml")
    inventory.create("client", "zoe", {**CLIENT, "public_key": KEYS[1], "addresses": ["10.64.0.98/32"]}, author=ALICE,
                     file="clients/operations.yaml")  # fmt: skip
    changed = inventory.update("client", "zoe-laptop", {**CLIENT, "gateways": ["nyc1"]}, author=ALICE)
    gone = inventory.delete("client", "zoe-laptop", author=ALICE)
    commits = [entry.commit for entry in inventory.history(kind="client", name="zoe-laptop")]
    assert commits == [gone.commit, changed.commit, made.commit]
    assert [
        e.commit for e in inventory.history(kind="client", name="zoe-laptop", before=gone.commit, limit=1)
    ] == [changed.commit]
    assert [e.commit for e in inventory.history(kind="policy")] == [begin]
    assert inventory.history(kind="client", name="nobody") == []
    test = next(iter(inventory.snapshot().objects("test")))
    removed = inventory.delete("test", test, author=ALICE)
    assert [e.commit for e in inventory.history(kind="test", name=test)] == [removed.commit, begin]
    overlay = inventory.snapshot().objects("overlay")["overlay"]
    renamed = inventory.update("overlay", "overlay", {**overlay.fields, "fleet": "other"}, author=ALICE)
    assert [e.commit for e in inventory.history(kind="overlay", name="overlay")] == [renamed.commit, begin]
    with pytest.raises(NotFound):
        inventory.history(name="zoe")
    with pytest.raises(NotFound):
        inventory.history(kind="nothing")


def test_a_test_keeps_its_name_wherever_it_stands_in_its_file(inventory: Inventory) -> None:
    tests = dict(inventory.snapshot().objects("test"))
    first, second = list(tests)[:2]
    fields = {**tests[first].fields, "expect": "deny", "at": "2020-01-01"}
    changed = inventory.update("test", first, fields, author=ALICE)
    assert changed.name not in tests
    assert changed.snapshot.objects("test")[changed.name].fields == fields
    assert changed.snapshot.objects("test")[second] == tests[second]
    file = tests[first].file
    twin = inventory.create("test", "", fields, author=ALICE, file=file)
    assert twin.name == f"{changed.name}-2"
    assert inventory.delete("test", twin.name, author=ALICE).snapshot.files == changed.snapshot.files


def test_a_write_that_changes_nothing_is_no_commit(inventory: Inventory) -> None:
    head = inventory.head()
    alice = inventory.snapshot().objects("client")["alice-laptop"]
    outcome = inventory.update("client", "alice-laptop", alice.fields, author=ALICE)
    assert outcome.commit is None
    assert outcome.revision == head == inventory.head()


def test_another_commit_with_the_same_inventory_is_not_stale(
    inventory: Inventory, repository: Path, tmp_path: Path
) -> None:
    seen = inventory.head()
    git(tmp_path / "seed", "commit", "-q", "--allow-empty", "-m", "note")
    git(tmp_path / "seed", "push", "-q", str(repository), "main")
    assert inventory.head() != seen
    inventory.create("client", "zoe-laptop", CLIENT, author=ALICE, file="clients/zoe.yaml", expected=seen)


def test_a_revert_that_meets_a_later_change_is_refused_by_name(inventory: Inventory) -> None:
    first = inventory.update("group", "operators", {"members": ["carol-laptop"]}, author=ALICE)
    inventory.update("group", "operators", {"members": ["erin-desktop"]}, author=ALICE)
    assert first.commit is not None
    with pytest.raises(Refused, match=r"^groups/\S+\.yaml: changed since in the same place"):
        inventory.revert(first.commit, author=ALICE)


def test_the_inventory_may_be_the_top_of_the_repository(tmp_path: Path) -> None:
    repository = bare(tmp_path, example(), inside="")
    inventory = service(repository, "")
    outcome = inventory.create("client", "zoe-laptop", CLIENT, author=ALICE, file="clients/zoe.yaml")
    assert inventory.history()[0].files == ("clients/zoe.yaml",)
    assert git(repository, "diff", "--name-only", "main^", "main") == "clients/zoe.yaml"
    assert outcome.commit is not None
    assert inventory.revert(outcome.commit, author=ALICE).commit is not None
    with pytest.raises(Stale):
        inventory.delete("client", "alice-laptop", author=ALICE, cascade=True, expected=outcome.commit)
