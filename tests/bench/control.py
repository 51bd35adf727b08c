"""The control server: what a write, a page and an event cost; each module measures one of them, and gives its rows."""

from __future__ import annotations

import importlib

from bench.rows import Options, Row

MODULES = ("bench.control_edit", "bench.control_list", "bench.control_intake")


def rows(options: Options) -> list[Row]:
    """Measure all of them."""
    return [row for module in MODULES for row in importlib.import_module(module).rows(options)]
