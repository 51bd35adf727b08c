"""Text that every YAML parser of any version reads as that text without quotes."""

from __future__ import annotations

import re

from tidegate_schema.names import NAME_PATTERN

_PLAIN = re.compile(r"[A-Za-z0-9/_.+][A-Za-z0-9/_.+=-]*")
_SELECTOR = re.compile(rf"(client|group|resource):{NAME_PATTERN}")
# What YAML 1.1 parsers (https://yaml.org/type/) take for a boolean, null, number, merge, value or time; and what
# py-yaml12 alone takes for a number, with a sign behind the base.
_MISREAD = re.compile(
    r"(?:y|n|yes|no|on|off|true|false|null|~|=|<<|"
    r"[-+]?0b[01_]+|[-+]?0(?:o[-+]?)?[0-7_]+|[-+]?0x[-+]?[0-9a-f_]+|[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)?|"
    r"[-+]?\.[0-9_]+(?:e[-+]?[0-9]+)?|[-+]?\.(?:inf|nan)|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*)",
    re.IGNORECASE,
)


def is_plain(text: str) -> bool:
    """Tell whether a text needs no quotes: no parser takes it for anything else, in any context."""
    if _SELECTOR.fullmatch(text):
        return True
    return _PLAIN.fullmatch(text) is not None and _MISREAD.fullmatch(text) is None
