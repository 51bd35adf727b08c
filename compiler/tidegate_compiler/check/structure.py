"""Shape: every schema problem of a document as a diagnostic at the key or value that causes it.

A value of the wrong written form (keyword `pattern`) is left to the field's own reader, which knows a better
code and reason; the patterns travel along, so that `read` can make sure that none of them is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tidegate_compiler.diagnostics import Diagnostic, Where, did_you_mean, show
from tidegate_compiler.fields import NAME_RULE
from tidegate_compiler.load import Document
from tidegate_compiler.yamltree import Node, plain
from tidegate_schema import validation
from tidegate_schema.names import is_name
from tidegate_schema.validation import SchemaProblem

# Local settings of a gateway, or secrets of a host. The control plane distributes neither (design: what the
# seed prohibits), so a file that carries one is refused by name wherever it stands.
RESERVED = {
    "authz_mode": "a local setting of the gateway, never distributed; use 'tidegate gateway set'",
    "logging_enabled": "a local setting of the gateway, never distributed; use 'tidegate gateway set'",
    "private_key": "a private key stays on its host; remove it, make a new key pair, publish the public key",
}

_TYPES = {"object": "a mapping", "array": "a list", "string": "text"}


@dataclass(frozen=True)
class Unread:
    """A value that its schema's pattern refuses; some reader must have said so too."""

    where: Where
    message: str


def structure(document: Document) -> tuple[list[Diagnostic], list[Unread]]:
    """Return the problems of one document's shape, and the values left to their readers."""
    problems = list(_reserved(document, document.root, depth=0))
    unread: list[Unread] = []
    seen: set[tuple[Any, ...]] = set()
    value = plain(document.root)
    for problem in (
        () if validation.is_valid(document.kind, value) else validation.errors(document.kind, value)
    ):
        if (problem.path, problem.keyword) in seen and problem.keyword in (
            "required",
            "additionalProperties",
        ):
            continue  # jsonschema repeats these once per field; `_diagnose` names all fields at once
        seen.add((problem.path, problem.keyword))
        node = locate(document.root, problem.path)
        if problem.keyword == "pattern" and not isinstance(node.value, dict):
            where = Where(document.file, node.line, node.column)
            unread.append(Unread(where, f"{show(node.value)} is not of the form its field has"))
            continue
        problems.extend(_diagnose(document, node, problem))
    return problems, unread


def locate(root: Node, path: tuple[str | int, ...]) -> Node:
    """Return the node at a schema problem's path."""
    node = root
    for step in path:
        if isinstance(node.value, dict):
            node = node.value[str(step)].node
        elif isinstance(node.value, list):
            node = node.value[int(step)]
    return node


def _reserved(document: Document, node: Node, depth: int) -> Iterator[Diagnostic]:
    if isinstance(node.value, dict):
        for key, member in node.value.items():
            # At the top of a file stand objects' names, and "privatekey" may well be one.
            name = _reserved_name(key) if depth > 0 or not is_name(key) else None
            if name is not None:
                where = Where(document.file, member.line, member.column)
                yield Diagnostic(where, "TG013", f"{show(key)} is refused: {RESERVED[name]}")
            yield from _reserved(document, member.node, depth + 1)
    elif isinstance(node.value, list):
        for item in node.value:
            yield from _reserved(document, item, depth + 1)


def _reserved_name(key: str) -> str | None:
    """Return the reserved field a key spells, however it is written: PrivateKey, private-key, private_key."""
    folded = key.lower().replace("-", "").replace("_", "")
    return next((name for name in RESERVED if name.replace("_", "") == folded), None)


def _diagnose(document: Document, node: Node, problem: SchemaProblem) -> Iterator[Diagnostic]:
    here = Where(document.file, node.line, node.column)
    subject = f"{show(problem.path[-1])}: " if problem.path and isinstance(problem.path[-1], str) else ""
    match problem.keyword:
        case "additionalProperties":
            yield from _unknown_fields(document, node, problem.path)
        case "required":
            yield from _missing_fields(document, node, problem)
        case "pattern":
            yield from _bad_name(document.file, node, problem.value)
        case "minItems":
            code = "TG044" if document.kind == "clients" and problem.path[-1] == "gateways" else "TG015"
            text = (
                "a client without a gateway; list one"
                if code == "TG044"
                else ("an empty list means nothing, never everything; fill it or remove it")
            )
            yield Diagnostic(here, code, subject + text)
        case "uniqueItems":
            yield from _repeated(document.file, node)
        case "type" if not problem.path:
            wanted = "a list of tests" if document.kind == "tests" else "a mapping from name to object"
            message = f"the file holds {show(node.value)}; it must be {wanted}{_space_hint(node.value)}"
            yield Diagnostic(here, "TG009", message)
        case "type":
            yield Diagnostic(here, "TG014", subject + _wrong_type(node.value, problem))
        case "enum":
            wanted = " or ".join(map(str, problem.expected))
            yield Diagnostic(here, "TG014", f"{subject}{show(node.value)}; write {wanted}")
        case "maxItems":
            yield Diagnostic(here, "TG014", f"{subject}more than {problem.expected} entries")
        case "maxLength":
            return  # a pattern refuses it too, and its reader has the better reason
        case _:
            yield Diagnostic(
                here, "TG014", f"{subject}{show(node.value)} breaks the schema ({problem.keyword})"
            )


