"""From a compile output to the hosts: each module measures one way or step, and gives its rows."""

from __future__ import annotations

import importlib

from bench.rows import Options, Row

MODULES = ("bench.publishing", "bench.pushing", "bench.receivers")


def rows(options: Options) -> list[Row]:
    """Measure all of them."""
    return [row for module in MODULES for row in importlib.import_module(module).rows(options)]
