"""What is wrong with a text that is no YAML, in plain words: the parser's own speak of tokens and blocks.

Words it has none for are passed on as the parser said them.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml.error import MarkedYAMLError

_INDENTATION = "fields of one object, and items of one list, begin in the same column"
# Found instead of a block's end: what to say of it.
_AFTER_BLOCK = {
    "<block mapping start>": f"wrong indentation: this line belongs to nothing above it; {_INDENTATION}",
    "<block sequence start>": f"wrong indentation: this line belongs to nothing above it; {_INDENTATION}",
    "?": "a field where the list above goes on; begin it with '- ', or correct its indentation",
    "-": "a list item where the fields above go on; correct its indentation, or begin with a name and ':'",
}


def explain(error: MarkedYAMLError, text: str) -> tuple[Any, str]:
    """Return where the mistake is (the parser's mark, or None) and one line of printable ASCII about it."""
    said = error.problem or error.context or "syntax error"
    here, opened = error.problem_mark or error.context_mark, error.context_mark or error.problem_mark
    if here is None or opened is None:
        return None, _one_line(said)
    lines = text.split("\n")
    line = lines[here.line] if here.line < len(lines) else ""
    char = line[here.column : here.column + 1]
    match said.partition(",")[0]:
        case start if start.startswith("found character"):
            if char == "\t":
                return here, "a tab; write spaces"
            return here, f"no value begins with {char!a}; put it in quotes"
        case "found unexpected end of stream" | "found unexpected document separator":
            return opened, "the quote that begins here is never closed"
        case "expected ''" | "expected '":  # "expected ',' or ']', but got ...", and the same with '}'
            if line[: here.column].endswith(":"):  # {members:[alice]}
                return here, "a ':' needs a space behind it"
            return _open_bracket(said, here, opened)
        case "expected the node content":
            if "stream end" in said:
                return here, "the text ends where a value is wanted; a bracket may be open"
            return here, f"a value is missing before {char!a}, or this is one too many"
        case "mapping values are not allowed here":
            return here, _stray_colon(line[: here.column], lines[: here.line])
        case "expected <block end>":
            found = re.search(r"found '(.*)'", said)
            rest = "more text after a value that is complete; put all of it in quotes"
            return here, _AFTER_BLOCK.get(found[1], rest) if found else rest
        case "sequence entries are not allowed here":
            return here, "a list item begins a line of its own; write [a, b] to have a list in one line"
        case "could not find expected ':'":
            return opened, "this name has no ':' behind it"
        case "expected alphabetic or numeric character":
            return opened, "'*' and '&' begin an alias or an anchor; put text that begins so in quotes"
        case start if start.startswith("found unknown escape character"):
            return here, f"{chr(92) + char!a} means nothing in double quotes; use single quotes"
        case "expected a comment or a line break":
            return here, "'|' and '>' have their text in the lines below; put text that begins so in quotes"
        case "expected '<document start>'":
            return (
                here,
                "this stands after the end of the document; look at the brackets and indentation above",
            )
        case _:
            return here, _one_line(said)


def _open_bracket(said: str, here: Any, opened: Any) -> tuple[Any, str]:
    close = "]" if "']'" in said else "}"
    bracket = {"]": "[", "}": "{"}[close]
    if "stream end" in said:
        return opened, f"the '{bracket}' that stands here is never closed; add the '{close}'"
    return (
        here,
        f"a ',' or a '{close}' is missing before this; the '{bracket}' of line {opened.line + 1} is open",
    )


def _stray_colon(before: str, above: list[str]) -> str:
    if ": " in before:
        return "a second ': ' in one line; put text that has one in quotes"
    last = next((line for line in reversed(above) if line.split("#")[0].strip()), "")
    if ":" not in last:
        return "the line above has no ':' behind its name"
    return f"indented deeper than the line above, which has its value already; {_INDENTATION}"


def _one_line(text: str) -> str:
    return ascii(" ".join(text.split()))[1:-1][:120]
