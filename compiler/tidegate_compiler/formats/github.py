"""Diagnostics as GitHub Actions' workflow commands, which become annotations of the changed lines.

    ::error file=inventory/groups/people.yaml,line=1,col=23,title=TG030 unknown-reference::there is no ...

Escaping: https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tidegate_compiler.codes import CODES
from tidegate_compiler.diagnostics import Diagnostic, show_path


def lines(diagnostics: Iterable[Diagnostic], directory: str) -> Iterator[str]:
    """Yield one command each; `directory` is the inventory's path from the top of the repository."""
    prefix = "" if directory == "." else f"{directory}/"
    for found in diagnostics:
        properties = {
            "file": show_path(f"{prefix}{found.where.file}"),
            "line": str(found.where.line),
            "col": str(found.where.column),
            "title": f"{found.code} {CODES[found.code].slug}",
        }
        told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        yield f"::{found.severity} {told}::{_data(found.message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
