"""Steps from the last inventory say what whole runs say, whatever happens to inventory, output and cache."""

from __future__ import annotations

import base64
import errno
import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tidegate_compiler import cache as caching
from tidegate_compiler import parallel, stamps
from tidegate_compiler.cache import Cache
from tidegate_compiler.stamps import Stamps
from tidegate_compiler.stepwise import changes, notes, parts
from tidegate_schema.cli import run

pytestmark = pytest.mark.usefixtures("own_state")
FORMS = ("text", "json", "markdown")
SEEDS = [0, 1, 2, *[pytest.param(seed, marks=pytest.mark.whole) for seed in range(3, 12)]]
PREFIXES = ["10.20.0.0/16", "10.20.0.0/24", "10.30.0.0/16", "10.30.4.0/24", "10.40.0.0/24", "fd20::/48"]
DAYS = ["2027-01-01", "2028-01-01", "2029-06-30T12:00Z"]


def key(label: object) -> str:
    return base64.b64encode(hashlib.sha256(str(label).encode()).digest()).decode()


class Universe:
    """An inventory that changes at random: {path: {name: object}}, written as files that take the fast way."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.number = 0
        self.raw: dict[str, str] = {}
        """Files that are written as they are, over the others."""
        self.files: dict[str, dict[str, Any]] = {
            "overlay.yaml": {"overlay": {"fleet": "small", "prefixes": ["10.64.0.0/16", "fd64::/64"]}},
            "gateways/all.yaml": {
                f"gw{n}": {
                    "public_key": key(f"gateway {n}"),
                    "endpoint": f"203.0.113.{n + 1}:51820",
                    "networks": networks,
                }
                for n, networks in enumerate(
                    [
                        ["10.20.0.0/16", "fd20::/48"],
                        ["10.20.0.0/16", "fd20::/48"],
                        ["10.30.0.0/16"],
                        ["10.40.0.0/16"],
                        ["10.50.0.0/16"],
                    ]
                )
            },
            "clients/a.yaml": {},
            "clients/b.yaml": {},
            "clients/c.yaml": {},
            "groups/all.yaml": {},
            "groups/few.yaml": {},
            "resources/all.yaml": {
                "web": {"addresses": ["10.20.0.8/29", "10.30.4.0/25"], "ports": ["tcp/80", "udp/53"]},
                "db": {"addresses": ["10.40.0.9/32"]},
            },
            "policies/all.yaml": {},
        }
        for _ in range(14):
            self.add_client()
        for name in ("all", "few", "ops", "one"):
            file = "groups/few.yaml" if name in ("few", "one") else "groups/all.yaml"
            size = {"all": 14, "one": 1}.get(name, self.chance.randint(2, 6))
            self.files[file][name] = {"members": self.chance.sample(self.clients(), size)}
        for _ in range(5):
            self.change_policies()

    def clients(self) -> list[str]:
        return [name for path, found in self.files.items() if path.startswith("clients") for name in found]

    def some(self) -> tuple[dict[str, Any], str]:
        """Return the file that some client stands in, and its name."""
        path = self.chance.choice([p for p, found in self.files.items() if p.startswith("clients") and found])
        return self.files[path], self.chance.choice(list(self.files[path]))

    def some_file(self) -> dict[str, Any]:
        return self.files[f"clients/{self.chance.choice('abc')}.yaml"]

    def gateways(self) -> list[str]:
        return self.chance.choice(
            [["gw0", "gw1"], ["gw1", "gw0"], ["gw0", "gw1", "gw2"], ["gw2"], ["gw3"], ["gw3", "gw2"], ["gw0"]]
        )

    def client(self) -> dict[str, Any]:
        self.number += 1
        addresses = [f"10.64.1.{self.number % 250 + 1}/32"]
        if self.number % 3:
            addresses.append(f"fd64::{self.number:x}/128")
        return {"public_key": key(self.number), "addresses": addresses, "gateways": self.gateways()}

    # Changes: of clients alone, ...

    def add_client(self) -> None:
        self.some_file()[f"laptop-{self.number}"] = self.client()

    def remove_client(self) -> None:
        """Remove one, with what refers to it or without."""
        file, name = self.some()
        file.pop(name)
        if self.chance.random() < 0.5:
            for path, found in self.files.items():
                for one in list(found):
                    if path.startswith("groups") and name in found[one]["members"]:
                        found[one]["members"].remove(name)
                        for times in ("not_before", "expires"):
                            found[one].get(times, {}).pop(name, None)
                            if not found[one].get(times, True):
                                del found[one][times]
                    if path.startswith("policies") and f"client:{name}" in found[one]["from"]:
                        found[one]["from"].remove(f"client:{name}")
                    if not found[one].get("members", True) or not found[one].get("from", True):
                        del found[one]

    def remove_a_stranger(self) -> None:
        """Remove a client that nothing refers to, if there is one."""
        text = json.dumps([found for path, found in self.files.items() if not path.startswith("clients")])
        free = [name for name in self.clients() if f'"{name}"' not in text and f":{name}" not in text]
        for path, found in self.files.items():
            if free and path.startswith("clients"):
                found.pop(free[0], None)

    def change_key(self) -> None:
        file, name = self.some()
        self.number += 1
        file[name] = {**file[name], "public_key": key(self.number)}

    def change_address(self) -> None:
        file, name = self.some()
        file[name] = {**file[name], "addresses": self.client()["addresses"]}

    def change_gateways(self) -> None:
        file, name = self.some()
        file[name] = {**file[name], "gateways": self.gateways()}

    def move_client(self) -> None:
        file, name = self.some()
        moved = file.pop(name)
        self.some_file()[name] = moved

    def rename_client(self) -> None:
        file, name = self.some()
        self.number += 1
        file[f"laptop-{self.number}"] = file.pop(name)

    def swap_addresses(self) -> None:
        (one, first), (other, second) = self.some(), self.some()
        one[first], other[second] = (
            {**one[first], "addresses": other[second]["addresses"]},
            {**other[second], "addresses": one[first]["addresses"]},
        )

    def reorder(self) -> None:
        file = self.some_file()
        names = list(file)
        self.chance.shuffle(names)
        for name in names:
            file[name] = file.pop(name)

    # ... wrong ones, ...

    def take_a_key(self) -> None:
        (one, first), (other, second) = self.some(), self.some()
        one[first] = {**one[first], "public_key": other[second]["public_key"]}

    def take_the_other_spelling_of_a_key(self) -> None:
        (one, first), (other, second) = self.some(), self.some()
        raw = bytearray(base64.b64decode(other[second]["public_key"]))
        raw[31] ^= 0x80
        one[first] = {**one[first], "public_key": base64.b64encode(raw).decode()}

    def take_a_gateways_key(self) -> None:
        file, name = self.some()
        file[name] = {**file[name], "public_key": key("gateway 2")}

    def take_an_address(self) -> None:
        (one, first), (other, second) = self.some(), self.some()
        one[first] = {**one[first], "addresses": other[second]["addresses"]}

    def take_a_name(self) -> None:
        _, name = self.some()
        self.some_file()[name] = self.client()

    def leave_the_overlay(self) -> None:
        file, name = self.some()
        file[name] = {**file[name], "addresses": ["10.65.0.1/32"]}

    def list_an_unknown_gateway(self) -> None:
        file, name = self.some()
        file[name] = {**file[name], "gateways": ["gw0", "gw9"]}

    def break_a_client(self) -> None:
        file, name = self.some()
        file[name] = {**file[name], "public_key": "no key"}

    # ... and of everything else.

    def change_groups(self) -> None:
        file = self.files[self.chance.choice(["groups/all.yaml", "groups/few.yaml"])]
        members = self.chance.sample(self.clients(), self.chance.randint(1, min(8, len(self.clients()))))
        group: dict[str, Any] = {"members": members}
        if self.chance.random() < 0.4:
            group["expires"] = {members[0]: self.chance.choice(DAYS)}
        if self.chance.random() < 0.2:
            group["not_before"] = {members[-1]: self.chance.choice(DAYS)}
        file[self.chance.choice(list(file) or ["all"])] = group

    def change_policies(self) -> None:
        policies = self.files["policies/all.yaml"]
        groups = [n for path, found in self.files.items() if path.startswith("groups") for n in found]
        name = f"p{self.chance.randint(0, 7)}"
        if policies and self.chance.random() < 0.2:
            policies.pop(self.chance.choice(list(policies)))
            return
        _, client = self.some()
        sources = ["all-clients", f"client:{client}", *(f"group:{group}" for group in groups)]
        found = {
            "from": self.chance.sample(sources, min(len(sources), self.chance.choice([1, 1, 2]))),
            "to": self.chance.sample(
                ["resource:web", "resource:db", *PREFIXES], self.chance.choice([1, 1, 2])
            ),
            "ports": self.chance.choice([["any"], ["tcp/80"], ["udp/50-60", "tcp/1-1024"]]),
            "action": self.chance.choice(["allow", "allow", "allow", "deny"]),
        }
        if self.chance.random() < 0.2:
            found["expires"] = self.chance.choice(DAYS)
        policies[name] = found

    def write_in_a_careful_form(self) -> None:
        path = f"clients/{self.chance.choice('abc')}.yaml"
        self.raw[path] = _text(self.files[path]).replace("laptop-1", '"\\x6captop-1"')

    def write_strangely(self) -> None:
        self.raw[f"clients/{self.chance.choice('abcd')}.yaml"] = self.chance.choice(
            ["", "# nothing\n", "x: &a {}\n", "- no\n", "bad: {public_key: [\n", "\tx: y\n"]
        )

    def change_a_gateway(self) -> None:
        gateway = self.files["gateways/all.yaml"]["gw4"]
        gateway["networks"] = [self.chance.choice(["10.50.0.0/16", "10.51.0.0/16"])]

    def test_access(self) -> None:
        _, name = self.some()
        self.raw["tests/all.yaml"] = f"- {{from: client:{name}, to: 10.20.0.9, port: icmp, expect: deny}}\n"

    def content(self) -> dict[str, str]:
        found = {path: _text(one) for path, one in self.files.items() if one}
        return {**found, **self.raw}

    def write(self, root: Path) -> None:
        shutil.rmtree(root, ignore_errors=True)
        for path, text in self.content().items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)


def _text(objects: dict[str, Any]) -> str:
    return "".join(f"{name}: {_flow(value)}\n" for name, value in objects.items())


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return f'"{value}"' if ":" in value or "/" in value or "=" in value or " " in value else value


GENTLE: list[Callable[[Universe], None]] = [
    *(Universe.add_client, Universe.remove_client, Universe.remove_a_stranger, Universe.change_key),
    *(Universe.change_address, Universe.change_gateways, Universe.move_client, Universe.rename_client),
    *(Universe.swap_addresses, Universe.reorder),
]
HARSH: list[Callable[[Universe], None]] = [
    *(Universe.take_a_key, Universe.take_the_other_spelling_of_a_key, Universe.take_a_gateways_key),
    *(Universe.take_an_address, Universe.take_a_name, Universe.leave_the_overlay),
    *(Universe.list_an_unknown_gateway, Universe.break_a_client, Universe.change_groups),
    *(Universe.change_policies, Universe.write_in_a_careful_form, Universe.write_strangely),
    *(Universe.change_a_gateway, Universe.test_access),
]


def settle() -> None:
    """Let what was written grow older than a tick of the clock: only then are its times believed."""
    time.sleep(stamps.GRANULARITY / 1e9 + 0.01)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Hold of each run with a cache whether it was made in steps."""
    found: list[bool] = []
    both, change = parts.both, changes.change

    def noted_both(*args: Any) -> Any:
        made = both(*args)
        found.append(made is not None)
        return made

    @contextmanager
    def noted_change(*args: Any) -> Iterator[Any]:
        with change(*args) as made:
            found.append(made is not None)
            yield made

    monkeypatch.setattr(parts, "both", noted_both)
    monkeypatch.setattr(changes, "change", noted_change)
    return found


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command: status, stdout, stderr."""

    def tell(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(list(map(str, args)))
        return (status, *capsys.readouterr())

    return tell


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plan_in_steps_is_the_plan(tmp_path: Path, told: Run, steps: list[bool], seed: int) -> None:
    universe = Universe(seed)
    chance = random.Random(seed)
    old, new, cache = tmp_path / "old", tmp_path / "new", tmp_path / "cache"
    for _ in range(40):
        universe.write(old)
        before = (json.dumps(universe.files), dict(universe.raw))
        for _ in range(chance.choice([0, 1, 1, 1, 2, 5])):
            chance.choice(GENTLE if chance.random() < 0.85 else HARSH)(universe)
        universe.write(new)
        sides = (old, new) if chance.random() < 0.8 else (new, old)
        form = ("--format", chance.choice(FORMS))
        whole = told("plan", *sides, *form)
        assert told("plan", *sides, *form, "--cache", cache) == whole
        if whole[0] == 1 or chance.random() < 0.3:  # back to where all was well
            universe.files, universe.raw = json.loads(before[0]), before[1]
    assert sum(steps) > 8
    assert not all(steps)


# What somebody may do to an output between two runs.


def _touch(file: Path, _: random.Random) -> None:
    file.touch()


def _rewrite(file: Path, _: random.Random) -> None:
    """Change it, with the size and the times that it had."""
    data, was = bytearray(file.read_bytes()), file.stat()
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def _swap(file: Path, chance: random.Random) -> None:
    other = chance.choice(sorted(file.parent.parent.glob(f"*/{file.name}")))
    aside = file.with_name("aside")
    file.rename(aside)
    if other != file:
        other.rename(file)
    aside.rename(other)


def _cut(file: Path, _: random.Random) -> None:
    file.write_bytes(b"")


def _remove(file: Path, _: random.Random) -> None:
    file.unlink()


def _remove_host(file: Path, _: random.Random) -> None:
    shutil.rmtree(file.parent)


def _remove_kind(file: Path, _: random.Random) -> None:
    shutil.rmtree(file.parent.parent)


def _add_a_file(file: Path, _: random.Random) -> None:
    (file.parent / "stray").write_text("x")


def _add_a_host(file: Path, _: random.Random) -> None:
    (file.parent.parent / "stray").mkdir()
    (file.parent.parent / "stray/wg0.conf").write_text("x")


def _link_the_file(file: Path, _: random.Random) -> None:
    file.rename(file.parents[3] / "elsewhere")
    file.symlink_to("../../../elsewhere")


def _link_the_host(file: Path, _: random.Random) -> None:
    """The file itself stays as it is, and so does the folder that it is in."""
    shutil.rmtree(file.parents[3] / "folder", ignore_errors=True)
    file.parent.rename(file.parents[3] / "folder")
    file.parent.symlink_to("../../folder")


def _a_file_for_a_host(file: Path, _: random.Random) -> None:
    shutil.rmtree(file.parent)
    file.parent.write_text("x")


def _mark(file: Path, _: random.Random) -> None:
    (file.parents[2] / ".incomplete").touch()


def _another_manifest(file: Path, _: random.Random) -> None:
    (file.parents[2] / "manifest.json").write_text("{}")


def _no_manifest(file: Path, _: random.Random) -> None:
    (file.parents[2] / "manifest.json").unlink()


def _a_huge_manifest(file: Path, _: random.Random) -> None:
    os.truncate(file.parents[2] / "manifest.json", 1 << 43)  # more than any memory holds, and hardly any disk


def _another_output(file: Path, _: random.Random) -> None:
    shutil.copytree(file.parents[2], file.parents[3] / "copy")
    shutil.rmtree(file.parents[2])
    (file.parents[3] / "copy").rename(file.parents[2])


TAMPERINGS = [
    *(_touch, _rewrite, _rewrite, _swap, _cut, _remove, _remove_host, _remove_kind, _add_a_file, _add_a_host),
    *(
        _link_the_file,
        _link_the_host,
        _a_file_for_a_host,
        _mark,
        _another_manifest,
        _no_manifest,
        _another_output,
    ),
]


def tamper(place: Path, seed: int) -> None:
    chance = random.Random(seed)
    files = sorted(path for path in place.glob("out/*/*/*") if path.is_file())
    if files:
        chance.choice(TAMPERINGS)(chance.choice(files), chance)


def spoil(cache: Path, chance: random.Random) -> None:
    """Do to a cache what makes it one that is passed over, in part or as a whole."""
    files = sorted(cache.glob("*"))
    if not files:
        return
    rows = chance.choice(files)
    data = bytearray(rows.read_bytes())
    match chance.randrange(4):
        case 0:
            rows.unlink()
        case 1:
            rows.write_bytes(data[: len(data) // 2])
        case _:  # most of it are entries, each of which may be one that is needed
            data[chance.randrange(len(data))] ^= 1
            rows.write_bytes(data)


def tree(root: Path) -> dict[str, bytes | str]:
    """Return everything below a directory: a file's bytes, where a link leads, "" for a folder."""
    return {
        str(path.relative_to(root)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else ""
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_an_output_in_steps_is_the_output(
    tmp_path: Path, told: Run, steps: list[bool], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    universe = Universe(seed)
    chance = random.Random(seed)
    if seed % 3:  # what counts in a large fleet alone
        monkeypatch.setattr(notes, "PER_BLOCK", 3)
        monkeypatch.setattr(caching, "LARGE", 0)
        monkeypatch.setattr(changes, "_MANY", 0)
        monkeypatch.setattr(parallel, "_may_fork", lambda: True)
    inventory, cache = tmp_path / "inv", tmp_path / "cache"
    places = [tmp_path / "whole", tmp_path / "steps"]
    for place in places:
        place.mkdir()
    for _ in range(30):
        before = (json.dumps(universe.files), dict(universe.raw))
        for _ in range(chance.choice([0, 1, 1, 1, 2, 4])):
            chance.choice(GENTLE if chance.random() < 0.95 else HARSH)(universe)
        universe.write(inventory)
        if chance.random() < 0.1:
            spoil(cache, chance)
        if chance.random() < 0.4:
            settle()
        harm = chance.randrange(1 << 30) if chance.random() < 0.2 else None
        found = []
        for place, more in zip(places, ((), ("--cache", cache)), strict=True):
            if harm is not None:
                tamper(place, harm)
            monkeypatch.chdir(place)
            form = ("--json",) if seed % 2 else ()
            found.append((told("compile", inventory, "--out", "out", *form, *more), tree(place)))
        assert found[1] == found[0]
        if "elsewhere" in found[0][1]:
            for place in places:
                (place / "elsewhere").unlink()
        if found[0][0][0] == 1:
            universe.files, universe.raw = json.loads(before[0]), before[1]
            for place in places if harm is not None else ():
                shutil.rmtree(place / "out", ignore_errors=True)
    assert sum(steps) > 4
    assert not all(steps)


def one(name: str, number: int, *gateways: str) -> str:
    return (
        f'{name}: {{public_key: "{key(number)}", addresses: ["10.64.0.{number}/32"], '
        f"gateways: [{', '.join(gateways)}]}}\n"
    )


POLICY = "{name}: {{from: [{source}], to: [{to}], ports: [any], action: allow}}\n"
PLAIN = {
    "overlay.yaml": "overlay: {prefixes: [10.64.0.0/16]}\n",
    "gateways/all.yaml": "".join(
        f'gw{n}: {{public_key: "{key(f"gateway {n}")}", endpoint: "203.0.113.{n}:51820", '
        f"networks: [10.{n}.0.0/16]}}\n"
        for n in (20, 30)
    ),
    "clients/a.yaml": one("alice", 1, "gw20") + one("bob", 2, "gw20"),
    "clients/b.yaml": "".join(one(f"other-{n}", n, "gw30") for n in range(10, 40)),
}


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


ALL = ", ".join(["alice", "bob", *(f"other-{n}" for n in range(10, 40))])
FROM_ALL = POLICY.format(name="p", source="all-clients", to="10.20.0.0/24")
CASES: dict[str, tuple[dict[str, str], dict[str, str], bool]] = {
    # name: what is there more than in PLAIN; what changes; whether it can be told in steps
    "nothing changes": ({}, {}, True),
    "a key changes": ({}, {"clients/a.yaml": one("alice", 3, "gw20") + one("bob", 2, "gw20")}, True),
    "a name of a file that does not change": (
        {},
        {"clients/c.yaml": one("other-12", 3, "gw20").replace("10.64.0.3", "10.64.0.99")},
        False,
    ),
    "a policy alone names a client that goes": (
        {"policies/p.yaml": POLICY.format(name="p", source="client:bob", to="10.20.0.0/24")},
        {"clients/a.yaml": one("alice", 1, "gw20")},
        False,
    ),
    "a test alone names a client that goes": (
        {"tests/t.yaml": "- {from: client:bob, to: 10.20.0.9, port: icmp, expect: deny}\n"},
        {"clients/a.yaml": one("alice", 1, "gw20")},
        False,
    ),
    "a client that goes where nobody names it": ({}, {"clients/a.yaml": one("alice", 1, "gw20")}, True),
    "a group that covers all clients no longer does": (
        {
            "groups/g.yaml": f"everybody: {{members: [{ALL}]}}\n",
            "policies/p.yaml": FROM_ALL
            + POLICY.format(name="q", source="group:everybody", to="10.20.0.0/16"),
        },
        {"clients/c.yaml": one("carol", 3, "gw20")},
        False,
    ),
    "a group that nearly covers all clients does now": (
        {
            "groups/g.yaml": f"everybody: {{members: [{ALL}]}}\n",
            "policies/p.yaml": FROM_ALL
            + POLICY.format(name="q", source="group:everybody", to="10.20.0.0/16"),
            "clients/c.yaml": one("carol", 3, "gw20"),
        },
        {"clients/c.yaml": "# nobody\n"},
        False,
    ),
    "a policy that matches nothing does now": (
        {"policies/p.yaml": POLICY.format(name="p", source="client:alice", to="10.30.0.0/24")},
        {"clients/a.yaml": one("alice", 1, "gw20", "gw30") + one("bob", 2, "gw20")},
        False,
    ),
    "all clients of a gateway change and gain what all clients may": (
        {"policies/p.yaml": FROM_ALL},
        {"clients/a.yaml": one("alice", 3, "gw20") + one("bob", 4, "gw20")},
        False,
    ),
    "one client of a group of one gains": (
        {
            "groups/g.yaml": f"just-alice: {{members: [alice]}}\neverybody: {{members: [{ALL}]}}\n",
            "policies/p.yaml": POLICY.format(name="p", source="group:everybody", to="10.20.0.0/24"),
        },
        {"clients/a.yaml": one("alice", 3, "gw20") + one("bob", 2, "gw20")},
        True,
    ),
    "five of forty clients go": (
        {"clients/c.yaml": "".join(one(f"gone-{n}", n, "gw20") for n in range(50, 55))},
        {"clients/c.yaml": one("last", 60, "gw20")},
        True,
    ),
    "a file that is not read": ({}, {"clients/c.yml": one("carol", 3, "gw20")}, False),
    "a file that is read carefully": (
        {},
        {"clients/a.yaml": one("alice", 3, '"gw\\x320"') + one("bob", 2, "gw20")},
        False,
    ),
    "groups that are read carefully": (
        {"groups/g.yaml": 'few: {members: [alice, "b\\x6fb"]}\n'},
        {"clients/a.yaml": one("alice", 3, "gw20") + one("bob", 2, "gw20")},
        False,
    ),
    "a file with a flaw": ({}, {"clients/a.yaml": one("alice", 3, "gw20") + "\tbob: x\n"}, False),
    "an empty file": ({}, {"clients/a.yaml": ""}, False),
    "a group changes": (
        {"groups/g.yaml": f"everybody: {{members: [{ALL}]}}\n"},
        {"groups/g.yaml": "everybody: {members: [alice]}\n"},
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_what_a_change_of_clients_depends_on(
    tmp_path: Path, told: Run, steps: list[bool], case: str, form: str
) -> None:
    """One case for each thing that the parts of a plan leave out, and that could make it another plan."""
    more, change, in_steps = CASES[case]
    old = write(tmp_path / "old", PLAIN | more)
    new = write(tmp_path / "new", PLAIN | more | change)
    cache = tmp_path / "cache"
    told("plan", old, old, "--cache", cache)
    assert steps == [False]
    assert told("plan", old, new, "--format", form, "--cache", cache) == told(
        "plan", old, new, "--format", form
    )
    assert any(steps) == in_steps


@pytest.fixture
def settled(tmp_path: Path, told: Run, steps: list[bool]) -> tuple[Path, Path, Path]:
    """Return an inventory, an output of it of which no file need be read again, and the cache that says so."""
    inventory, out, cache = tmp_path / "inv", tmp_path / "place/out", tmp_path / "cache"
    write(inventory, PLAIN | {"policies/p.yaml": FROM_ALL})
    out.parent.mkdir()
    compile_ = ("compile", inventory, "--out", out, "--cache", cache)
    for _ in range(3):
        assert told(*compile_)[0] == 0
        settle()
    note = notes.Note.read(Cache(cache))
    assert note is not None
    assert note.unsettled == {}
    assert steps == [False, False, True]
    return inventory, out, cache


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("harm", [harm for harm in TAMPERINGS if "manifest" not in harm.__name__])
def test_what_was_done_to_an_output_is_undone(
    tmp_path: Path, told: Run, settled: tuple[Path, Path, Path], harm: Callable[..., None], number: int
) -> None:
    inventory, out, cache = settled
    right = tree(out)
    file = (
        out / "client/alice/wg0.conf",
        out / "gateway/gw30/policy.json",
        out / "client/other-39/wg0.conf",
    )[number]
    harm(file, random.Random(1))
    assert told("compile", inventory, "--out", out, "--cache", cache)[0] == 0
    assert tree(out) == right


@pytest.mark.parametrize("is_settled", [True, False])
def test_what_has_just_been_written_is_read_again(
    told: Run, settled: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, is_settled: bool
) -> None:
    """A change within the tick of a write leaves the same stamps. Of what has been settled for long, there is none."""
    inventory, out, cache = settled
    compile_ = ("compile", inventory, "--out", out, "--cache", cache)
    write(inventory, {"clients/a.yaml": one("alice", 3, "gw20") + one("bob", 2, "gw20")})
    told(*compile_)
    right = tree(out)
    found: dict[tuple[bytes, ...], Stamps] = {}
    real = Stamps.take
    monkeypatch.setattr(Stamps, "take", lambda root, paths: found.setdefault(tuple(paths), real(root, paths)))
    if is_settled:
        settle()
        told(*compile_)
    _rewrite(out / "gateway/gw20/peers.json", random.Random(1))
    told(*compile_)
    assert (tree(out) == right) == (not is_settled)


@pytest.mark.parametrize("name", ["wg0.conf", "stray"])
def test_of_a_huge_file_no_more_is_read_than_could_be_right(
    told: Run, settled: tuple[Path, Path, Path], name: str
) -> None:
    inventory, out, cache = settled
    compile_ = ("compile", inventory, "--out", out, "--cache", cache)
    write(inventory, {"clients/c.yaml": one("carol", 4, "gw20")})
    told(*compile_)
    right = tree(out)
    (out / "client/carol" / name).touch()
    os.truncate(out / "client/carol" / name, 1 << 43)
    assert told(*compile_)[0] == 0
    assert tree(out) == right


def test_what_is_kept_is_of_one_inventory_alone(tmp_path: Path, told: Run, steps: list[bool]) -> None:
    """A step that came to nothing has looked at clients that are not there any more."""
    out, cache = tmp_path / "out", tmp_path / "cache"
    policies = {"policies/p.yaml": POLICY.format(name="p", source="all-clients", to="10.20.9.0/24")}
    roaming = {"clients/c.yaml": one("roaming", 3, "gw20", "gw30")}

    def compile_(files: dict[str, str], *more: object) -> tuple[int, str, str]:
        shutil.rmtree(tmp_path / "inv", ignore_errors=True)
        return told("compile", write(tmp_path / "inv", files), "--out", out, *more, "--cache", cache)

    for _ in range(2):
        compile_(PLAIN | policies | roaming)
    # From here no client reaches what the policy is about, which is a warning, and no client has that list of gateways.
    bereft = {path: text for path, text in PLAIN.items() if path != "clients/a.yaml"} | policies
    assert "TG054" in compile_(bereft)[2]
    compile_(bereft)
    before = tree(out)
    compile_(bereft | {"clients/c.yaml": one("new", 4, "gw20", "gw30")})
    compile_(bereft)
    assert tree(out) == before


@pytest.mark.parametrize(
    "change",
    [
        {"clients/c.yml": one("carol", 3, "gw20")},
        {"clients/c.yaml": one("carol", 4, "gw20") + one("dave", 5, "gw20"), "clients/b.yaml": "x: y\n"},
        {"clients/d.yaml": one("dave", 4, "gw20").replace("10.64.0.4", "10.64.0.99")},  # carol's key
    ],
)
def test_a_compile_after_a_step_is_told_as_ever(
    told: Run, settled: tuple[Path, Path, Path], steps: list[bool], change: dict[str, str]
) -> None:
    inventory, out, cache = settled
    compile_ = ("compile", inventory, "--out", out)
    write(inventory, {"clients/c.yaml": one("carol", 4, "gw20")})
    told(*compile_, "--cache", cache)
    assert steps[-1]
    write(inventory, change)
    found = told(*compile_, "--cache", cache)
    assert found[0] == 1
    assert not steps[-1]
    assert found == told(*compile_)


@pytest.mark.parametrize("harm", [_another_manifest, _no_manifest, _a_huge_manifest])
def test_a_directory_that_is_no_output_is_refused(
    told: Run, settled: tuple[Path, Path, Path], harm: Callable[..., None]
) -> None:
    inventory, out, cache = settled
    harm(out / "client/alice/wg0.conf", random.Random(1))
    compile_ = ("compile", inventory, "--out", out)
    found = told(*compile_, "--cache", cache)
    assert found[0] == 1
    assert found == told(*compile_)


def test_a_link_in_place_of_an_empty_folder_is_refused(
    told: Run, settled: tuple[Path, Path, Path], steps: list[bool]
) -> None:
    """There is no host in it that could tell."""
    inventory, out, cache = settled
    compile_ = ("compile", inventory, "--out", out)
    shutil.rmtree(inventory / "clients")
    shutil.rmtree(inventory / "policies")
    for _ in range(2):
        assert told(*compile_, "--cache", cache)[0] == 0
    assert steps[-1]
    (out / "client").rename(out.parent / "elsewhere")
    (out / "client").symlink_to("../elsewhere")
    found = told(*compile_, "--cache", cache)
    assert found[0] == 1
    assert found == told(*compile_)


def test_a_whole_run_that_writes_little_is_stepped_from(
    told: Run, settled: tuple[Path, Path, Path], steps: list[bool]
) -> None:
    inventory, out, cache = settled
    compile_ = ("compile", inventory, "--out", out, "--cache", cache)
    write(inventory, {"policies/p.yaml": FROM_ALL.replace("24", "25")})
    told(*compile_)
    told(*compile_)
    assert steps[-2:] == [False, True]


@pytest.mark.parametrize(
    "key",
    [
        *("step output", "step hosts client 0", "step hosts gateway 0"),
        *("step stamps client 0 ", "step stamps client 0 wg0.conf", "step stamps gateway 0 policy.json"),
    ],
)
def test_a_note_that_is_damaged_is_not_stepped_from(
    told: Run, settled: tuple[Path, Path, Path], steps: list[bool], key: str
) -> None:
    inventory, out, cache = settled
    head, line, entries = (cache / "rows").read_bytes().split(b"\n", 2)
    offset, length, _ = json.loads(line)[key]
    spoilt = bytearray(entries)
    spoilt[offset + length // 2] ^= 1
    (cache / "rows").write_bytes(b"\n".join([head, line, spoilt]))
    assert told("compile", inventory, "--out", out, "--cache", cache)[0] == 0
    assert not steps[-1]


def test_an_output_of_another_inventory_is_not_stepped_from(
    tmp_path: Path, told: Run, settled: tuple[Path, Path, Path], steps: list[bool]
) -> None:
    inventory, out, cache = settled
    write(inventory, {"clients/a.yaml": one("alice", 3, "gw20") + one("bob", 2, "gw20")})
    told("compile", inventory, "--out", tmp_path / "other", "--cache", tmp_path / "cache-other")
    ours, theirs = Cache(cache), Cache(tmp_path / "cache-other")
    ours.use(ours.there)
    for key in theirs.there:
        data = theirs.get(key)
        assert data is not None
        ours.put(key, data)
    ours.save()
    told("compile", inventory, "--out", out, "--cache", cache)
    assert not steps[-1]
    assert tree(out) == tree(tmp_path / "other")


def test_what_a_step_keeps_is_what_the_next_one_needs(
    tmp_path: Path, told: Run, settled: tuple[Path, Path, Path], steps: list[bool]
) -> None:
    """Clients come, alone with their list of gateways, and go, and others are counted with them."""
    inventory, out, cache = settled
    ten = [one(f"roaming-{n}", n, "gw20", "gw30") for n in range(50, 60)]

    def compile_with(file: str, clients: str) -> None:
        (inventory / file).write_text(clients) if clients else (inventory / file).unlink()
        told("compile", inventory, "--out", out, "--cache", cache)
        assert steps[-1]
        shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
        told("compile", inventory, "--out", tmp_path / "fresh")
        assert tree(out) == tree(tmp_path / "fresh")

    for clients in ("".join(ten), "", "".join(ten)):
        compile_with("clients/c.yaml", clients)
    after = shutil.copytree(inventory, tmp_path / "after")
    write(after, {"clients/c.yaml": "".join(ten[:2])})  # a fifth may go, and eight of forty-two are less
    assert told("plan", inventory, after, "--cache", cache) == told("plan", inventory, after)
    assert steps[-1]
    compile_with("clients/c.yaml", "".join(ten[:2]))
    compile_with("clients/c.yaml", "")
    compile_with("clients/a.yaml", one("alice", 4, "gw20") + one("bob", 2, "gw20"))


def test_a_run_that_only_looks_leaves_what_is_kept(
    told: Run, settled: tuple[Path, Path, Path], steps: list[bool]
) -> None:
    inventory, out, cache = settled
    write(inventory, {"clients/a.yaml": one("alice", 3, "gw20") + one("bob", 2, "gw20")})
    assert told("validate", inventory, "--cache", cache)[0] == 0
    assert told("compile", inventory, "--out", out, "--cache", cache)[0] == 0
    assert steps[-1]


def test_an_inventory_that_is_not_there_is_told_as_ever(
    tmp_path: Path, told: Run, settled: tuple[Path, Path, Path]
) -> None:
    _, out, cache = settled
    compile_ = ("compile", tmp_path / "nowhere", "--out", out)
    assert told(*compile_, "--cache", cache) == told(*compile_)


def test_what_cannot_be_written_is_told_as_ever(
    told: Run, settled: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory, out, cache = settled
    write(inventory, {"clients/a.yaml": one("alice", 3, "gw20") + one("bob", 2, "gw20")})

    def refuse(*args: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", args[1])

    monkeypatch.setattr(os, "replace", refuse)
    compile_ = ("compile", inventory, "--out", out)
    found = told(*compile_, "--cache", cache)
    assert found[0] == 1
    assert found == told(*compile_)


@pytest.mark.parametrize("number", range(0, 12, 2))
@pytest.mark.parametrize("another", [False, True])
def test_a_step_that_was_cut_is_mended(
    tmp_path: Path,
    told: Run,
    settled: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    another: bool,
) -> None:
    """A run ends at any of its changes of the output; the next one is of the same inventory, or the old one."""
    inventory, out, cache = settled
    compile_ = ("compile", inventory, "--cache", cache, "--out")
    before = (inventory / "clients/a.yaml").read_text()
    write(inventory, {"clients/a.yaml": one("alice", 3, "gw20") + one("carol", 4, "gw20", "gw30")})
    calls = itertools.count()

    def cut(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if next(calls) >= number:
                raise KeyboardInterrupt
            return real(*args, **more)

        return call

    with monkeypatch.context() as patched:
        for name in ("replace", "unlink", "mkdir", "rmdir", "write"):
            patched.setattr(f"tidegate_compiler.output.os.{name}", cut(getattr(os, name)))
        told(*compile_, out)
    if another:
        write(inventory, {"clients/a.yaml": before})
    assert told(*compile_, out)[0] == 0
    assert told("compile", inventory, "--out", tmp_path / "fresh")[0] == 0
    assert tree(out) == tree(tmp_path / "fresh")


@pytest.mark.parametrize(
    "limit", ["", "step.MOST_CHANGED", "step._MOST_BYTES", "record._MOST_LISTS", "notes.MOST_UNSETTLED"]
)
def test_what_is_too_much_takes_a_whole_run(
    tmp_path: Path, told: Run, steps: list[bool], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    if limit:
        monkeypatch.setattr(f"tidegate_compiler.stepwise.{limit}", -1)
    compile_ = ("compile", tmp_path / "inv", "--out", tmp_path / "out", "--cache", tmp_path / "cache")
    for number in (1, 1, 3):
        write(tmp_path / "inv", PLAIN | {"clients/c.yaml": one("carol", number + 3, "gw20")})
        assert told(*compile_)[0] == 0
    assert any(steps) == (not limit)


def test_many_hosts_among_many_are_noted_each_at_its_place() -> None:
    """As many as a step may change, of a large fleet."""
    names = [f"laptop-{number:06}" for number in range(10_000)]
    first, last = names[0], names[-notes.MOST_UNSETTLED :]
    note = notes.Note.of({"client": names}, {"client": ["wg0.conf"]})
    for block in note.every():
        columns = [array(column.typecode, range(len(block.names))) for column in Stamps()._columns]
        block.stamps = {file: Stamps([column[:] for column in columns]) for file in ("", "wg0.conf")}
        block.is_new = False
    note.step(
        "", b"", {f"client/{name}": {"wg0.conf": b""} for name in [*last, "new"]}, {f"client/{first}"}, {}
    )
    assert note.names("client") == [*names[1:], "new"]
    assert note.unsettled.keys() == {f"client/{name}" for name in [*last, "new"]}
    blocks = note.every()
    assert [block.is_new for block in blocks] == [True, *[False] * 7, True, True]
    for number, block in enumerate(blocks):
        for found in block.stamps.values():
            for position, name in enumerate(block.names):
                was = 0 if name in last or name == "new" else int(name[7:]) - notes.PER_BLOCK * number
                assert {column[position] for column in found._columns} == {was}
            assert {len(column) for column in found._columns} == {len(block.names)}


def modules_after(code: str) -> set[str]:
    """Return the modules that a new process has imported after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_a_look_at_the_output_begins_before_an_inventory_can_be_read() -> None:
    """What reads one takes as long to import as a look at a third of a large output."""
    found = modules_after("import tidegate_compiler.compilecli, tidegate_compiler.cache")
    assert "tidegate_compiler.stepwise.notes" in found
    assert found.isdisjoint({f"tidegate_compiler.{name}" for name in ("load", "model", "fields", "pipeline")})
    assert found.isdisjoint({"jinja2", "jsonschema_rs", "ruamel.yaml", "yaml12", "importlib.resources"})


def test_a_step_does_without_the_careful_reader(told: Run, settled: tuple[Path, Path, Path]) -> None:
    inventory, out, cache = settled
    write(inventory, {"clients/c.yaml": one("carol", 4, "gw20")})
    command = ["compile", str(inventory), "--out", str(out), "--cache", str(cache), "--json"]
    found = modules_after(f"from tidegate_schema.cli import run\nrun({command})")
    assert "tidegate_compiler.stepwise.parts" in found
    assert "ruamel.yaml" not in found
    assert json.loads(told(*command)[1])["changed"] == []


def test_stamps_are_what_lstat_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("abc")
    os.utime(tmp_path / "file", ns=(1, 1_234_567_890_123_456_789))
    (tmp_path / "link").symlink_to("file")
    names = ["file", "link", "nothing", "."]
    root = os.open(tmp_path, os.O_RDONLY)
    taken = Stamps.take(root, [name.encode() for name in names])
    os.close(root)
    for position, name in enumerate(names):
        told = [column[position] for column in taken._columns]
        if name == "nothing":
            assert told == [0] * 6
            continue
        found = os.lstat(tmp_path / name)
        times = [
            part for time in (found.st_ctime_ns, found.st_mtime_ns) for part in divmod(time, 1_000_000_000)
        ]
        assert told == [found.st_ino, found.st_size, *times]
    assert Stamps.read(taken.data()).differing(taken) == {2}


def test_stamps_of_many_paths_are_each_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    root = os.open(tmp_path, os.O_RDONLY)
    one = Stamps.take(root, [b"file"])
    taken = Stamps.take(root, [*[b"file"] * 700, *[b"nothing"] * 700, b"file"])
    os.close(root)
    for column, (mine,) in zip(taken._columns, one._columns, strict=True):
        assert list(column) == [*[mine] * 700, *[0] * 700, mine]


@pytest.mark.parametrize(
    ("nanoseconds", "later", "is_settled"), [(1, 49, False), (1, 51, True), (0, 2400, False)]
)
def test_what_was_changed_a_moment_ago_is_unsettled(
    nanoseconds: int, later: int, is_settled: bool, tmp_path: Path
) -> None:
    """Within a tick of the kernel's clock, or a second where a file system keeps no more, times stay the same."""
    changed = 2_000_000_000 * 1_000_000_000 + nanoseconds
    stamps = Stamps(
        [array("Q", [7]), array("Q", [7]), *[array("I", [time]) for time in (2_000_000_000, nanoseconds) * 2]]
    )
    assert (stamps.unsettled(changed + later * 1_000_000) == set()) == is_settled
