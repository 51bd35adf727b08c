"""Changes of an inventory that would allow a packet: each an edit in words, and the inventory as it would be.

They are made of an inventory that is cut to what this packet can meet; `proven` compiles it, and asks the one verdict.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from tidegate_compiler.advice.near import CLIENT, DESTINATION, FAMILY, PORT, TIME, Fit, Place, Target
from tidegate_compiler.diagnostics import Where
from tidegate_compiler.grants import both_ports
from tidegate_compiler.judge import Packet, court, judge
from tidegate_compiler.model import At, Client, From, Inventory, Network, Policy, Resource, To
from tidegate_compiler.networks import inside
from tidegate_compiler.resolve import Fleet
from tidegate_compiler.times import format_instant

_NAME_CHARS = 63


@dataclass(frozen=True)
class Change:
    """An edit: what to do, in one line; where; and for a new object its YAML. `after` is the inventory with it."""

    text: str
    where: Where | None
    after: Inventory
    yaml: str | None = None


def cut(inventory: Inventory, client: str, policies: Collection[str]) -> Inventory:
    """Return an inventory of one client, its memberships, and some policies, so that compiling it costs little."""
    return replace(
        inventory,
        clients={client: inventory.clients[client]},
        groups={
            name: replace(group, members=tuple(at for at in group.members if at.value == client))
            for name, group in inventory.groups.items()
        },
        policies={name: policy for name, policy in inventory.policies.items() if name in policies},
        has_policy=True,
    )


def proven(change: Change, asked: Packet) -> bool:
    """Tell whether the changed inventory allows the packet; of the gateways, only the client's are compiled."""
    after = change.after
    used = {at.value: after.gateways[at.value] for at in after.clients[asked.client].gateways}
    return judge(court(Fleet(replace(after, gateways=used))), asked).allow


def without(inventory: Inventory, policies: set[str]) -> Inventory:
    """Return an inventory without some of its policies."""
    return replace(inventory, policies={n: p for n, p in inventory.policies.items() if n not in policies})


def nearest(inventory: Inventory, found: Fit, asked: Packet, port: str, place: Place) -> Iterator[Change]:
    """Yield the edits that give a policy the one thing it lacks."""
    yield from {
        TIME: _later,
        PORT: _port,
        CLIENT: _client,
        FAMILY: _destination,
        DESTINATION: _destination,
    }[found.missing[0]](inventory, found, asked, port, place)


def _with_policy(inventory: Inventory, policy: Policy) -> Inventory:
    return replace(inventory, policies={**inventory.policies, policy.name: policy})


def _with_resource(inventory: Inventory, resource: Resource) -> Inventory:
    return replace(inventory, resources={**inventory.resources, resource.name: resource})


def _client(inventory: Inventory, found: Fit, asked: Packet, _: str, __: Place) -> Iterator[Change]:
    policy = found.policy
    sources = (*policy.sources, At(From("client", asked.client), policy.where))
    text = f"add client:{asked.client} to 'from' of policy {policy.name}"
    yield Change(text, policy.where, _with_policy(inventory, replace(policy, sources=sources)))
    for source in policy.sources:
        if source.value.kind == "group":
            group = inventory.groups[source.value.name]
            members = (*group.members, At(asked.client, group.where))
            after = replace(
                inventory, groups={**inventory.groups, group.name: replace(group, members=members)}
            )
            text = f"add {asked.client} to 'members' of group {group.name}"
            yield Change(f"{text}, which other policies may name, too", group.where, after)


def _port(inventory: Inventory, found: Fit, asked: Packet, port: str, place: Place) -> Iterator[Change]:
    """Both a policy and a resource may say ports: whichever leaves the packet's out is given it."""
    policy, family = found.policy, asked.address.version
    for target in found.targets:
        if not target.holds(asked):
            continue
        after, words = inventory, []
        if policy.ports is not None and not _admits(policy.ports, asked, family):
            ports = (*policy.ports, At(port, policy.where))
            after = _with_policy(after, replace(policy, ports=ports))
            words.append(f"add {port} to 'ports' of policy {policy.name}")
        where = policy.where
        served = inventory.resources[target.resource] if target.resource else None
        if served is not None and served.ports is not None and not _admits(served.ports, asked, family):
            ports = (*served.ports, At(port, served.where))
            after = _with_resource(after, replace(served, ports=ports))
            where = where if words else served.where
            also = f" ({place(served.where)})" if words else ""
            words.append(f"add {port} to 'ports' of resource {served.name}{also}")
        if words:
            yield Change(" and ".join(words), where, after)


def _admits(texts: tuple[At[str], ...], asked: Packet, family: int) -> bool:
    return Target(None, (), tuple(both_ports([at.value for at in texts], None, family))).admits(asked)


