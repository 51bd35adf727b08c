"""The survey's document as a picture: clients by resources, one mark for each, as SVG that any browser shows.

    rows     clients; those that reach the same stand together, and are one row each where that is not too many
    columns  resources, together where the same gateways lead there; at the end what lies in no resource

A mark's shape says what its colour says, and its <title>, which browsers show under the pointer, says all the rest.
The picture has no script, no link and no font of its own; the same document gives the same bytes.
Colours: Okabe and Ito, "Color Universal Design" (https://jfly.uni-koeln.de/color/), apart for every kind of eye.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from xml.sax.saxutils import escape

from tidegate_compiler.access.words import ELSEWHERE, entry, some, summary, who

MOST_ROWS, MOST_COLUMNS = 120, 80
"""More than this nobody reads; whoever wants it anyway has JSON."""
_SINGLE_ROWS = 60
_LONGEST_LABEL = 36
_TOLD_CLIENTS = 40
_TOLD_ENTRIES = 12

_CELL, _GAP, _MARGIN = 24, 8, 24
_LETTER = 7
_SLOPE = 0.77
"""Titles of columns rise by 50 degrees: this much of their length is height; 0.64 of it is width."""
_TEXT, _FAINT, _LINE, _BAND = "#222222", "#666666", "#cccccc", "#f4f4f4"
_BLUE, _ORANGE = "#0072b2", "#e69f00"


class TooLargeError(ValueError):
    """The picture would be larger than anybody reads; one line that says what to do."""


@dataclass(frozen=True)
class _Column:
    title: str
    tip: str
    gateways: str
    left: int


@dataclass(frozen=True)
class _Line:
    label: str
    tip: str
    row: dict[str, Any]
    top: int


def svg(document: dict[str, Any]) -> str:
    """Return the picture; TooLargeError when it has more than MOST_ROWS or MOST_COLUMNS."""
    return "\n".join(_svg(document)) + "\n"


def _svg(document: dict[str, Any]) -> Iterator[str]:
    lines = _lines(document["rows"])
    columns = _columns(document)
    if len(lines) > MOST_ROWS or len(columns) > MOST_COLUMNS:
        raise TooLargeError(
            f"a picture of {len(lines)} rows and {len(columns)} columns is more than a person can read "
            f"(at most {MOST_ROWS} and {MOST_COLUMNS}); name some with --client or --resource, or use --format json"
        )
    left = _MARGIN + _wide(line.label for line in lines)
    top = 76 + int(_wide(column.title for column in columns) * _SLOPE)
    right = left + (columns[-1].left + _CELL if columns else 0)
    bottom = top + (lines[-1].top + _CELL if lines else 0)
    below = _wide(gateways for gateways, first, last in _under(columns) if not _fits(gateways, last - first))
    legend = bottom + 46 + int(below * _SLOPE)
    slanted = max((column.left + int(_wide([column.title]) * 0.64) for column in columns), default=0)
    names = _wide(_group(line) for line in lines)
    width = max(right + 12 + names, left + slanted + _CELL, 640) + _MARGIN
    height = legend + 6 * (_CELL + 2) + _MARGIN // 2
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">'
    )
    when = f"at {document['at']}" if document["at"] else "whatever the time"
    told = f"Who reaches what in {document['fleet']}, {when}"
    yield f"<title>{_xml(told)}</title>"
    yield f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    yield _text(_MARGIN, 34, f"Who reaches what: {document['fleet']}", size=18)
    yield _text(_MARGIN, 54, when, fill=_FAINT)
    yield from _grid(lines, columns, left, top)
    yield from _heads(columns, left, top, bottom)
    yield from _names(lines, left, top, right)
    for line in lines:
        for column in columns:
            yield from _mark(line, column, left + column.left, top + line.top)
    yield from _legend(legend, document["at"])
    yield "</svg>"


def _lines(rows: Sequence[dict[str, Any]]) -> list[_Line]:
    """Return a line for every client, or where that is too many for every row of the document."""
    found: list[_Line] = []
    top = 0
    single = sum(len(row["clients"]) for row in rows) <= _SINGLE_ROWS
    for row in rows:
        names = row["clients"] if single else [who(row)]
        for name in names:
            tip = name if single else some(row["clients"], _TOLD_CLIENTS)
            found.append(_Line(name, tip, row, top))
            top += _CELL
        top += _GAP
    return found


def _columns(document: dict[str, Any]) -> list[_Column]:
    """Return the columns, by gateways and then by name; what is in no resource comes last."""
    found: list[_Column] = []
    left = 0
    ordered = sorted(document["resources"], key=lambda one: (one["gateways"], one["name"]))
    for gateways, resources in groupby(
        ordered, key=lambda one: ", ".join(one["gateways"]) or "behind no gateway"
    ):
        for one in resources:
            ports = "on any port that a policy says" if one["ports"] is None else ", ".join(one["ports"])
            tip = f"{one['name']}\n{some(one['addresses'], 8)}\n{ports}\n{one['file']}:{one['line']}"
            found.append(_Column(one["name"], tip, gateways, left))
            left += _CELL
        left += _GAP
    if any(row["elsewhere"] for row in document["rows"]):
        found.append(_Column(ELSEWHERE, "destinations that are in no resource", "", left))
    return found


def _grid(lines: Sequence[_Line], columns: Sequence[_Column], left: int, top: int) -> Iterator[str]:
    """Draw a band behind every block of rows and columns that belong together."""
    for _, block in groupby(lines, key=lambda line: id(line.row)):
        rows = list(block)
        for _, group in groupby(columns, key=lambda column: column.gateways):
            across = list(group)
            x, y = left + across[0].left, top + rows[0].top
            wide, high = across[-1].left - across[0].left + _CELL, rows[-1].top - rows[0].top + _CELL
            yield f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" rx="3" fill="{_BAND}"/>'


def _heads(columns: Sequence[_Column], left: int, top: int, bottom: int) -> Iterator[str]:
    """Write the resources above their columns, and under each group of them the gateways that lead there."""
    for column in columns:
        x, y = left + column.left + _CELL // 2 + 4, top - 8
        yield from _titled(column.tip, _text(x, y, _short(column.title), turn=f"rotate(-50 {x} {y})"))
    for gateways, first, last in _under(columns):
        start, end = left + first + 2, left + last - 2
        middle, y = (start + end) // 2, bottom + 22
        if _fits(gateways, last - first):
            words = _text(middle, y, _short(gateways), fill=_FAINT, anchor="middle")
        else:
            words = _text(middle, y, _short(gateways), fill=_FAINT, turn=f"rotate(50 {middle} {y})")
        line = f'<path d="M{start} {bottom + 6}H{end}" stroke="{_FAINT}" stroke-width="2"/>'
        yield from _titled(f"behind {gateways}", line, words)


def _under(columns: Sequence[_Column]) -> Iterator[tuple[str, int, int]]:
    """Yield (gateways, left, right) of every group of columns."""
    for gateways, group in groupby(columns, key=lambda column: column.gateways):
        across = list(group)
        if gateways:
            yield gateways, across[0].left, across[-1].left + _CELL


def _fits(gateways: str, room: int) -> bool:
    return _wide([gateways]) <= room


def _names(lines: Sequence[_Line], left: int, top: int, right: int) -> Iterator[str]:
    """Write the clients before their rows, and after each block the group that it is."""
    for line in lines:
        y = top + line.top + _CELL // 2 + 4
        yield from _titled(line.tip, _text(left - 10, y, _short(line.label), anchor="end"))
    for _, block in groupby(lines, key=lambda line: id(line.row)):
        first = next(iter(block))
        if _group(first):
            y = top + first.top + _CELL // 2 + 4
            yield _text(right + 10, y, _short(_group(first)), fill=_FAINT)


def _group(line: _Line) -> str:
    group = line.row["group"] or ""
    return "" if line.label.startswith(group) else str(group)


def _mark(line: _Line, column: _Column, x: int, y: int) -> Iterator[str]:
    """Draw what a row's clients reach of a column's resource."""
    if column.title == ELSEWHERE and not column.gateways:
        entries = line.row["elsewhere"]
        shape, beyond = ("partial" if entries else "none"), False
        told = f"{len(entries)} kinds of access" if entries else "nothing"
    else:
        cells = (cell for cell in line.row["resources"] if cell["resource"] == column.title)
        cell: dict[str, Any] = next(
            cells, {"reach": "none", "partial": [], "beyond_ports": False, "access": []}
        )
        shape, beyond, entries, told = cell["reach"], cell["beyond_ports"], cell["access"], summary(cell)
    tip = [f"{line.label} to {column.title}: {told}"]
    for one in entries[:_TOLD_ENTRIES]:
        to, ports, when, by = entry(one)
        tip.append(f"{ports} to {to}{'' if when == 'always' else ', ' + when}, by {by}")
    if len(entries) > _TOLD_ENTRIES:
        tip.append(f"and {len(entries) - _TOLD_ENTRIES} more")
    yield from _titled("\n".join(tip), *_shape(shape, beyond, x, y))


def _shape(reach: str, beyond: bool, x: int, y: int) -> Iterator[str]:
    """Draw a mark: a disc on blue, half a disc on orange, a dot; and a plus for other ports than the resource's."""
    middle, centre = y + _CELL // 2, x + _CELL // 2
    box = f'<rect x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" height="{_CELL - 2}" rx="3"'
    ink = _TEXT
    aside = 2 if beyond else 0  # room for the plus
    if reach == "full":
        yield f'{box} fill="{_BLUE}"/>'
        yield f'<circle cx="{centre - aside}" cy="{middle + aside}" r="5" fill="#ffffff"/>'
        ink = "#ffffff"
    elif reach == "partial":
        yield f'{box} fill="{_ORANGE}"/>'
        yield f'<circle cx="{centre - aside}" cy="{middle + aside}" r="5" fill="#ffffff" stroke="{_TEXT}"/>'
        yield f'<path d="M{centre - aside} {middle + aside - 5}a5 5 0 0 0 0 10z" fill="{_TEXT}"/>'
    else:
        yield f'{box} fill="{_BAND}"/>'
        if not beyond:
            yield f'<circle cx="{centre}" cy="{middle}" r="1.5" fill="{_FAINT}"/>'
    if beyond:
        across, down = (x + _CELL - 7, y + 7) if reach != "none" else (centre, middle)
        arm = 3 if reach != "none" else 5
        yield (
            f'<path d="M{across - arm} {down}h{2 * arm}M{across} {down - arm}v{2 * arm}" '
            f'stroke="{ink}" stroke-width="2"/>'
        )


