"""A tolerant reader of wg-quick(8) files as people have them, for `import` alone.

No private or preshared key is ever held: the value of such a line is dropped while the line is read, and so is the
value of every line that is not understood or may run a command, for keys stand there, too. What remains of them is the
number of the line and, where it is one of the known words, its key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SECRETS = ("privatekey", "presharedkey")
READ = ("address", "listenport", "publickey", "allowedips", "endpoint")
# Known words of wg-quick(8) and wg(8), as they are spelled there.
SPELLED = {
    word.lower(): word
    for word in (
        *("PrivateKey", "PresharedKey", "Address", "ListenPort", "PublicKey", "AllowedIPs", "Endpoint"),
        *("DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig", "FwMark"),
        *("PersistentKeepalive", "AdvancedSecurity"),
    )
}
MAX_LINE = 1 << 16

_SETTING = re.compile(r"\s*([A-Za-z]{1,40})\s*=\s*(.*)")
_SECTION = re.compile(r"\s*\[([A-Za-z]{1,40})\]\s*")
# Comments that name a host: `# Name = x`, `# friendly_name = x`, `### Client x`, `### begin x ###`, `# x`.
_NAMED = re.compile(
    r"(?:(?:friendly_)?name|client|peer|host|user|begin)\s*[:=]?\s+(.+)|(?:friendly_)?name\s*=\s*(.+)", re.I
)
_ENDS = re.compile(r"end\b", re.I)
_LIKE_KEY = re.compile(r"[A-Za-z0-9+/]{20,}|key|psk|secret|passw", re.I)


@dataclass(frozen=True)
class Value:
    """A setting's value and its line."""

    text: str
    line: int


@dataclass
class Section:
    """[Interface] or [Peer]: the settings that are read, by key in lower case, lists split; `label` from a comment."""

    line: int
    label: str = ""
    settings: dict[str, list[Value]] = field(default_factory=dict)

    def all(self, key: str) -> list[Value]:
        """Return every value of a key."""
        return self.settings.get(key, [])

    def one(self, key: str) -> Value | None:
        """Return the last value of a key, as wg(8) takes it."""
        return self.all(key)[-1] if self.all(key) else None


@dataclass
class Config:
    """A file: its sections, the lines of its secrets, and (line, word) of what else is in it."""

    interface: Section | None = None
    peers: list[Section] = field(default_factory=list)
    secrets: list[tuple[int, str]] = field(default_factory=list)
    others: list[tuple[int, str]] = field(default_factory=list)
    strange: list[int] = field(default_factory=list)


class NotConfigError(ValueError):
    """The bytes are no wg-quick file; one line."""


def read(data: bytes) -> Config:
    """Read a file. NotConfigError when it is none; single lines that are none are in `strange`."""
    if b"\0" in data:
        raise NotConfigError("holds a NUL byte; this is no wg-quick file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NotConfigError("not UTF-8; this is no wg-quick file") from None
    found = Config()
    section: Section | None = None
    comment = ""
    for number, line in enumerate(re.split(r"\r?\n", text), 1):
        if len(line) > MAX_LINE:
            found.strange.append(number)
            continue
        code, sign, remark = line.partition("#")
        if not code.strip():
            label = _label(remark) if sign else ""
            if label and section is not None and not section.settings and not section.label:
                section.label = label  # a comment inside, in front of the first setting
            comment = label or (comment if sign else "")
            continue
        header = _SECTION.fullmatch(code)
        if header is not None:
            section = Section(number, _label(remark) or comment)
            comment = ""
            if header[1].lower() == "interface" and found.interface is None:
                found.interface = section
            elif header[1].lower() == "peer":
                found.peers.append(section)
            else:
                found.strange.append(number)
            continue
        _setting(found, section, number, code)
        comment = ""
    if found.interface is None and not found.peers:
        raise NotConfigError("has neither [Interface] nor [Peer]; this is no wg-quick file")
    return found


def _setting(found: Config, section: Section | None, number: int, code: str) -> None:
    match = _SETTING.fullmatch(code)
    key = match[1].lower() if match is not None else ""
    if key in SECRETS:
        found.secrets.append((number, SPELLED[key]))
    elif match is None or section is None or key not in SPELLED:
        found.strange.append(number)
    elif key in READ:
        parts = match[2].split(",") if key in ("address", "allowedips") else [match[2]]
        values = [Value(part.strip(), number) for part in parts if part.strip()]
        section.settings.setdefault(key, []).extend(values)
    else:
        found.others.append((number, SPELLED[key]))


def _label(remark: str) -> str:
    """Return the host's name that a comment gives, "" for none. One that may hold a key is none."""
    text = remark.strip("# \t")
    if not text or len(text) > 80 or _LIKE_KEY.search(text) or _ENDS.match(text):
        return ""
    match = _NAMED.fullmatch(text)
    if match is not None:
        return (match[1] or match[2] or "").strip()
    return "" if "=" in text else text