def _destination(inventory: Inventory, found: Fit, asked: Packet, _: str, __: Place) -> Iterator[Change]:
    policy, alone = found.policy, single(asked)
    to = (*policy.destinations, At(To(prefix=alone), policy.where))
    text = f"add {alone} to 'to' of policy {policy.name}"
    yield Change(text, policy.where, _with_policy(inventory, replace(policy, destinations=to)))
    for target in found.targets:
        if target.resource:
            resource = inventory.resources[target.resource]
            addresses = (*resource.addresses, At(alone, resource.where))
            text = f"add {alone} to 'addresses' of resource {resource.name}"
            after = _with_resource(inventory, replace(resource, addresses=addresses))
            yield Change(text, resource.where, after)


def _later(inventory: Inventory, found: Fit, asked: Packet, _: str, __: Place) -> Iterator[Change]:
    """Open the policy's window, and the memberships' as far as they close it."""
    policy = found.policy
    at = format_instant(int(asked.at))
    past = policy.expires is not None and policy.expires.value <= asked.at
    early = policy.not_before is not None and policy.not_before.value > asked.at
    if past or early:
        field = "expires" if past else "not_before"
        limit = policy.expires if past else policy.not_before
        assert limit is not None
        opened = replace(policy, expires=None) if past else replace(policy, not_before=None)
        words = f"let '{field}' of policy {policy.name} be {'after' if past else 'at or before'} {at}"
        yield Change(words, limit.where, _with_policy(inventory, opened))
    for source in policy.sources:
        if source.value.kind != "group":
            continue
        group = inventory.groups[source.value.name]
        end, begin = group.expires.get(asked.client), group.not_before.get(asked.client)
        mine, field, when = None, "", ""
        if end is not None and end.value <= asked.at:
            mine, field, when = end, "expires", "after"
            longer = replace(group, expires={k: v for k, v in group.expires.items() if k != asked.client})
        elif begin is not None and begin.value > asked.at:
            mine, field, when = begin, "not_before", "at or before"
            longer = replace(
                group, not_before={k: v for k, v in group.not_before.items() if k != asked.client}
            )
        if mine is not None:
            words = f"let '{field}' of {asked.client} in group {group.name} be {when} {at}"
            after = replace(inventory, groups={**inventory.groups, group.name: longer})
            yield Change(words, mine.where, after)


def single(asked: Packet) -> Network:
    """Return the prefix that holds the packet's address alone."""
    return ipaddress.ip_network(asked.address)


def new_policy(inventory: Inventory, asked: Packet, port: str, taken: Collection[str]) -> Change:
    """Return the policy that allows this packet and nothing else, by a name that is not taken."""
    base = f"{asked.client}-{port.replace('/', '-')}"[: _NAME_CHARS - 4].rstrip("-")
    name = next(one for one in (base, *(f"{base}-{n}" for n in range(2, 1000))) if one not in taken)
    alone, where = single(asked), Where("policies/")
    policy = Policy(
        name,
        where,
        "allow",
        (At(From("client", asked.client), where),),
        (At(To(prefix=alone), where),),
        (At(port, where),),
        None,
        None,
    )
    prefix = f'"{alone}"' if alone.version == 6 else str(alone)
    yaml = f"{name}:\n  from: [client:{asked.client}]\n  to: [{prefix}]\n  ports: [{port}]\n  action: allow\n"
    return Change("add a policy for this packet alone", None, _with_policy(inventory, policy), yaml)


def ways(inventory: Inventory, asked: Packet) -> Iterator[Change]:
    """Yield what would give the client a route: an address of the family, or a gateway with a network that holds the
    packet's address and clashes with none of the client's own.
    """
    client, version = inventory.clients[asked.client], asked.address.version
    if version not in client.families:
        overlay = (at.value for at in inventory.overlay.prefixes if at.value.version == version)
        for prefix in islice(overlay, 1):  # whichever address it gets, the verdict is the same
            host = At[Network](ipaddress.ip_network(prefix.broadcast_address), client.where)
            mine = replace(client, addresses=(*client.addresses, host))
            text = f"add an IPv{version} address of the overlay to 'addresses' of client {client.name}"
            yield Change(text, client.where, _with_client(inventory, mine))
        return
    known = [inventory.gateways[at.value] for at in client.gateways]
    for gateway in inventory.gateways.values():
        reaches = any(inside(asked.address, network) for network in gateway.network_set)
        clash = any(
            one.network_set & gateway.network_set and one.network_set != gateway.network_set for one in known
        )
        if reaches and gateway not in known and not clash:
            mine = replace(client, gateways=(*client.gateways, At(gateway.name, client.where)))
            text = f"add {gateway.name} to 'gateways' of client {client.name}"
            yield Change(text, client.where, _with_client(inventory, mine))


def _with_client(inventory: Inventory, client: Client) -> Inventory:
    return replace(inventory, clients={**inventory.clients, client.name: client})