def _wrong_type(value: Any, problem: SchemaProblem) -> str:
    """Say what stands where something else is wanted, and what to write: a list, a port, text, or anything at all."""
    wanted = _TYPES.get(str(problem.expected), "another type")
    field = next((step for step in reversed(problem.path) if isinstance(step, str)), "")
    if value is None:
        return f"nothing where {wanted} is wanted; write it, or remove the line"
    told = f"{show(value)} where {wanted} is wanted"
    if isinstance(value, list | dict):
        return told + ("; write one value, without brackets" if wanted == "text" else "")
    if wanted == "a list":
        return f"{told}; write it in brackets, [...]"
    if wanted == "text" and field in ("port", "ports") and type(value) is int and 0 <= value <= 65535:
        return f"{told}; write tcp/{value} or udp/{value}"
    return told + ("; put it in quotes" if wanted == "text" else "")


def _space_hint(text: Any) -> str:
    """Return a hint for `name:value`, which YAML takes for one text."""
    return "; a ':' needs a space behind it" if isinstance(text, str) and re.match(r"[\w-]+:", text) else ""


def _fields(kind: str, path: tuple[str | int, ...]) -> list[str]:
    schema = validation.schema(kind)
    for step in path:
        if isinstance(step, int):
            schema = schema["items"]
        else:
            schema = schema.get("properties", {}).get(step) or schema["additionalProperties"]
    return list(schema.get("properties", {}))


def _unknown_fields(document: Document, node: Node, path: tuple[str | int, ...]) -> Iterator[Diagnostic]:
    known = _fields(document.kind, path)
    assert isinstance(node.value, dict)
    for key, member in node.value.items():
        if key not in known and _reserved_name(key) is None:
            hint = _space_hint(key) or did_you_mean(key, known) or f"; known here: {', '.join(known)}"
            where = Where(document.file, member.line, member.column)
            yield Diagnostic(where, "TG011", f"unknown field {show(key)}{hint}")


def _missing_fields(document: Document, node: Node, problem: SchemaProblem) -> Iterator[Diagnostic]:
    assert isinstance(node.value, dict)
    missing = [field for field in problem.expected if field not in node.value]
    where = place_of(document, problem.path, node)
    owner = f"{show(problem.path[-1])} has no " if problem.path else "there is no "
    if isinstance(owner, str) and problem.path and isinstance(problem.path[-1], int):
        owner = "the test has no "
    if document.kind == "clients" and "gateways" in missing:
        missing.remove("gateways")
        yield Diagnostic(where, "TG044", f"{owner}gateways: a client without a gateway; list one")
    if missing:
        yield Diagnostic(where, "TG012", f"{owner}{', '.join(missing)}; add it")


def place_of(document: Document, path: tuple[str | int, ...], node: Node) -> Where:
    """Return where an object's name stands, or the object itself when it has none."""
    if path and isinstance(path[-1], str):
        parent = locate(document.root, path[:-1]).value
        if isinstance(parent, dict):
            member = parent[path[-1]]
            return Where(document.file, member.line, member.column)
    return Where(document.file, node.line, node.column)


def _bad_name(file: str, node: Node, name: Any) -> Iterator[Diagnostic]:
    assert isinstance(node.value, dict)
    if not isinstance(name, str) or _reserved_name(name) is not None:
        return
    member = node.value[name]
    yield Diagnostic(Where(file, member.line, member.column), "TG017", f"{show(name)}: {NAME_RULE}")


def _repeated(file: str, node: Node) -> Iterator[Diagnostic]:
    assert isinstance(node.value, list)
    seen: dict[Any, Node] = {}
    for item in node.value:
        key = repr(plain(item))
        if key in seen:
            where = Where(file, item.line, item.column)
            yield Diagnostic(where, "TG016", f"{show(item.value)} stands twice in one list; remove one")
        seen[key] = item
