"""Local settings: one YAML file per host, watched, edited in place with its comments kept.

Plain YAML only: anchors, aliases, tags and merge keys are refused, as in an inventory, because parsers disagree on
them and a few hundred bytes of aliases can stand for gigabytes.

`authz_mode` and `logging_enabled` live here and nowhere else. An invalid file never changes what runs; at start it
means the defaults, which for a gateway are enforce and no logging.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from tidegate_agents.files import FileRefused, read_bounded, write_atomic
from tidegate_schema import validation

MAX_BYTES = 64 * 1024
_MAX_DEPTH = 4  # a list in the mapping is as deep as settings go


class SettingsError(ValueError):
    """A settings file, or a change of it, that is refused; the message is one line and says where."""


def defaults(kind: str) -> dict[str, Any]:
    """Return the default of every setting that has one, as the schema `<kind>-settings` states it."""
    properties = validation.schema(f"{kind}-settings")["properties"]
    return {name: field["default"] for name, field in properties.items() if "default" in field}


def load(kind: str, path: Path) -> dict[str, Any]:
    """Return the settings in force: the defaults, and the file over them. SettingsError when it is invalid."""
    try:
        data = read_bounded(path, MAX_BYTES)
    except FileNotFoundError:
        return defaults(kind)
    except FileRefused as error:
        raise SettingsError(str(error)) from None
    return defaults(kind) | _checked(kind, path, _parse(path, data, YAML(typ="safe", pure=True)))


def change(kind: str, path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set some fields in the file, keeping everything else of it, and return the settings then in force."""
    yaml = YAML(typ="rt", pure=True)
    try:
        data = read_bounded(path, MAX_BYTES)
    except FileNotFoundError:
        data = b""
    except FileRefused as error:
        raise SettingsError(str(error)) from None
    document = _parse(path, data, yaml)
    document.update(changes)
    result = defaults(kind) | _checked(kind, path, dict(document))
    text = io.BytesIO()
    yaml.dump(document, text)
    write_atomic(path, text.getvalue(), 0o644)
    return result


def parse_value(kind: str, name: str, text: str) -> Any:
    """Read a value given on the command line: YAML's own reading of it. SettingsError for an unknown name."""
    known = validation.schema(f"{kind}-settings")["properties"]
    if name not in known:
        raise SettingsError(f"no setting is called {name!r}; there are: {', '.join(sorted(known))}")
    booleans = {"on": True, "yes": True, "off": False, "no": False}
    if known[name].get("type") == "boolean" and text.lower() in booleans:
        return booleans[text.lower()]
    data = text.encode("utf-8", "surrogateescape")
    return _parse(Path("command line"), data, YAML(typ="safe", pure=True), scalar=True)


def _parse(path: Path, data: bytes, yaml: YAML, *, scalar: bool = False) -> Any:
    try:
        text = data.decode("utf-8")
        _refuse_features(text)
        document = yaml.load(text)
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SettingsError(f"{path}{where}: {getattr(error, 'problem', None) or 'not YAML'}") from None
    except Exception:  # values that ruamel trips over, each in its own way: KeyError, ValueError, …
        raise SettingsError(f"{path}: not YAML that can be read") from None
    if scalar:
        return document
    if document is None:
        document = yaml.load("{}")
        document.fa.set_block_style() if hasattr(document, "fa") else None
    if not isinstance(document, dict):
        raise SettingsError(f"{path}:1:1: settings are a mapping from name to value")
    return document


def _refuse_features(text: str) -> None:
    depth = 0
    for one in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(one, CollectionStartEvent) - isinstance(one, CollectionEndEvent)
        if isinstance(one, AliasEvent) or getattr(one, "anchor", None) is not None:
            problem = "anchors and aliases are not used in settings"
        elif getattr(one, "tag", None) is not None:
            problem = "tags are not used in settings"
        elif isinstance(one, ScalarEvent) and one.value == "<<":
            problem = "merge keys are not used in settings"
        elif depth > _MAX_DEPTH:
            problem = "nested too deep for settings"
        else:
            continue
        raise MarkedYAMLError(problem=problem, problem_mark=one.start_mark)


def _checked(kind: str, path: Path, document: dict[str, Any]) -> dict[str, Any]:
    names = defaults(kind) | document
    if names["interface"] == names.get("tun"):
        raise SettingsError(f"{path}: tun: it needs another name than interface")
    for problem in validation.errors(f"{kind}-settings", document):
        where = ".".join(str(step) for step in problem.path)
        raise SettingsError(f"{path}: {where + ': ' if where else ''}{problem.message[:200]}")
    return document
