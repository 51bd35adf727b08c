"""JSON as Tidegate writes and reads it: canonical bytes out, strict and bounded in.

Canonical: keys sorted, no spaces, ASCII, one final newline. Strict: no duplicate keys, no NaN, no number that
overflows to infinity, no depth bombs, so that two readers never see two meanings in one file.
"""

from __future__ import annotations

import json
import math
from typing import Any


class JsonError(ValueError):
    """The bytes are not JSON that Tidegate reads; the message is one line."""


def canonical(value: Any) -> bytes:
    """Return the one byte string that stands for `value`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise JsonError("a key stands twice in one object")
    return result


def _no_constant(name: str) -> Any:
    raise JsonError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise JsonError("a number too large")
    return number


def parse(data: bytes, fractions: list[str] | None = None) -> Any:
    """Read one JSON value; JsonError (one line, no part of the data) when it is not strictly JSON.

    The numbers with a fraction or an exponent are put into `fractions`, as they are written.
    """

    def _fraction(text: str) -> float:
        if fractions is not None:
            fractions.append(text)
        return _finite(text)

    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_fraction,
        )
    except JsonError:
        raise
    except UnicodeDecodeError:
        raise JsonError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"line {error.lineno} column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError):  # nesting, or an integer past Python's digit limit
        raise JsonError("nested too deep, or a number too long") from None
