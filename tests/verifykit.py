"""Outputs to damage: the example and a little more, compiled; and whether `verify` finds the damage and names it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import compilerkit
from compilerkit import key
from tidegate_compiler.pipeline import compile_files
from tidegate_compiler.verify import Difference, compare, inventory, sources
from tidegate_schema.policy import PolicyTable

Files = dict[str, bytes]
Mutant = Callable[[Files], None]
POLICY, PEERS = "gateway/fra1/policy.json", "gateway/fra1/peers.json"
GRACE = f"""
grace: {{public_key: {key("grace")}, addresses: [10.64.0.31/32, "fd64::31/128"], gateways: [fra1, nyc1, nyc2]}}
"""
STANDBY = f"""
nyc2: {{public_key: {key("nyc2")}, endpoint: "203.0.113.21:51820", networks: [10.30.0.0/16, "fd30::/48"]}}
"""
POLICIES = """
grace-four: {from: [client:grace], to: [10.20.9.0/24], ports: [any], action: allow, not_before: 2030-01-01}
grace-logs: {from: [client:grace], to: ["fd20:0:0:9::/64"], ports: [udp/514], action: allow}
"""


@functools.cache
def inventory_with_grace() -> Mapping[str, bytes]:
    """Return the example with a standby gateway, a client that has it, and two policies for her."""
    return example() | {
        "clients/grace.yaml": GRACE.encode(),
        "gateways/standby.yaml": STANDBY.encode(),
        "policies/grace.yaml": POLICIES.encode(),
    }


@functools.cache
def example() -> dict[str, bytes]:
    """Return the example organisation's inventory."""
    return sources.read(compilerkit.ROOT / "inventory")


def differences(files: Mapping[str, bytes], out: Mapping[str, bytes | None]) -> list[Difference]:
    """Return what is wrong with an output of an inventory, both in memory."""
    return list(compare.differences(inventory.facts(files), out))


def compiled(files: Mapping[str, bytes]) -> Files:
    """Return a fresh output."""
    result = compile_files(files)
    assert hasattr(result, "files"), result.diagnostics
    return dict(result.files)


class Json:
    """A JSON file of an output, open for damage: `with Json(out, path) as document: …`."""

    def __init__(self, out: Files, path: str) -> None:
        self._out, self._path = out, path

    def __enter__(self) -> Any:
        self._document = json.loads(self._out[self._path])
        return self._document

    def __exit__(self, *_: object) -> None:
        self._out[self._path] = json.dumps(self._document).encode()


class Mutants(dict[str, tuple[Mutant, str, set[str]]]):
    """Kinds of damage by name: what does it, the file that verify must name, and all that it may say about it."""

    def kind(self, file: str, *what: str) -> Callable[[Mutant], Mutant]:
        """Register a function."""

        def register(mutant: Mutant) -> Mutant:
            self[mutant.__name__] = (mutant, file, set(what))
            return mutant

        return register

    def judge(self, name: str) -> None:
        """Do the damage to a good output; verify must find it, name it, and show a packet where access changed."""
        damage, file, what = self[name]
        files = compiled(inventory_with_grace())
        before = dict(files)
        damage(files)
        assert files != before
        found = differences(inventory_with_grace(), files)
        assert {(d.file, d.what) for d in found} == {(file, one) for one in what}, list(map(str, found))
        for difference in found:
            assert str(difference).startswith(f"{file}: {difference.what}: ")
            assert "\n" not in str(difference)
            assert (difference.witness is not None) == (difference.what in ("gained", "lost"))
            if difference.witness is not None:
                _confirm(files, before, file, difference)


def _confirm(files: Files, before: Files, file: str, difference: Difference) -> None:
    """Let the gateway's own judge confirm that the two policies differ in the packet, and how."""
    point = difference.witness
    assert point is not None
    answers = {}
    for side, bundle in (("bundle", files), ("inventory", before)):
        table = PolicyTable(json.loads(bundle[file]))
        who, to = identifier(before, point.client), point.destination.packed
        answers[side] = table.decide(who, to, point.protocol, point.port, point.at).allow
    assert answers == {"bundle": difference.what == "gained", "inventory": difference.what == "lost"}
    assert difference.allows == ("bundle" if difference.what == "gained" else "inventory")


def identifier(files: Files, name: str) -> str:
    """Return a client's ID, found by its address."""
    address = files[f"client/{name}/wg0.conf"].decode().split("Address = ")[1].split(",")[0].split("\n")[0]
    peers = json.loads(files[PEERS])["peers"]
    return next(str(peer["client_id"]) for peer in peers if address in peer["allowed_ips"])
