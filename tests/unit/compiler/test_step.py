"""What a change of clients alone can break is found without the whole check, or nothing is said."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest

from tidegate_compiler import files
from tidegate_compiler.check import check
from tidegate_compiler.check.step import is_right
from tidegate_compiler.load import load
from tidegate_compiler.model import Inventory

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


def test_what_is_right_is_known_to_be() -> None:
    assert _judge(CONTENT, CONTENT) == (True, True)
    assert _judge(CONTENT, _with(_client("new", NEW))) == (True, True)
    assert _judge(_with(_client("new", NEW)), _with(_client("new", NEW, "10.64.9.7/32"))) == (True, True)


def test_of_other_kinds_and_of_clients_that_go_nothing_is_said() -> None:
    assert _judge(_with(_client("new", NEW)), CONTENT) == (False, True)
    assert _judge(CONTENT, {path: data for path, data in CONTENT.items() if path != OTHER})[0] is False
    for kind in ("gateways", "groups", "resources", "policies", "tests", "overlay"):
        path = next(path for path in CONTENT if path.startswith(kind))
        assert _judge(CONTENT, CONTENT | {path: CONTENT[path] + b"\n"}) == (False, True)


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

    quick = [_judge(CONTENT, some()) for _ in range(6)]
    assert all(whole for is_known, whole in quick if is_known)
