"""The API on a repository of its own for each test, and one that all tests share which only read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import controlkit
from apikit import Api, store


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with store(tmp_path) as events:
        yield Api(controlkit.bare(tmp_path), events=events)


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    place = tmp_path_factory.mktemp("fleet")
    with store(place) as events:
        yield Api(controlkit.bare(place), events=events)
