"""Many write at once, and writers are killed: every acknowledged write is in the history exactly once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from controlkit import ALICE, bare, environment, git, service
from tidegate_control.git import refs
from tidegate_control.git.repository import Repository
from tidegate_control.inventory.errors import Stale, Unavailable
from tidegate_control.inventory.service import Inventory

WRITERS = 200
TESTS = Path(__file__).parents[3]

# A process that writes resources NAME-0, NAME-1, … and says each one that it was told is written.
CHILD = """
import sys
sys.path.insert(0, sys.argv[3])
from controlkit import ALICE, service
from pathlib import Path
inventory = service(Path(sys.argv[1]))
for n in range(int(sys.argv[4])):
    fields = {"addresses": ["10.20.9.0/28"], "ports": ["tcp/22"]}
    file = f"resources/shared-{n % 8}.yaml"
    done = inventory.create("resource", f"{sys.argv[2]}-{n}", fields, author=ALICE, file=file)
    print(f"{sys.argv[2]}-{n}", done.commit, flush=True)
"""


def _write(inventory: Inventory, name: str, file: str = "resources/shared.yaml") -> str:
    fields = {"addresses": ["10.20.9.0/28"], "ports": ["tcp/22"]}
    outcome = inventory.create("resource", name, fields, author=ALICE, file=file)
    assert outcome.commit is not None
    return outcome.commit


def _child(repository: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(repository), name, str(TESTS), str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def _push(repository: Path, tree: Path, number: int) -> None:
    """Push a commit as somebody else does: fetch, rebase, push, until it is taken."""
    (tree / f"note-{number}").write_text("x")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", f"note {number}")
    for _ in range(200):
        git(tree, "pull", "-q", "--rebase", str(repository), "main")
        done = subprocess.run(
            ["git", "push", "-q", str(repository), "HEAD:main"],
            cwd=tree,
            env=environment(),
            capture_output=True,
        )
        if done.returncode == 0:
            return
    raise AssertionError("the push was never taken")


def test_two_hundred_writers_lose_nothing(tmp_path: Path) -> None:
    """Threads of this process and two other processes write the same files, and somebody pushes in between."""
    repository = bare(tmp_path)
    inventory = service(repository)
    begin = inventory.head()
    children = [_child(repository, f"child-{n}", 20) for n in range(2)]
    pushes = threading.Thread(target=lambda: [_push(repository, tmp_path / "seed", n) for n in range(5)])
    with ThreadPoolExecutor(16) as pool:
        written = pool.map(
            lambda n: (f"res-{n}", _write(inventory, f"res-{n}", f"resources/shared-{n % 8}.yaml")),
            range(WRITERS - 40),
        )
        pushes.start()
        acknowledged = dict(written)
    pushes.join()
    for child in children:
        out, _ = child.communicate(timeout=120)
        assert child.returncode == 0
        acknowledged |= dict(line.split() for line in out.splitlines())
    assert len(acknowledged) == WRITERS == len(set(acknowledged.values()))
    history = git(repository, "rev-list", "--first-parent", f"{begin}..main").splitlines()
    assert Counter(history) == Counter({*acknowledged.values()} | set(history))
    assert set(acknowledged.values()) <= set(history)
    assert len(history) == WRITERS + 5
    subjects = Counter(git(repository, "log", "--format=%s", f"{begin}..main").splitlines())
    assert all(subjects[f"resource {name}: add"] == 1 for name in acknowledged)
    assert set(acknowledged) <= set(service(repository).snapshot().objects("resource"))
    git(repository, "fsck", "--strict", "--no-dangling")


def test_of_writers_with_one_revision_one_wins(tmp_path: Path) -> None:
    inventory = service(bare(tmp_path))
    seen = inventory.head()
    fields = dict(inventory.snapshot().objects("group")["operators"].fields)

    def write(n: int) -> bool:
        changed = {**fields, "members": [*fields["members"], "erin-desktop" if n % 2 else "alice-laptop"]}
        try:
            inventory.update("group", "operators", changed, author=ALICE, expected=seen)
        except Stale:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1


def _kill_all(process: int) -> None:
    """Kill a process and everything that it has started, wherever that has gone: git is in a session of its own."""
    os.kill(process, signal.SIGSTOP)
    below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for pid in [*map(int, below), process]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("seed", range(4))
def test_kill_in_the_middle_of_a_write(tmp_path: Path, seed: int) -> None:
    repository = bare(tmp_path)
    chance = random.Random(seed)
    child = _child(repository, "killed", 1000)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().split() for _ in range(1 + seed)]
    time.sleep(chance.uniform(0, 0.05))  # any moment of a write; none of them may do harm
    if seed % 2:
        _kill_all(child.pid)  # as a service manager does: git, too
    else:
        os.kill(child.pid, signal.SIGKILL)
    acknowledged += [line.split() for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    lock = repository / "refs" / "heads" / "main.lock"
    if lock.exists():  # git itself was killed while it moved the branch: nobody's, once it is old
        os.utime(lock, (0, 0))
    inventory = service(repository)
    names = set(inventory.snapshot().objects("resource"))
    assert {name for name, _ in acknowledged} <= names
    assert len([name for name in names if name.startswith("killed-")]) - len(acknowledged) in (0, 1)
    _write(inventory, "after")
    git(repository, "fsck", "--strict", "--no-dangling")
    history = git(repository, "rev-list", "main").splitlines()
    assert {commit for _, commit in acknowledged} <= set(history)


def test_a_lock_that_nobody_holds_any_more_is_put_away(tmp_path: Path) -> None:
    repository = bare(tmp_path)
    inventory = service(repository)
    lock = repository / "refs" / "heads" / "main.lock"
    lock.touch()
    old = time.time() - refs.STALE_SECONDS - 5
    os.utime(lock, (old, old))
    commit = _write(inventory, "after")
    assert git(repository, "rev-parse", "main") == commit
    assert not lock.exists()


def test_a_lock_that_somebody_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = bare(tmp_path)
    inventory = service(repository)
    head = inventory.head()
    lock = repository / "refs" / "heads" / "main.lock"
    lock.touch()
    monkeypatch.setattr(refs, "WAIT_SECONDS", 0.2)
    with pytest.raises(Unavailable, match=r"is locked; .* remove main\.lock"):
        _write(inventory, "before")
    assert lock.exists()
    assert inventory.head() == head
    threading.Timer(0.3, lock.unlink).start()
    monkeypatch.setattr(refs, "WAIT_SECONDS", 30)
    _write(inventory, "after")


def test_the_tip_is_seen_wherever_git_keeps_it(tmp_path: Path) -> None:
    repository = bare(tmp_path)
    inventory = service(repository)
    _write(inventory, "one")
    git(repository, "pack-refs", "--all", "--prune")
    git(repository, "gc", "-q", "--prune=now")
    assert inventory.head() == git(repository, "rev-parse", "main")
    _write(inventory, "two")
    _push(repository, tmp_path / "seed", 1)
    assert inventory.head() == git(repository, "rev-parse", "main")
    assert {"one", "two"} <= set(inventory.snapshot().objects("resource"))


def test_the_reader_of_objects_is_started_again(tmp_path: Path) -> None:
    repository = Repository(bare(tmp_path))
    head = repository.head()
    process = repository.objects._process
    assert process is not None
    process.kill()
    process.wait()
    assert repository.head() == head
