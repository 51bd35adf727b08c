"""The files that pages load: htmx is the one that was released, and what it may do is said once for all pages."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from tidegate_control.ui.pages import static

UI = Path(static.__file__).parents[1]
ROOT = Path(__file__).parents[4]
TEMPLATES = sorted((UI / "templates").glob("*.html"))
VERSION = "2.0.11"
SHA256 = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"


def test_htmx_is_the_file_that_was_released() -> None:
    data, _ = static.files()["htmx.min.js"]
    assert hashlib.sha256(data).hexdigest() == SHA256
    assert f'version:"{VERSION}"'.encode() in data
    assert (UI / "static/htmx.LICENSE.txt").read_text().startswith("Zero-Clause BSD\n")
    decision = (ROOT / "docs/adr/0019-htmx-beside-plain-pages.md").read_text()
    assert VERSION in decision
    assert SHA256 in decision


def test_every_file_is_served_or_is_a_licence() -> None:
    names = {path.name for path in (UI / "static").iterdir()}
    assert names == {*static.TYPES, "htmx.LICENSE.txt"}


def test_htmx_may_run_nothing_and_keep_nothing() -> None:
    config: dict[str, Any] = {
        "allowEval": False,
        "allowScriptTags": False,
        "includeIndicatorStyles": False,
        "selfRequestsOnly": True,
        "historyCacheSize": 0,
        "refreshOnHistoryMiss": True,
    }
    (text,) = re.findall(
        r"<meta name=\"htmx-config\" content='([^']+)'>", (UI / "templates/base.html").read_text()
    )
    said = json.loads(text)
    assert {name: said.get(name) for name in config} == config


def test_no_page_uses_what_would_need_eval() -> None:
    """Handlers in attributes, computed values and filters of triggers: htmx makes functions of their text."""
    texts = {path.name: path.read_text() for path in TEMPLATES}
    assert [name for name, text in texts.items() if re.search(r"hx-on|hx-vars|\bjs:|javascript:", text)] == []
    triggers = [one for text in texts.values() for one in re.findall(r'hx-trigger="([^"]*)"', text)]
    assert triggers
    assert [one for one in triggers if "[" in one] == []


def test_what_asks_by_script_works_without() -> None:
    """A form that htmx sends has a method and an address of its own, and a link that it follows leads somewhere."""
    parts = (UI / "templates/parts.html").read_text()
    assert 'method="get" action="{{ to }}" autocomplete="off" hx-get="{{ to }}"' in parts
    for path in TEMPLATES:
        text = path.read_text()
        for form in re.findall(r"<form[^>]*parts\.checks[^>]*>", text):
            assert 'method="post" action=' in form, path.name
        assert len(re.findall(r"\bhx-(?:get|post)=", text)) == (2 if path.name == "parts.html" else 0), (
            path.name
        )
