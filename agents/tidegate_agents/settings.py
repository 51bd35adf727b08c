"""Local settings: one YAML file per host, watched, edited in place with its comments kept.

Plain YAML only: anchors, aliases, tags and merge keys are refused, as in an inventory, because parsers disagree on
them and a few hundred bytes of aliases can stand for gigabytes.

`authz_mode` and `logging_enabled` live here and nowhere else. An invalid file never changes what runs; at start it
means the defaults, which for a gateway are enforce and no logging.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from tidegate_agents.events import endpoint
from tidegate_agents.files import FileRefused, read_bounded, write_atomic
from tidegate_schema import validation

MAX_BYTES = 64 * 1024
_MAX_DEPTH = 4  # a list in the mapping is as deep as settings go
# Where a pattern would say little to a person.
_WANTED = {
    "log_endpoint": "write http://HOST or https://HOST, with a port and a path where they are wanted",
    **dict.fromkeys(endpoint.FILES, "write an absolute path, like /etc/tidegate/token"),
    "masquerade": "write a list of interfaces, like [eth1]",
    "tun_address": "write an IPv4 address, like 192.0.0.8",
    **dict.fromkeys(("interface", "tun", "denied_tun"), "write a-z, then a-z, 0-9 and -, 15 in all at most"),
    "flush_interval": "write seconds as a number, like 0.5",
    "metrics_listen": "metrics never leave the host: write socket, off, 127.0.0.1:PORT or [::1]:PORT",
}


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
    document: dict[str, Any] = _parse(path, data, YAML(typ="safe", pure=True))
    found = _problems(kind, document)
    if found:
        name, said = found[0]
        mark = _place(data, name)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise SettingsError(f"{path}:{mark}: {name + ': ' if name else ''}{said}{more}")
    return defaults(kind) | document


def change(kind: str, path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set some fields in the file, keeping everything else of it, and return the settings then in force.

    None takes a field out of it.
    """
    yaml = YAML(typ="rt", pure=True)
    try:
        data = read_bounded(path, MAX_BYTES)
    except FileNotFoundError:
        data = b""
    except FileRefused as error:
        raise SettingsError(str(error)) from None
    document = _parse(path, data, yaml)
    for name, value in changes.items():
        if value is None:
            document.pop(name, None)
        else:
            document[name] = value
    result = defaults(kind) | dict(document)
    found = _problems(kind, dict(document))
    if found:
        # What was just asked for is told before what has been wrong in the file all along.
        name, said = next((one for one in found if one[0].partition(".")[0] in changes), found[0])
        where = "" if name.partition(".")[0] in changes else f"{path}:{_place(data, name)}: "
        raise SettingsError(f"{where}{name + ': ' if name else ''}{said}")
    if kind == "gateway":
        _refuse_unusable_files({name: value for name, value in changes.items() if value is not None})
    text = io.BytesIO()
    yaml.dump(document, text)
    try:
        write_atomic(path, text.getvalue(), 0o644)
    except OSError as error:  # which names a file beside it
        init = "" if path.parent.exists() else f"; run 'tidegate {kind} init' first"
        raise SettingsError(f"{path}: cannot be written: {error.strerror}{init}") from None
    return result


def parse_value(kind: str, name: str, text: str) -> Any:
    """Read a value given on the command line: YAML's own reading of it, None of nothing. SettingsError."""
    known = validation.schema(f"{kind}-settings")["properties"]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}"
        raise SettingsError(f"no setting is called {name!r}; {meant}")
    booleans = {"on": True, "yes": True, "off": False, "no": False}
    if known[name].get("type") == "boolean" and text.lower() in booleans:
        return booleans[text.lower()]
    if known[name].get("type") == "string" and text.startswith("["):
        return text  # an IPv6 address, which in a file stands in quotes
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


def _problems(kind: str, document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return everything that is wrong with settings, as (setting, what), the setting "" for the whole."""
    names = defaults(kind) | document
    found = []
    for problem in validation.errors(f"{kind}-settings", document):
        name = ".".join(str(step) for step in problem.path)
        said = _WANTED.get(name, problem.message[:200])
        if problem.keyword == "additionalProperties":
            said += "; docs/interface.md lists the settings there are"
        found.append((name, said))
    for name, other in (
        *(("tun", "interface"), ("denied_tun", "interface"), ("denied_tun", "tun")),
        ("probe_interface", "interface"),
    ):
        if name in names and names[name] == names[other]:
            found.append((name, f"it needs another name than {other}"))
    if "flusher_uid" in names and names["flusher_uid"] == names["forwarder_uid"]:
        found.append(("flusher_uid", "it needs another number than forwarder_uid"))
    if kind == "gateway" and not found and (against := endpoint.contradiction(document)):
        found.append(against)
    return found


def _place(data: bytes, name: str) -> str:
    """Return line:column of a setting in its file, of its beginning for what stands nowhere."""
    first = name.partition(".")[0]
    try:
        line, column = YAML(typ="rt", pure=True).load(data.decode("utf-8")).lc.key(first)
    except Exception:  # it is a default's fault, or one of the documents that ruamel reads in one way only
        line, column = 0, 0
    return f"{line + 1}:{column + 1}"


def _refuse_unusable_files(changes: Mapping[str, Any]) -> None:
    try:
        endpoint.versions(changes)
    except FileRefused as error:
        raise SettingsError(str(error)) from None
