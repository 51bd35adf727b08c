"""Private keys that somebody has put into an inventory: the check refuses such a field, and nobody is shown its value.

It stands in git for all who may read the repository, so a new pair has to be made; but no answer spreads it further.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

HIDDEN = "(a private key, not shown)"
_WORD = r"(?:private|preshared|secret)[ _-]?key"
_NAME = re.compile(_WORD, re.IGNORECASE)
_LINE = re.compile(rf"({_WORD}[\"']?\s*[:=]).*", re.IGNORECASE)


def hidden(fields: dict[str, Any]) -> dict[str, Any]:
    """Return an object's fields with the values of those that are called like a private key hidden."""
    if not any(map(_is_secret, fields)):
        return fields
    return {name: HIDDEN if _is_secret(name) else value for name, value in fields.items()}


def hidden_line(line: str) -> str:
    """Return a line of a file or a difference, from such a name on hidden."""
    return _LINE.sub(rf"\1 {HIDDEN}", line)


@lru_cache(1024)
def _is_secret(name: object) -> bool:
    return _NAME.search(str(name)) is not None
