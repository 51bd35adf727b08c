"""What a check says: its name, how bad it is, what is so, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

FORMAT = 1
Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's; `mend` is empty when there is nothing to mend."""

    check: str
    level: Level
    what: str
    mend: str = ""


def ok(check: str, what: str) -> Finding:
    """Say that something is in order."""
    return Finding(check, "ok", what)


def warn(check: str, what: str, mend: str) -> Finding:
    """Say that something may keep the agent from its work, or soon will."""
    return Finding(check, "warn", what, mend)


def fail(check: str, what: str, mend: str) -> Finding:
    """Say that something keeps the agent from its work."""
    return Finding(check, "fail", what, mend)


def document(kind: str, findings: list[Finding]) -> dict[str, Any]:
    """Return the findings as JSON has them."""
    problems = sum(one.level == "fail" for one in findings)
    return {"format": FORMAT, "kind": kind, "problems": problems, "checks": [asdict(one) for one in findings]}
