"""A reader of wg-quick files that shares no code with the product: the line rules of wireguard-tools, nothing else.

Two programs read such a file, and both are modelled here, from wireguard-tools' sources:
  * wg-quick (src/wg-quick/linux.bash, parse_options) takes its own keys out of [Interface];
  * every other line goes to `wg setconf` (src/config.c, config_read_line).
What neither knows is kept as it stands, so that a test can say that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_QUICK = (
    "address", "mtu", "dns", "table", "preup", "predown", "postup", "postdown", "saveconfig",
)  # fmt: skip
_WG_INTERFACE = ("listenport", "fwmark", "privatekey")
_WG_PEER = ("endpoint", "publickey", "allowedips", "persistentkeepalive", "presharedkey")
_SPACE = " \t\n\v\f\r"


@dataclass
class Section:
    """One section: its name in lower case, and its keys in lower case with their values, in order."""

    name: str
    entries: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class File:
    """All that either program takes from a file; `unknown` are the lines that `wg setconf` refuses."""

    sections: list[Section] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def read(data: bytes) -> File:
    """Read a file as the two programs do."""
    found = File()
    in_interface = False
    # `read -r line` ends lines at a line feed and nowhere else, drops NULs, and strips spaces and tabs.
    for raw in data.replace(b"\0", b"").decode("utf-8", "surrogateescape").split("\n"):
        line = raw.strip(" \t")
        stripped = line.partition("#")[0]  # ${line%%\#*}: a comment may begin anywhere
        key, value = (part.strip(_SPACE) for part in _halves(stripped))
        if key.startswith("["):
            in_interface = key.lower() == "[interface]"
        if in_interface and key.lower() in _QUICK:
            found.sections[-1].entries.append((key.lower(), value))
        else:
            _setconf(found, stripped)
    return found


def _halves(text: str) -> tuple[str, str]:
    """Return ${text%%=*} and ${text#*=}: both are the whole text when there is no '='."""
    key, equals, value = text.partition("=")
    return (key, value) if equals else (text, text)


def _setconf(found: File, line: str) -> None:
    bare = "".join(char for char in line if char not in _SPACE)  # wg removes every space
    if not bare:
        return
    if bare.lower() in ("[interface]", "[peer]"):
        found.sections.append(Section(bare.lower().strip("[]")))
        return
    section = found.sections[-1] if found.sections else None
    known = _WG_PEER if section is not None and section.name == "peer" else _WG_INTERFACE
    key, equals, value = bare.partition("=")
    if section is None or not equals or not value or key.lower() not in known:
        found.unknown.append(line)
        return
    section.entries.append((key.lower(), value))
