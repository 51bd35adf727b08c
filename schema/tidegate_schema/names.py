"""Object names: `[a-z0-9][a-z0-9-]{0,62}`, the whole string, ASCII only.

A name reaches paths, terminals and pages, so nothing outside this alphabet is ever a name. The pattern is
spelled without `$`, which Python's `re` (and so jsonschema) also matches before a final newline.
"""

from __future__ import annotations

import re

NAME_PATTERN = r"[a-z0-9][a-z0-9-]{0,62}"
_NAME = re.compile(NAME_PATTERN)


def is_name(text: str) -> bool:
    """Tell whether the whole of `text` is an object name."""
    return _NAME.fullmatch(text) is not None