def _legend(y: int, at: str | None) -> Iterator[str]:
    for reach, beyond, words in (
        ("full", False, "everything that the resource offers" + ("" if at else ", at all times")),
        (
            "partial",
            False,
            "a part of it: some ports or addresses, one address family" + ("" if at else ", or for a time"),
        ),
        ("full", True, "a plus: other ports than the resource's own, too"),
        ("none", True, "a plus alone: nothing that it offers, but other ports"),
        ("none", False, "nothing"),
        ("", False, "elsewhere: destinations that are in no resource"),
    ):
        if reach:
            yield from _shape(reach, beyond, _MARGIN, y - _CELL // 2)
        yield _text(_MARGIN + _CELL + 10, y + 4, words)
        y += _CELL + 2


def _titled(tip: str, *parts: str) -> Iterator[str]:
    yield f"<g><title>{_xml(tip)}</title>"
    yield from parts
    yield "</g>"


def _text(
    x: int, y: int, words: str, fill: str = _TEXT, size: int = 0, anchor: str = "", turn: str = ""
) -> str:
    more = "".join(
        f' {name}="{value}"'
        for name, value in (("font-size", size), ("text-anchor", anchor), ("transform", turn))
        if value
    )
    return f'<text x="{x}" y="{y}" fill="{fill}"{more}>{_xml(words)}</text>'


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 3] + "..."


def _wide(texts: Any) -> int:
    """Return about how many pixels the widest of some labels takes."""
    return max((len(_short(text)) * _LETTER + 14 for text in texts if text), default=0)


def _xml(text: str) -> str:
    """Return text for an element: markup escaped, and whatever is not printable ASCII, but for line breaks."""
    safe = "".join(char if " " <= char <= "~" or char == "\n" else ascii(char)[1:-1] for char in text)
    return escape(safe)
