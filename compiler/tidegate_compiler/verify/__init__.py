"""The proof that a compile output says what its inventory says, by a second reader that trusts the first in nothing.

    INV -> sources -> inventory ─┐
                                 ├─> compare (files, clients, peers), rights (what gateways allow) -> differences
    OUT -> bundles, wgfile ──────┘

It imports the JSON Schemas and the JSON reader of `tidegate_schema`, and nothing else of Tidegate: not the
compiler's reader, resolver or renderer, and not the module that judges packets. What it does not understand, it
refuses, so that "proven" never rests on a guess.
"""

from __future__ import annotations

from pathlib import Path

from tidegate_compiler.verify import bundles, compare, inventory, sources
from tidegate_compiler.verify.difference import Difference, Point
from tidegate_compiler.verify.words import RefusalError

__all__ = ["Difference", "Point", "RefusalError", "verify"]


def verify(inv: Path, out: Path) -> tuple[Difference, ...]:
    """Return every difference between an inventory and an output, none when they are proven equal.

    Raises RefusalError, one line, when the inventory is not understood, and OSError when a directory is not readable.
    """
    facts = inventory.facts(sources.read(inv))
    return tuple(compare.differences(facts, bundles.read(out)))
