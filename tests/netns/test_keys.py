"""The keys of a fleet change under its hosts, which nobody touches."""

from __future__ import annotations

import pytest

from netns.lab import PLACES, TIDEGATE, Agent, Lab, Signer, ping, sh, until
from tidegate_schema import keyset

pytestmark = pytest.mark.netns


def _trusts(agent: Agent) -> tuple[int, int]:
    status = agent.status()
    return (status["trust"]["key_set"], status["trust"]["threshold"]) if status else (-1, -1)


def test_a_fleet_is_moved_to_other_keys_while_everything_runs(lab: Lab) -> None:
    lab.publish(serial=1)
    lab.start(serial=1)
    assert _trusts(lab.gateway) == (0, 1)
    keys = lab.directory / "keys"
    one, two, three = lab.signer, Signer(lab.directory / "two"), Signer(lab.directory / "three")
    a, b, c = one.signer, two.signer, three.signer
    (keys / "signing.pub").write_bytes(one.public.read_bytes())

    def change(*words: object) -> None:
        sh(*TIDEGATE, "keys", *map(str, words))
        lab.signer.key_sets = keyset.read((keys / "keys.json").read_bytes())

    with_one, with_two, with_three = (("--key", signer.private) for signer in (one, two, three))
    change("add", keys, two.public, "--fleet", "example", "--threshold", 2, *with_one, *with_two)
    old = lab.signer.key_sets
    lab.signer.signer = [a, b]  # type: ignore[list-item]
    lab.bob.stop()  # and sleeps through all of it
    lab.publish(serial=2)
    for agent in (lab.alice, lab.gateway):
        until(f"{agent.name} has taken up release 2", lambda agent=agent: agent.applied(2))
        assert _trusts(agent) == (2, 2)
    change("add", keys, three.public, *with_one, *with_two)
    change("remove", keys, one.public, *with_one, *with_two, *with_three)
    lab.signer.signer = [b, c]  # type: ignore[list-item]
    lab.publish(serial=3)
    lab.bob.start()
    for agent in lab.agents:
        until(f"{agent.name} has taken up release 3", lambda agent=agent: agent.applied(3))
        assert _trusts(agent) == (4, 2)
    assert ping(lab.alice.host)

    lab.gateway.stop()  # what it trusts outlives it
    nobody = {"peers.json": lab.peers_file()}
    lab.gateway.start()
    until("the gateway has taken up release 3 again", lambda: lab.gateway.applied(3))
    lab.forget_session(lab.alice)
    for signer, key_sets, name in (
        ([a], (), "wrong-key"),
        ([a, b], (), "too-few-signatures"),
        ([a, b], old, "wrong-key-set"),
        ([], lab.signer.key_sets, "unsigned"),
    ):
        lab.signer.signer = signer  # type: ignore[assignment]
        lab.signer.key_sets = key_sets
        folder = lab.bundles / "gateway" / "fra1" / "current"
        (folder / "keys.json").unlink(missing_ok=True)
        lab.signer.publish(lab.bundles, "gateway", "fra1", nobody, 1000)
        until(f"{name} is named", lambda name=name: _refusal(lab.gateway) == name)
        assert _trusts(lab.gateway) == (4, 2)
        until("alice is served as before", lambda: ping(lab.alice.host))
    said = lab.gateway.tidegate("status", *PLACES)
    assert "signatures: 2 of 2, by key set 4" in said
    assert "unsigned" in said


def _refusal(agent: Agent) -> str | None:
    name: str | None = (((agent.status() or {}).get("refusal")) or {}).get("name")
    return name
