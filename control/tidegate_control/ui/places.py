"""Diagnostics beside the fields they are about: by the place that each names in the file as it would have been."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.yamltree import Node, parse

NAME = "name"
"""Stands for the object's own name, which is also where a missing field is told of."""
_ELSEWHERE = ""


@dataclass(frozen=True)
class Of:
    """The object that is looked for. `where` is its file, or the folder of its kind with a "/" at the end.

    It is known by name, or an access test by the line it begins on; 0: it is the last one in the file.
    """

    where: str
    name: str
    line: int = 0


@dataclass(frozen=True)
class Told:
    """Diagnostics by field; `others` are about another object, or about none of the fields."""

    at: Mapping[str, tuple[Diagnostic, ...]]
    others: tuple[Diagnostic, ...]


def at_fields(diagnostics: Iterable[Diagnostic], files: Mapping[str, bytes], of: Of) -> Told:
    """Sort problems by field. `files` are what their places are in, the edit made."""
    starts: dict[str, list[tuple[int, int, str]]] = {}
    at: dict[str, list[Diagnostic]] = {}
    others = []
    for problem in diagnostics:
        file = problem.where.file
        if file not in starts:
            starts[file] = sorted(_starts(files.get(file, b""), of)) if file.startswith(of.where) else []
        field = _field(starts[file], problem)
        if field == _ELSEWHERE:
            others.append(problem)
        else:
            at.setdefault(field, []).append(problem)
    return Told({field: tuple(found) for field, found in at.items()}, tuple(others))


def _field(starts: list[tuple[int, int, str]], problem: Diagnostic) -> str:
    """Return the field that begins last before a place."""
    place = (problem.where.line, problem.where.column)
    before = [field for line, column, field in starts if (line, column) <= place]
    return before[-1] if before else _ELSEWHERE


def _starts(data: bytes, of: Of) -> Iterator[tuple[int, int, str]]:
    """Yield where each of the object's fields begins, and where every other object does."""
    tree, _ = parse(data.decode("utf-8", "replace"))
    if tree is None:
        return
    if isinstance(tree.value, list):
        last = len(tree.value) - 1
        for position, item in enumerate(tree.value):
            is_it = item.line == of.line if of.line else position == last
            yield item.line, item.column, NAME if is_it else _ELSEWHERE
            if is_it:
                yield from _of_mapping(item)
    elif isinstance(tree.value, dict):
        for name, member in tree.value.items():
            yield member.line, member.column, NAME if name == of.name else _ELSEWHERE
            if name == of.name:
                yield from _of_mapping(member.node)


def _of_mapping(node: Node) -> Iterator[tuple[int, int, str]]:
    if isinstance(node.value, dict):
        for field, member in node.value.items():
            yield member.line, member.column, field
