"""One door for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.control.door.doorkit import Door


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path / "state")
