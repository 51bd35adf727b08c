"""Conditional requests (RFC 9110, section 13) on the one validator there is: `"<commit>"`, the inventory's revision.

A read with `If-None-Match` of the revision that still is gets 304. A write of something that exists says with
`If-Match` which revision its author has seen: without it 428, with another one 412. `If-Match: *` is for any.
"""

from __future__ import annotations

import re

from tidegate_control.problems import Problem, named

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
ANY = "*"


def etag(commit: str) -> str:
    """Return the entity tag of a revision."""
    return f'"{commit}"'


def _tags(header: str, value: str) -> list[tuple[bool, str]]:
    """Return (is weak, tag) of a list of entity tags."""
    found = []
    for part in value.split(","):
        match = _TAG.fullmatch(part.strip(" \t"))
        if match is None:
            raise Problem(400, detail=f'{header}: write "COMMIT" in double quotes, as ETag has it, or *')
        found.append((match[1] is not None, match[2]))
    return found


def is_known(if_none_match: str | None, commit: str) -> bool:
    """Tell whether the reader has this revision already. Problem 400."""
    if if_none_match is None:
        return False
    if if_none_match.strip(" \t") == ANY:
        return True
    return commit in [tag for _, tag in _tags("If-None-Match", if_none_match)]


def expected(if_match: str | None, head: str, needed: bool) -> str | None:
    """Return the revision that a write must meet, None for any. Problem 400, 412, 428.

    Of several tags the one of the tip counts, and a weak one never matches (RFC 9110, section 13.1.1).
    """
    if if_match is None:
        if needed:
            detail = (
                'say which revision you have seen: If-Match: "COMMIT" (ETag of the last answer), or * for any'
            )
            raise named(428, "no-if-match", "Precondition required", detail)
        return None
    if if_match.strip(" \t") == ANY:
        return None
    strong = [tag for weak, tag in _tags("If-Match", if_match) if not weak and _COMMIT.fullmatch(tag)]
    if not strong:
        raise named(412, "stale", "The inventory has changed", "If-Match names no revision of this inventory")
    return head if head in strong else strong[0]
