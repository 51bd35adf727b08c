"""The plan's document as text for a terminal: access first, then limits, hosts that reload, and objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tidegate_compiler.diagnostics import harmless

SHOWN = 8
"""How many members of a list a line shows; the rest is counted. JSON has them all."""


def lines(document: dict[str, Any]) -> Iterator[str]:
    """Yield the plan's lines, printable ASCII whatever the files are called."""
    for line in _lines(document):
        yield harmless("".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in line))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    yield f"{document['old']['name']} -> {document['new']['name']}: {summary(document)}"
    for limit in document["limits"]:
        yield f"limit {limit['name']} exceeded: {limit['message']}; publish needs --allow {limit['name']}"
    for kind, sign in (("gained", "+"), ("lost", "-")):
        if document["access"][kind]:
            yield ""
            yield f"access {kind}"
        for one in document["access"][kind]:
            yield f"  {sign} {who(one)} -> {some(one['to'])} on {some(one['ports'])}{when(one)}"
            yield f"      {cause(kind, one)}"
            for witness in one["witnesses"]:
                yield f"      for instance {witness_text(witness)}"
    if document["bundles"]:
        yield ""
        yield "hosts that reload"
    for bundle in document["bundles"]:
        yield f"  {bundle['kind']} {bundle['host']}{'' if bundle['change'] == 'changed' else ' ' + bundle['change']}"
        if bundle["change"] == "changed":
            for file in bundle["files"]:
                yield f"      {file['file']}: {some(file['parts'], '; ') or file['change']}"
    if document["objects"]:
        yield ""
        yield "objects"
    for one in document["objects"] or ():
        was = f" (was {one['was']})" if one["was"] else ""
        yield f"  {one['kind']} {one['name']} {one['change']}{was}, {one['file']}:{one['line']}"
        for field in one["fields"]:
            yield f"      {field['field']}: {field_text(field)}"


def summary(document: dict[str, Any]) -> str:
    """Return the full totals in one line."""
    if not document["changes"]:
        return "no changes"
    access, objects = document["access"], document["objects"]
    gained, lost = (
        f"{len(access[kind])} {kind} ({_count(len(clients_of(access[kind])), 'client')})"
        for kind in ("gained", "lost")
    )
    changed = "not compared, a side is a compile output" if objects is None else f"{len(objects)} changed"
    hosts = _count(len(document["bundles"]), "host")
    return f"access: {gained}, {lost}; bundles: {hosts} to reload; objects: {changed}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clients_of(rows: Sequence[dict[str, Any]]) -> set[str]:
    """Return the IDs of all clients of these differences."""
    return {client["client_id"] for row in rows for client in row["clients"]}


def who(one: dict[str, Any]) -> str:
    """Return the group if it has a name, else the clients."""
    if one["group"]:
        return f"{one['group']} ({_count(len(one['clients']), 'client')})"
    return some([f"{c['name']} (new key)" if c["new_key"] else c["name"] for c in one["clients"]])


def some(values: Sequence[str], comma: str = ", ") -> str:
    """Return the first values of a list, and how many more there are."""
    shown = comma.join(values[:SHOWN])
    return shown if len(values) <= SHOWN else f"{shown} and {len(values) - SHOWN} more"


def when(one: dict[str, Any]) -> str:
    """Return the window of time, or nothing for always."""
    begin = f", from {one['not_before']}" if one["not_before"] else ""
    return begin + (f", until {one['expires']}" if one["expires"] else "")


def place(told: dict[str, Any]) -> str:
    """Return a policy with its place, as far as it is known."""
    return f"{told['name']} ({told['file']}:{told['line']})" if told["file"] else str(told["name"])


def cause(kind: str, one: dict[str, Any]) -> str:
    """Return which policy grants or took it."""
    policy, denied_by = one["policy"], one["denied_by"]
    if kind == "gained":
        return f"granted by {place(policy)}" + (
            f", no longer denied by {place(denied_by)}" if denied_by else ""
        )
    return f"denied by {place(denied_by)}" if denied_by else f"no longer granted by {place(policy)}"


def witness_text(witness: dict[str, Any], arrow: str = "->") -> str:
    """Return one packet in the words of `explain`."""
    at = f" at {witness['at']}" if witness["at"] else ""
    return f"{witness['client']} {arrow} {witness['destination']} {witness['port']}{at}"


def field_text(field: dict[str, Any]) -> str:
    """Return what a field no longer says and what it says now."""
    parts = [f"{sign} {some(field[key])}" for sign, key in (("-", "removed"), ("+", "added")) if field[key]]
    return "; ".join(parts) or "another order"
