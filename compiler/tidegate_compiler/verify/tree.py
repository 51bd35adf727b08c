"""One YAML file as plain values in which every scalar is text, or a refusal.

Only what all parsers read alike is read: no anchor, alias, tag, merge key, directive, second document, no key twice,
and no plain value that some parser would take for a number, a truth or nothing.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from tidegate_compiler.verify.words import RefusalError

# Line breaks to some parsers and text to others.
_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]|\r(?!\n)")
_NOT_TEXT = re.compile(
    r"~|null|Null|NULL|true|True|TRUE|false|False|FALSE|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)|0o[0-7]+|0x[0-9a-fA-F]+|"
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|"
)
_CORE = "tag:yaml.org,2002:"
_TAGS = {MappingNode: {"map"}, SequenceNode: {"seq"}, ScalarNode: {"str", "timestamp"}}  # a date is text here
_MAX_DEPTH = 16


def parse(data: bytes) -> Any:
    """Return the file's one value, None when it is empty. Raises RefusalError."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusalError("not UTF-8") from None
    if _BREAKS.search(text):
        raise RefusalError("a line break that not every parser knows")
    if re.search(r"^%", text, re.MULTILINE):
        raise RefusalError("a directive")
    try:
        root = YAML(typ="base", pure=True).compose(text)
    except (YAMLError, RecursionError, ValueError, LookupError, TypeError, AttributeError, AssertionError):
        raise RefusalError("not one document of YAML") from None
    if root is None:
        return None
    if isinstance(root, ScalarNode) and not root.value:
        return None  # a file of comments, or of `---` alone
    return _plain(root, set(), 0)


def _plain(node: Any, seen: set[int], depth: int) -> Any:
    where = f"line {node.start_mark.line + 1}"
    if node.anchor or id(node) in seen:
        raise RefusalError(f"{where}: an anchor or alias")
    seen.add(id(node))
    if node.tag.removeprefix(_CORE) not in _TAGS[type(node)]:
        raise RefusalError(f"{where}: a tag, or a value that is not text to every parser")
    if depth > _MAX_DEPTH:
        raise RefusalError(f"{where}: nested deeper than {_MAX_DEPTH} levels")
    if isinstance(node, MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = _key(key, seen)
            if name in found:
                raise RefusalError(f"{where}: the key {name[:60]!a} stands twice")
            found[name] = _plain(value, seen, depth + 1)
        return found
    if isinstance(node, SequenceNode):
        return [_plain(item, seen, depth + 1) for item in node.value]
    if not node.style and _NOT_TEXT.fullmatch(node.value):
        raise RefusalError(f"{where}: {node.value[:60]!a} is not text to every parser")
    return str(node.value)


def _key(node: Any, seen: set[int]) -> str:
    """Read a mapping's key, which is text whatever it looks like."""
    if not isinstance(node, ScalarNode) or node.anchor or id(node) in seen or node.value == "<<":
        raise RefusalError(f"line {node.start_mark.line + 1}: a key that is not text, is an alias, or merges")
    seen.add(id(node))
    return str(node.value)
