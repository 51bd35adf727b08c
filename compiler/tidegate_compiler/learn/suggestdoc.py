"""A suggestion as `--format json` prints it, as text, and as the files of an inventory."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from tidegate_compiler.diagnostics import harmless
from tidegate_compiler.edit.editor import Editor
from tidegate_compiler.learn.demand import FRAGMENT, REFUSED
from tidegate_compiler.learn.replaydoc import WHY
from tidegate_compiler.learn.replaytext import size
from tidegate_compiler.learn.suggest import Draft, Suggestion
from tidegate_compiler.plan.report import some
from tidegate_compiler.report import counted
from tidegate_compiler.times import format_instant

FORMAT = 1
_SKIPPED = {
    **WHY,
    FRAGMENT: "later fragments go the way of their first one",
    REFUSED: "refused when it was recorded",
}


def document(done: Suggestion, title: str, flows: str, at: int) -> dict[str, Any]:
    """Return the whole outcome; nothing is left out."""
    policies = [_policy(done, one) for one in done.policies]
    every = ("pairs", "pairs_seen")
    return {
        "format": FORMAT,
        "inventory": title,
        "flows": flows,
        "at": format_instant(at),
        "counts": {
            "flows": done.demand.flows,
            "admitted": done.demand.flows - sum(done.demand.skipped.values()),
            "policies": len(policies),
            **{name: sum(one["excess"][name] for one in policies) for name in every},
        },
        "policies": policies,
        "groups": [{"name": name, "members": list(done.groups[name])} for name in sorted(done.groups)],
        "left_out": [
            {"reason": reason.lower().replace("_", "-"), "why": _SKIPPED[reason], "flows": flows_of}
            for reason, flows_of in sorted(done.demand.skipped.items())
        ],
        "unused": _unused(done),
    }


def _policy(done: Suggestion, one: Draft) -> dict[str, Any]:
    use, seen = done.evidence[one.name], done.seen[one.name]
    clients = one.clients.bit_count()
    pairs_seen = sum((one.clients & done.matrix.seen[home]).bit_count() for home in one.homes)
    targets = {home.target for home in one.homes}
    addresses = sum(n.num_addresses for number in targets for n in done.land.targets[number].networks)
    reached = {
        service.destination
        for service, homes in done.land.homes.items()
        if any(home in one.homes for home in homes)
    }
    return {
        "name": one.name,
        "kept": one.kept is not None,
        "from": list(one.sources),
        "to": list(one.to),
        "ports": None if one.ports is None else list(one.ports),
        "evidence": {
            "flows": use.flows,
            "bytes": use.octets,
            "clients": seen.bit_count(),
            "days": len(use.days),
            "first": format_instant(int(use.first)),
            "last": format_instant(int(use.last)),
        },
        "excess": {
            "clients": clients - seen.bit_count(),
            "pairs": clients * len(one.homes) - pairs_seen,
            "pairs_seen": pairs_seen,
            "addresses": addresses,
            "addresses_seen": len(reached),
            "unseen": list(done.members(one.clients & ~seen)),
        },
    }


def _unused(done: Suggestion) -> dict[str, Any]:
    names = {one.name for one in done.policies}
    allow = [one.name for one in done.inventory.policies.values() if one.action == "allow"]
    of_group: dict[str, set[str]] = {}
    for one in done.policies:
        users = set(done.members(done.seen[one.name]))
        for source in one.sources:
            of_group.setdefault(source, set()).update(users)
    seen = {client for uses in done.demand.uses.values() for client in uses}
    members = {
        name: sorted(set(row[0]) - of_group.get(f"group:{name}", set()))
        for name, row in done.inventory.group_rows.items()
    }
    return {
        "policies": [name for name in allow if not done.demand.hits[name]],
        "replaced": [name for name in allow if done.demand.hits[name] and name not in names],
        "groups": [name for name in members if f"group:{name}" not in of_group],
        "members": [
            {"group": name, "members": unseen}
            for name, unseen in members.items()
            if unseen and f"group:{name}" in of_group
        ],
        "clients": sorted(done.inventory.client_rows.keys() - seen),
    }


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Yield the document as text, printable ASCII."""
    for line in _lines(told):
        yield harmless("".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in line))


