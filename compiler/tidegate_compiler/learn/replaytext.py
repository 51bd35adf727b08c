"""A replay's document as text for a terminal and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate_compiler.diagnostics import harmless
from tidegate_compiler.plan.report import some
from tidegate_compiler.report import counted

SHOWN = 40
"""Entries of each kind that text shows; JSON has all."""
_UNITS = ("B", "kB", "MB", "GB", "TB")


def lines(document: dict[str, Any]) -> Iterator[str]:
    """Yield the lines, printable ASCII."""
    for line in _lines(document):
        yield harmless("".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in line))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    yield f"{document['inventory']}: {summary(document)}"
    yield f"  recorded {span(document)}; judged {moment(document)}"
    yield from (f"  {line}" for line in cautions(document))
    for kind, title, sign in (("breaks", "would break", "-"), ("passes", "refused so far, would pass", "+")):
        if document[kind]:
            yield ""
            yield title
        for one in document[kind][:SHOWN]:
            yield f"  {sign} {who(one)} -> {to(one)} {some(one['ports'])}".rstrip()
            yield f"      {evidence(one)}; {because(one)}"
        if len(document[kind]) > SHOWN:
            yield f"  and {len(document[kind]) - SHOWN} more; --json has all"


def summary(document: dict[str, Any]) -> str:
    """Return the totals in one line."""
    counts = document["counts"]
    against = f" that pass in {document['against']}" if document["against"] else ""
    gained = f" that {document['against']} refuses" if document["against"] else " that were refused"
    if not counts["flows"]:
        return "no flow was recorded, so nothing is known; look at --flows, the time, --gateway and --client"
    if not document["changes"]:
        return f"{counted(counts['flows'], 'flow')}, all as before"
    breaks, passes = (
        f"{counted(counts[kind], 'flow')} of {counted(len(clients(document[kind])), 'client')}"
        for kind in ("breaks", "passes")
    )
    return f"{breaks}{against} would break, {passes}{gained} would pass, of {counts['flows']}"


def span(document: dict[str, Any]) -> str:
    """Return from when until when was recorded."""
    return f"{document['first']} to {document['last']}" if document["first"] else "nothing"


def moment(document: dict[str, Any]) -> str:
    """Return when verdicts were asked for."""
    return "at its own time" if document["at"] == "recorded" else f"as of {document['at']}"


def cautions(document: dict[str, Any]) -> Iterator[str]:
    """Yield what makes the outcome less than whole."""
    counts = document["counts"]
    if counts["unjudged"]:
        yield f"{counted(counts['unjudged'], 'flow')} not judged: later fragments go the way of their first one"
    if counts["gaps"]:
        yield f"{counted(counts['gaps'], 'gap')}: events of flows may be missing"
    if counts["unreadable_lines"]:
        yield f"{counted(counts['unreadable_lines'], 'line')} passed over: not an event"


def clients(entries: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return the clients of entries."""
    return {(one["name"] or "", one["client_id"] or "") for entry in entries for one in entry["clients"]}


def who(one: dict[str, Any]) -> str:
    """Return the group if these clients are one, else the clients."""
    if one["group"]:
        return f"{one['group']} ({counted(len(one['clients']), 'client')})"
    return some([client(one) for one in one["clients"]])


def client(one: dict[str, Any]) -> str:
    """Return a client's name, with what it was called when it was recorded."""
    name = one["name"] or "an unknown source"
    return f"{name} (was {', '.join(one['was'])})" if one["was"] else name


def to(one: dict[str, Any]) -> str:
    """Return the destinations: the resource where all of them are of one."""
    resources = {place["resource"] for place in one["to"]}
    addresses = some([place["address"] or "nowhere that can be told" for place in one["to"]])
    (named,) = resources if len(resources) == 1 else (None,)
    return f"resource:{named} ({addresses})" if named else addresses


def evidence(one: dict[str, Any]) -> str:
    """Return what was recorded of it."""
    return f"{counted(one['flows'], 'flow')}, {size(one['bytes'])}, {counted(one['days'], 'day')}, last {one['last']}"


def because(one: dict[str, Any]) -> str:
    """Return the reason, with the policy that decides and its place."""
    if one["policy"] is None:
        return str(one["why"])
    place = f" ({one['file']}:{one['line']})" if one["file"] else ""
    return f"{one['why'].replace('the policy', one['policy'], 1)}{place}"


def size(octets: int) -> str:
    """Return bytes with a unit."""
    number = float(octets)
    for unit in _UNITS:
        if number < 1000 or unit == _UNITS[-1]:
            break
        number /= 1000
    return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"
