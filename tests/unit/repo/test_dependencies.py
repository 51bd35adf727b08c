"""Every dependency has a reason, a lower bound and a place in the lock."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
REASONS = (ROOT / "docs/adr/0002-dependencies.md").read_text()
UNLOCKED_GROUP = "lock"  # the tool that writes the lock


def declared() -> dict[str, list[Requirement]]:
    """Map each place of pyproject.toml that names dependencies to what it names."""
    groups = PROJECT["dependency-groups"]
    places = {
        "build-system": PROJECT["build-system"]["requires"],
        "project": PROJECT["project"]["dependencies"],
        **{f"extra {name}": of for name, of in PROJECT["project"]["optional-dependencies"].items()},
        **{f"group {name}": of for name, of in groups.items()},
    }
    return {place: [Requirement(text) for text in of] for place, of in places.items()}


ALL = [(place, requirement) for place, of in declared().items() for requirement in of]
LOCKED = [(place, requirement) for place, requirement in ALL if place != f"group {UNLOCKED_GROUP}"]


def lock_entries() -> dict[str, tuple[str, str]]:
    """Map each locked name to its version and to the rest of its entry."""
    entries = re.findall(r"^([a-z0-9-]+)==([^ ]+)(.*?)(?=^[a-z0-9-]+==|\Z)", LOCK, re.MULTILINE | re.DOTALL)
    return {name: (version, rest) for name, version, rest in entries}


@pytest.mark.parametrize(("place", "requirement"), ALL, ids=str)
def test_a_dependency_has_a_lower_bound(place: str, requirement: Requirement) -> None:
    assert any(spec.operator in (">=", "==", "~=") for spec in requirement.specifier), (
        f"{place}: {requirement}"
    )


@pytest.mark.parametrize(("place", "requirement"), ALL, ids=str)
def test_a_dependency_has_a_reason(place: str, requirement: Requirement) -> None:
    row = re.search(rf"^\| `{re.escape(requirement.name)}` \|.*\|$", REASONS, re.MULTILINE)
    assert row, f"docs/adr/0002-dependencies.md has no row for {requirement.name} ({place})"
    bound = next(spec.version for spec in requirement.specifier)
    assert f"≥ {bound}" in row.group(), f"the row of {requirement.name} does not say why ≥ {bound}"


def test_no_reason_is_left_over() -> None:
    names = {requirement.name for _, requirement in ALL}
    assert set(re.findall(r"^\| `([A-Za-z0-9._-]+)` \|", REASONS, re.MULTILINE)) == names


@pytest.mark.parametrize(("place", "requirement"), LOCKED, ids=str)
def test_the_lock_holds_a_release_that_will_do(place: str, requirement: Requirement) -> None:
    entry = lock_entries().get(canonicalize_name(requirement.name))
    assert entry is not None, f"{place}: {requirement} is not locked; run ./run lock"
    assert requirement.specifier.contains(entry[0]), (
        f"{place}: {requirement}, locked {entry[0]}; run ./run lock"
    )


def test_the_lock_holds_nothing_that_was_dropped() -> None:
    asked = {name for name, (_, rest) in lock_entries().items() if re.search(r"# +(via )?tidegate \(", rest)}
    assert asked == {
        canonicalize_name(requirement.name) for place, requirement in LOCKED if place != "build-system"
    }, "run ./run lock"


def test_everything_locked_has_a_hash_and_no_address() -> None:
    unhashed = [name for name, (_, rest) in lock_entries().items() if "--hash=sha256:" not in rest]
    assert unhashed == []
    assert len(lock_entries()) == LOCK.count("==") - LOCK.count(" == '")
    assert not re.search(r"https?:|--index-url|--find-links|file:", LOCK)


def test_the_lock_serves_machines_without_a_wheel() -> None:
    """python-pytun has wheels for x86_64 only, so its source must be among the hashes (see 0002)."""
    assert lock_entries()["python-pytun"][0] != "2.4.2"
    assert "setuptools" in lock_entries()
