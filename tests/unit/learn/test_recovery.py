"""A policy is recovered from traffic that was drawn from it; `./run bench learn` does the same at full size."""

from __future__ import annotations

import pytest

from bench import learn, traffic
from compilerkit import compiled
from learnkit import ready
from tidegate_compiler.learn.demand import demand
from tidegate_compiler.learn.suggest import suggest


@pytest.mark.parametrize(("seed", "count"), [(1, 12_000), (2, 12_000), (3, 2_000)])
def test_suggest_recovers_the_policy_that_made_the_flows(seed: int, count: int) -> None:
    world = traffic.world(clients=60, groups=10, resources=20, policies=25, seed=seed)
    bare = compiled(world.files(with_policies=False))
    wanted = demand(traffic.flows(world, count), ready(bare.fleet), traffic.BEGIN)
    done = suggest(wanted, bare.inventory, traffic.BEGIN)
    truth, got = world.access(), learn.admitted(done)
    seen = {
        (client, service.destination, service.port)
        for service, uses in wanted.uses.items()
        for client in uses
    }
    assert seen <= got
    assert len(got & truth) >= 0.95 * len(got)
    assert sum(len(one.sources) * len(one.to) for one in done.policies) <= 1.5 * len(world.policies)
    assert not wanted.skipped


def test_with_the_true_policy_at_hand_it_stays_as_it_is() -> None:
    world = traffic.world(clients=60, groups=10, resources=20, policies=25)
    whole = compiled(world.files())
    done = suggest(
        demand(traffic.flows(world, 12_000), ready(whole.fleet), traffic.BEGIN),
        whole.inventory,
        traffic.BEGIN,
    )
    assert all(one.kept for one in done.policies)
    assert learn.admitted(done) >= {
        (client, service.destination, service.port)
        for service, uses in done.demand.uses.items()
        for client in uses
    }