def _lines(told: dict[str, Any]) -> Iterator[str]:
    counts = told["counts"]
    yield (
        f"{told['inventory']}: {counted(counts['policies'], 'policies').replace('policiess', 'policies')} admit "
        f"{counts['admitted']} of {counted(counts['flows'], 'flow')}"
    )
    yield (
        f"  {counts['pairs_seen']} pairs of a client and a service were seen, {counts['pairs']} more would be admitted"
    )
    for one in told["policies"]:
        yield ""
        yield f"{one['name']}{' (as it is)' if one['kept'] else ''}"
        ports = "" if one["ports"] is None else f" on {some(one['ports'])}"
        yield f"  {some(one['from'])} -> {some(one['to'])}{ports}"
        yield f"  seen    {evidence(one)}"
        if one["excess"]["pairs"] or one["excess"]["clients"]:
            yield f"  excess  {excess(one)}"
    for group in told["groups"]:
        yield ""
        yield f"new group {group['name']}: {some(group['members'])}"
    yield from _left(told)


def _left(told: dict[str, Any]) -> Iterator[str]:
    unused = told["unused"]
    rows = [
        ("policies that decided nothing", unused["policies"]),
        ("policies that narrower ones replace", unused["replaced"]),
        ("groups that nothing needs", unused["groups"]),
        *(
            (f"members of {one['group']} that needed nothing of it", one["members"])
            for one in unused["members"]
        ),
        ("clients that were not seen", unused["clients"]),
    ]
    if any(found for _, found in rows) or told["left_out"]:
        yield ""
    for title, found in rows:
        if found:
            yield f"{title}: {some(found)}"
    for one in told["left_out"]:
        yield f"not asked for: {counted(one['flows'], 'flow')}, {one['why']}"


def evidence(one: Mapping[str, Any]) -> str:
    """Return what was recorded of a policy, in words."""
    seen = one["evidence"]
    clients = seen["clients"] + one["excess"]["clients"]
    return (
        f"{counted(seen['flows'], 'flow')} of {seen['clients']} of {counted(clients, 'client')} on "
        f"{counted(seen['days'], 'day')}, {size(seen['bytes'])}, last {seen['last']}"
    )


def excess(one: Mapping[str, Any]) -> str:
    """Return what a policy admits beyond what was seen, in words."""
    more = one["excess"]
    idle = f"; never seen: {some(more['unseen'])}" if more["unseen"] else ""
    return f"{more['pairs']} of {more['pairs'] + more['pairs_seen']} pairs of a client and a service{idle}"


# Files -----------------------------------------------------------------------------------------------------------


def files(done: Suggestion, told: Mapping[str, Any], content: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the inventory's files with the suggestion in the place of its allow policies.

    What is kept stays where it is, with its comments. Raises LayoutError where an old policy cannot be cut out.
    """
    after = dict(content)
    kept = {one.name for one in done.policies if one.kept is not None}
    gone: dict[str, list[str]] = {}
    for name, policy in done.inventory.policies.items():
        if policy.action == "allow" and name not in kept:
            gone.setdefault(policy.where.file, []).append(name)
    for file, names in gone.items():
        edited = Editor(after[file].decode("utf-8"))
        edited.remove([(name,) for name in names])
        after[file] = edited.finish().encode("utf-8")
    new = [one for one in told["policies"] if not one["kept"]]
    for kind, text in (("policies", _policies_text(told, new)), ("groups", _groups_text(told))):
        if text:
            after[_free(kind, after)] = text.encode("ascii")
    return after


def _free(kind: str, taken: Mapping[str, bytes]) -> str:
    name, number = f"{kind}/suggested.yaml", 2
    while name in taken:
        name, number = f"{kind}/suggested-{number}.yaml", number + 1
    return name


def _policies_text(told: Mapping[str, Any], policies: list[dict[str, Any]]) -> str:
    if not policies:
        return ""
    head = f"# From {counted(told['counts']['flows'], 'recorded flow')}, as of {told['at']}: review before you merge.\n"
    return head + "".join(policy_text(one) for one in policies)


def policy_text(one: Mapping[str, Any]) -> str:
    """Return a policy of the document as YAML, with its evidence and excess as comments."""
    said = [f"{one['name']}:", f"  # {evidence(one)}"]
    if one["excess"]["pairs"]:
        said.append(f"  # beyond what was seen: {excess(one)}")
    said += [f"  from: {_list(one['from'])}", f"  to: {_list(one['to'])}", "  action: allow"]
    if one["ports"] is not None:
        said.append(f"  ports: {_list(one['ports'])}")
    return "\n".join(said) + "\n"


def _groups_text(told: Mapping[str, Any]) -> str:
    return "".join(map(group_text, told["groups"]))


def group_text(group: Mapping[str, Any]) -> str:
    """Return a group of the document as YAML."""
    return f"{group['name']}:\n  members:\n" + "".join(f"    - {name}\n" for name in group["members"])


def _list(words: list[str]) -> str:
    return f"[{', '.join(map(_word, words))}]"


def _word(text: str) -> str:
    try:
        return f'"{ipaddress.ip_network(text)}"'  # a colon would make a key of it
    except ValueError:
        return text
