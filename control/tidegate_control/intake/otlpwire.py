"""How many log records a protobuf request has, told from its bytes: https://protobuf.dev/programming-guides/encoding/

An empty record is two bytes on the wire, and some hundred when the library has read it, which nothing else can do
meanwhile. So a request is read only after its records were counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidegate_control.intake.lines import LINES_MOST, TooMany

_PATH = (1, 2, 2)  # resource_logs, scope_logs, log_records: the numbers of the fields, from the outside in
_FIELDS_MOST = 2 * LINES_MOST
"""At each step of the path: a record each, and what else there is of a resource and a scope."""
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_Span = tuple[int, int]


def check(body: bytes) -> None:
    """Raise TooMany for more than LINES_MOST records, or groups of them; ValueError for what is no message."""
    spans: Sequence[_Span] = ((0, len(body)),)
    for number in _PATH:
        spans = _within(body, spans, number)
        if len(spans) > LINES_MOST:
            raise TooMany(f"{len(spans)} log records, at most {LINES_MOST}: set batch_records on the gateway")


def _within(body: bytes, spans: Sequence[_Span], number: int) -> list[_Span]:
    """Return where the fields of this number are in the messages that are at `spans`."""
    found: list[_Span] = []
    left = _FIELDS_MOST
    for begin, end in spans:
        at = begin
        while at < end:
            left -= 1
            if left < 0:
                raise TooMany(f"more than {_FIELDS_MOST} fields: set batch_records on the gateway")
            tag, at = _varint(body, at)
            kind = tag & 7
            if kind == _BYTES:
                size, at = _varint(body, at)
                if tag >> 3 == number:
                    found.append((at, at + size))
                at += size
            elif kind == _VARINT:
                _, at = _varint(body, at)
            elif kind in (_EIGHT, _FOUR):
                at += 8 if kind == _EIGHT else 4
            else:  # a group, which the format had once
                raise ValueError("a field of no known kind")
            if at > end:
                raise ValueError("a field that ends behind its message")
    return found


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends; what is behind a message's end is none of it, and its caller sees that."""
    value = 0
    for shift, byte in zip(range(0, 70, 7), body[at : at + 10], strict=False):
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError("a number that does not end")
