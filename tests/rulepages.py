"""The texts SARIF has for each code, from docs/diagnostics.md; `python tests/rulepages.py` writes them anew.

An installed tidegate has no docs/, so the package carries a copy; tests/unit/compiler/test_formats.py compares the two.
"""

from __future__ import annotations

import json
import re

from docskit import ROOT, read

COPY = ROOT / "compiler" / "tidegate_compiler" / "formats" / "rules.json"


def sections() -> dict[str, str]:
    """Return the text of every code's section, by code."""
    parts = re.split(r"^## (TG[0-9]{3}) .*$", read("docs/diagnostics.md"), flags=re.MULTILINE)
    return {code: text.strip() for code, text in zip(parts[1::2], parts[2::2], strict=True)}


def text() -> str:
    """Return what the package's copy must hold."""
    return json.dumps(sections(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    COPY.write_text(text(), "utf-8")
