"""The API on a repository of its own for each test, and one that all tests share which only read."""

from __future__ import annotations

from pathlib import Path

import pytest

import controlkit
from apikit import Api


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(controlkit.bare(tmp_path))


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(controlkit.bare(tmp_path_factory.mktemp("fleet")))
