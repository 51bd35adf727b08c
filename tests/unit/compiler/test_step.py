"""What a change of clients alone can break is found without the whole check, or nothing is said."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest

from tidegate_compiler import files
from tidegate_compiler.check import Reading, check
from tidegate_compiler.check.step import is_as_right, is_right
from tidegate_compiler.load import load
from tidegate_compiler.model import Inventory
from tidegate_compiler.pipeline import validate_files

EXAMPLE = Path(__file__).parents[3] / "inventory"
OTHER = "clients/operations.yaml"
CONTENT = files.read(EXAMPLE)[0]


def _client(name: str, key: bytes, address: str = "10.64.9.9/32", gateways: str = "fra1") -> str:
    text = base64.b64encode(key).decode()
    return f'{name}: {{public_key: "{text}", addresses: ["{address}"], gateways: [{gateways}]}}\n'


def _judge(before: dict[str, bytes], after: dict[str, bytes]) -> tuple[bool, bool]:
    """Return what the quick look and what the whole check says of a change: right or not."""
    old, _ = load(before)
    known = check(old, [], before, with_warnings=False).inventory
    assert isinstance(known, Inventory)
    new, flaws = load(after, like=old)
    whole = check(new, flaws, after, with_warnings=False)
    return is_right(known, old, new), whole.inventory is not None


def _judge_beside(right: dict[str, bytes], other: dict[str, bytes]) -> tuple[bool, bool]:
    """Return what the quick look beside an inventory that is right, and what the whole check, says of another one."""
    theirs, _ = load(right)
    known = check(theirs, [], right).inventory
    assert known is not None
    documents, flaws = load(other, like=theirs)
    is_known = not flaws and is_as_right(Reading.of(documents), known, theirs)
    return is_known, validate_files(other).inventory is not None


def _with(text: str, file: str = "clients/new.yaml") -> dict[str, bytes]:
    return CONTENT | {file: CONTENT.get(file, b"") + text.encode()}


def _row_of(name: str) -> tuple[bytes, str]:
    documents, _ = load(CONTENT)
    known = check(documents, [], CONTENT).inventory
    assert known is not None
    client = known.clients[name]
    return client.public_key.value, str(client.addresses[0].value)


KEY, ADDRESS = _row_of("carol-laptop")
NEW = bytes(range(1, 33))

BAD = {
    "a name of another file": _client("carol-laptop", NEW),
    "a key of another file": _client("new", KEY),
    "the other spelling of a key of another file": _client("new", KEY[:-1] + bytes([KEY[-1] ^ 0x80])),
    "an address of another file": _client("new", NEW, ADDRESS),
    "an address outside the overlay": _client("new", NEW, "10.99.0.1/32"),
    "a gateway that is not there": _client("new", NEW, gateways="nowhere"),
    "two of one file with one key": _client("new", NEW) + _client("newer", NEW, "10.64.9.8/32"),
    "the key of a gateway": "",
    "not as the schema has it": "new: {public_key: x}\n",
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_is_wrong_is_left_to_the_whole_check(name: str) -> None:
    text = BAD[name]
    if name == "the key of a gateway":
        documents, _ = load(CONTENT)
        known = check(documents, [], CONTENT).inventory
        assert known is not None
        text = _client("new", known.gateways["fra1"].public_key.value)
    assert _judge(CONTENT, _with(text)) == (False, False)
    assert _judge_beside(CONTENT, _with(text)) == (False, False)


def test_what_is_right_is_known_to_be() -> None:
    assert _judge(CONTENT, CONTENT) == (True, True)
    assert _judge(CONTENT, _with(_client("new", NEW))) == (True, True)
    assert _judge(_with(_client("new", NEW)), _with(_client("new", NEW, "10.64.9.7/32"))) == (True, True)


GROUP = "groups/new.yaml"
POLICY = "policies/new.yaml"
ALLOW = "action: allow"
RIGHT = {
    "a group": (GROUP, "new: {members: [carol-laptop], expires: {carol-laptop: 2031-01-01}}\n"),
    "a policy": (
        POLICY,
        f"new: {{from: [client:carol-laptop, group:operators], to: [10.20.7.0/24], ports: [any], {ALLOW}}}\n",
    ),
    "a policy of a resource": (POLICY, f"new: {{from: [all-clients], to: [resource:prod-db], {ALLOW}}}\n"),
    "a test": ("tests/new.yaml", "- {from: client:carol-laptop, to: 10.20.5.3, port: icmp, expect: deny}\n"),
}
WRONG = {
    "a group with a member that is not there": (GROUP, "new: {members: [nobody]}\n"),
    "a group of a name of another file": (GROUP, "operators: {members: [carol-laptop]}\n"),
    "a group in a group": (GROUP, "new: {members: [operators]}\n"),
    "a window that is empty": (
        GROUP,
        "new: {members: [carol-laptop], not_before: {carol-laptop: 2032-01-01}, expires: {carol-laptop: 2031-01-01}}\n",
    ),
    "a window of no member": (GROUP, "new: {members: [carol-laptop], expires: {bob-laptop: 2031-01-01}}\n"),
    "a policy from a group that is not there": (
        POLICY,
        f"new: {{from: [group:no], to: [10.20.7.0/24], ports: [any], {ALLOW}}}\n",
    ),
    "a policy from a client that is not there": (
        POLICY,
        f"new: {{from: [client:no], to: [10.20.7.0/24], ports: [any], {ALLOW}}}\n",
    ),
    "a policy to a resource that is not there": (
        POLICY,
        f"new: {{from: [all-clients], to: [resource:no], ports: [any], {ALLOW}}}\n",
    ),
    "a policy without ports": (POLICY, f"new: {{from: [all-clients], to: [10.20.7.0/24], {ALLOW}}}\n"),
    "a policy to a gateway's own address": (
        POLICY,
        f"new: {{from: [all-clients], to: [203.0.113.0/24], ports: [any], {ALLOW}}}\n",
    ),
    "a test that is no test": (
        "tests/new.yaml",
        "- {from: all-clients, to: 10.20.5.3, port: icmp, expect: deny}\n",
    ),
    "a test of nobody": ("tests/new.yaml", "- {from: client:no, to: 10.20.5.3, port: icmp, expect: deny}\n"),
    "a test with a field too many": (
        "tests/new.yaml",
        "- {from: client:bob-laptop, to: 10.20.5.3, port: icmp, expect: deny, x: y}\n",
    ),
}


@pytest.mark.parametrize("name", list(RIGHT))
def test_of_other_kinds_what_is_right_is_known_to_be(name: str) -> None:
    file, text = RIGHT[name]
    assert _judge(CONTENT, _with(text, file)) == (True, True)
    assert _judge_beside(CONTENT, _with(text, file)) == (True, True)
    assert _judge_beside(_with(text, file), CONTENT) == (True, True)


@pytest.mark.parametrize("name", list(WRONG))
def test_of_other_kinds_what_is_wrong_is_left_to_the_whole_check(name: str) -> None:
    file, text = WRONG[name]
    assert _judge(CONTENT, _with(text, file)) == (False, False)
    assert _judge_beside(CONTENT, _with(text, file)) == (False, False)


def test_a_policy_that_has_the_name_of_another_file() -> None:
    documents, _ = load(CONTENT)
    known = check(documents, [], CONTENT).inventory
    assert known is not None
    name = next(iter(known.policies))
    text = f"{name}: {{from: [all-clients], to: [resource:prod-db], {ALLOW}}}\n"
    assert _judge(CONTENT, _with(text, POLICY)) == (False, False)


def test_of_what_others_depend_on_nothing_is_said() -> None:
    assert _judge(_with(_client("new", NEW)), CONTENT) == (False, True)
    for gone in (OTHER, "groups/people.yaml"):
        assert gone in CONTENT
        assert _judge(CONTENT, {path: data for path, data in CONTENT.items() if path != gone})[0] is False
    for kind in ("gateways", "resources", "overlay"):
        path = next(path for path in CONTENT if path.startswith(kind))
        assert _judge(CONTENT, CONTENT | {path: CONTENT[path] + b"\n"}) == (False, True)
    for kind in ("clients", "groups", "policies", "tests"):
        path = next(path for path in CONTENT if path.startswith(kind))
        assert _judge(CONTENT, CONTENT | {path: CONTENT[path] + b"\n"}) == (True, True)


RESOURCE = "resources/new.yaml"
POLICIES_OF_IT = f"new: {{from: [all-clients], to: [resource:new], ports: [tcp/80], {ALLOW}}}\n"
SERVED = "new: {addresses: [10.20.7.0/24], ports: [tcp/80]}\n"
BESIDE = _with(POLICIES_OF_IT, POLICY) | {RESOURCE: SERVED.encode()}


@pytest.mark.parametrize(
    "text",
    [
        "",  # a policy names it
        SERVED.replace("tcp/80", "tcp/81"),  # no port in common with that policy
        SERVED.replace("10.20.7.0", "192.0.2.0"),  # behind no gateway
        SERVED.replace("10.20.7.0/24", "203.0.113.0/24"),  # has a gateway's own address
        SERVED.replace("tcp/80", "tcp/80, x"),
    ],
)
def test_a_resource_that_is_wrong_is_left_to_the_whole_check(text: str) -> None:
    other = {path: data for path, data in BESIDE.items() if path != RESOURCE or text}
    if text:
        other[RESOURCE] = text.encode()
    assert _judge_beside(BESIDE, other) == (False, False)


def test_beside_an_inventory_that_is_right_another_one_is_known_to_be() -> None:
    assert _judge_beside(CONTENT, BESIDE) == (True, True)
    assert _judge_beside(BESIDE, CONTENT) == (True, True)
    assert _judge_beside(BESIDE, BESIDE | {RESOURCE: SERVED.replace("7.0/24", "8.0/24").encode()}) == (
        True,
        True,
    )
    warning = (
        "new: {from: [all-clients], to: [10.20.7.0/24], ports: [any], action: deny, expires: 2040-01-01}\n"
    )
    assert _judge_beside(CONTENT, _with(warning, POLICY)) == (True, True)


@pytest.mark.parametrize("file", [OTHER, "groups/people.yaml"])
def test_beside_it_nothing_may_refer_to_what_is_missing(file: str) -> None:
    other = {path: data for path, data in CONTENT.items() if path != file}
    assert _judge_beside(CONTENT, other) == (False, False)


@pytest.mark.parametrize(
    ("gone", "file", "text"),
    [
        ("clients/new.yaml", GROUP, "new: {members: [new]}\n"),
        ("clients/new.yaml", POLICY, POLICIES_OF_IT.replace("all-clients", "client:new")),
        (GROUP, POLICY, POLICIES_OF_IT.replace("all-clients", "group:new")),
    ],
)
def test_beside_it_nothing_unchanged_may_refer_to_what_is_missing(gone: str, file: str, text: str) -> None:
    added = {
        "clients/new.yaml": _client("new", NEW).encode(),
        GROUP: b"new: {members: [carol-laptop]}\n",
        RESOURCE: SERVED.encode(),
        file: text.encode(),
    }
    whole = CONTENT | added
    assert _judge_beside(CONTENT, whole) == (True, True)
    assert _judge_beside(whole, {path: data for path, data in whole.items() if path != gone}) == (
        False,
        False,
    )


def test_beside_another_overlay_or_other_gateways_nothing_is_said() -> None:
    for kind in ("gateways", "overlay"):
        file = next(path for path in CONTENT if path.startswith(kind))
        assert _judge_beside(CONTENT, CONTENT | {file: b"# one line more\n" + CONTENT[file]}) == (False, True)


@pytest.mark.parametrize("seed", range(40))
def test_it_never_calls_right_what_the_whole_check_refuses(seed: int) -> None:
    chance = random.Random(seed)
    keys = [bytes([n]) * 31 + b"\1" for n in range(1, 7)] + [KEY]
    addresses = [f"10.64.9.{n}/32" for n in range(6)] + [ADDRESS, "10.65.0.1/32", "fd64::99/128"]
    names = ["n1", "n2", "n3", "n4", "carol-laptop", "bob-laptop"]

    def some() -> dict[str, bytes]:
        made = dict(CONTENT)
        for file in ("clients/new.yaml", "clients/newer.yaml"):
            chosen = chance.sample(names[:4] if chance.random() < 0.8 else names, chance.randint(0, 2))
            made[file] = "".join(
                _client(
                    name,
                    chance.choice(keys),
                    chance.choice(addresses),
                    chance.choice(["fra1", "nyc1", "fra1, nyc1"]),
                )
                for name in chosen
            ).encode()
        return made

    quick = [judge(CONTENT, some()) for _ in range(6) for judge in (_judge, _judge_beside)]
    assert all(whole for is_known, whole in quick if is_known)
