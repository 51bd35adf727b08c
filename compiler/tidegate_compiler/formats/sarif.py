"""Diagnostics as SARIF 2.1.0, for code scanning: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html

Every code is a rule, in the words of docs/diagnostics.md, which `rules.json` beside this module holds. A rule carries
its page as help instead of pointing to it (`helpUri`): the project names no address on the net.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
import os
import re
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from tidegate_compiler.codes import CODES, Code
from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.formats.sources import Sources
from tidegate_schema import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_FINGERPRINT = "tidegate/v1"
_INDEX = {code: index for index, code in enumerate(CODES)}


def document(diagnostics: Sequence[Diagnostic], directory: str, sources: Sources) -> dict[str, Any]:
    """Return the log; `directory` is the inventory's path from the top of the repository, or absolute."""
    twins: Counter[str] = Counter()
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "Tidegate",
                        "version": __version__,
                        "rules": [_rule(code) for code in CODES.values()],
                    }
                },
                "columnKind": "unicodeCodePoints",  # as the YAML parser counts
                "results": [_result(found, directory, sources, twins) for found in diagnostics],
            }
        ],
    }


@functools.cache
def texts() -> dict[str, str]:
    """Return the text of every code's section of docs/diagnostics.md."""
    file = importlib.resources.files("tidegate_compiler") / "formats" / "rules.json"
    found: dict[str, str] = json.loads(file.read_text("utf-8"))
    return found


def _rule(code: Code) -> dict[str, Any]:
    text = texts()[code.code]
    first = re.split(r"(?<=[.])\s", text, maxsplit=1)[0]
    return {
        "id": code.code,
        "name": code.slug,
        "shortDescription": {"text": _plain(first)},
        "fullDescription": {"text": _plain(text)},
        "help": {"text": _plain(text), "markdown": text},
        "defaultConfiguration": {"level": code.severity},
    }


def _result(found: Diagnostic, directory: str, sources: Sources, twins: Counter[str]) -> dict[str, Any]:
    return {
        "ruleId": found.code,
        "ruleIndex": _INDEX[found.code],
        "level": found.severity,
        "message": {"text": _message(found.message)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": _artifact(directory, found.where.file),
                    "region": {"startLine": found.where.line, "startColumn": found.where.column},
                }
            }
        ],
        "partialFingerprints": {_FINGERPRINT: _fingerprint(found, sources, twins)},
    }


def _artifact(directory: str, file: str) -> dict[str, str]:
    """Return the file's URI: from the top of the repository, or absolute when it lies elsewhere."""
    path = PurePosixPath(directory, file)
    quoted = urllib.parse.quote(os.fsencode(path))  # a name that is no UTF-8 keeps its bytes
    if path.is_absolute():
        return {"uri": f"file://{quoted}"}
    return {"uri": quoted, "uriBaseId": "%SRCROOT%"}


def _fingerprint(found: Diagnostic, sources: Sources, twins: Counter[str]) -> str:
    """Return what stays the same while lines are added above: the code, the file, the line's text, and which of such.

    A message may name other lines, so it is no part of it.
    """
    line = sources.line(found.where) or ""
    same = f"{found.code}\n{found.where.file}\n{' '.join(line.split())}"
    twins[same] += 1
    seed = f"{same}\n{twins[same]}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(seed).hexdigest()[:32]


def _message(text: str) -> str:
    """Disarm what SARIF reads inside a message, links `[text](target)` and placeholders `{0}`: values are no markup."""
    return re.sub(r"\{(?=[0-9]+\})", r"\\x7b", text.replace("](", r"]\x28"))


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "'").split())
