"""The control server's settings: one YAML file, strict, read at the start.

What is wrong is told in one line, `file:line:column: setting: what`; nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tidegate_compiler import yamltree
from tidegate_schema import validation

KIND = "control-settings"
MAX_BYTES = 64 * 1024
_PATHS = (
    *("repository", "tls_cert", "tls_key", "state"),
    *("events_password_file", "publish_directory"),
)
_WANTED = {
    "listen": "write ADDRESS:PORT, like 127.0.0.1:8080 or '[::1]:8080'",
    "url": "write https://NAME, with a port where one is wanted and no path",
    "events": "write duckdb:///PATH or clickhouse://USER@HOST:PORT/DATABASE",
}


class SettingsError(ValueError):
    """Settings that are refused; the message is one line and says where."""


@dataclass(frozen=True)
class Settings:
    """What `control-settings.schema.json` says, with its defaults. Times in seconds, sizes in bytes, paths whole."""

    repository: Path
    branch: str = "main"
    inventory: str = "inventory"
    remote: str | None = None
    write: str = "branch"
    listen: str = "127.0.0.1:8080"
    url: str | None = None
    hosts: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    plain_http: str = "refuse"
    trusted_proxies: tuple[str, ...] = ()
    state: Path = Path("/var/lib/tidegate-control")
    events: str | None = None
    events_password_file: Path | None = None
    events_days: int = 30
    session_idle: int = 3600
    session_end: int = 43200
    body_limit: int = 1 << 20
    intake_body_limit: int = 16 << 20
    connections: int = 512
    requests: int = 128
    publish_command: tuple[str, ...] = ()
    publish_directory: Path | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where to listen: an address or localhost, and a port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def events_url(self) -> str:
        """Where events are kept."""
        return self.events or f"duckdb://{self.state / 'intake.duckdb'}"

    @property
    def origin(self) -> str | None:
        """Scheme, host and port as a browser names the server; None when only the request says it."""
        return self.url.rstrip("/").lower() if self.url else None

    @property
    def is_secure(self) -> bool:
        """Whether what browsers see is TLS, the server's own or a proxy's."""
        return self.tls_cert is not None or (self.url or "").startswith("https://")

    @property
    def is_open(self) -> bool:
        """Whether anybody but this machine may connect."""
        host = self.address[0]
        return host != "localhost" and not ipaddress.ip_address(host).is_loopback

    @property
    def names(self) -> frozenset[str]:
        """Every host name, lower case and an IPv6 address in brackets, by which the server may be asked for."""
        host = self.address[0].lower()
        own = {f"[{host}]" if ":" in host else host}
        if not self.is_open:
            own |= {"localhost", "127.0.0.1", "[::1]"}
        if self.origin:
            own.add(_host_of(self.origin))
        return frozenset(own | {name.lower() for name in self.hosts}) - {"0.0.0.0", "[::]"}  # noqa: S104


def load(path: Path) -> Settings:
    """Read a settings file; SettingsError when there is none, or anything in it is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        mend = (
            "; write it (docs/control.md), or name another with --settings"
            if isinstance(error, FileNotFoundError)
            else ""
        )
        raise SettingsError(f"{path}: {error.strerror}{mend}") from None
    if len(data) > MAX_BYTES:
        raise SettingsError(f"{path}: more than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8") from None
    tree, flaws = yamltree.parse(text)
    if flaws:
        flaw = flaws[0]
        raise SettingsError(f"{path}:{flaw.line}:{flaw.column}: {flaw.message}")
    if tree is None or not isinstance(tree.value, dict):
        raise SettingsError(f"{path}:1:1: settings are a mapping from name to value")
    document = yamltree.plain(tree)
    found = [*_broken(document)] or [*_contradictions(_made(document, path))]
    if found:
        name, said = found[0]
        member = tree.value.get(name.partition(".")[0])
        line, column = (member.line, member.column) if member else (1, 1)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise SettingsError(f"{path}:{line}:{column}: {name + ': ' if name else ''}{said}{more}")
    return _made(document, path)


def _broken(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (setting, what) of everything that the schema refuses."""
    known = validation.schema(KIND)["properties"]
    for name in document:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            yield name, "there is no such setting" + (f"; did you mean {near[0]}?" if near else "")
    for problem in validation.errors(KIND, document):
        name = ".".join(str(step) for step in problem.path)
        if problem.keyword == "required":
            yield "", f"{problem.message}: name the inventory's git repository"
        elif problem.keyword != "additionalProperties":
            yield name, _WANTED.get(name, problem.message[:200])


def _made(document: dict[str, Any], path: Path) -> Settings:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        if field.name not in document:
            continue
        value = document[field.name]
        if field.name in _PATHS:
            value = Path(os.path.normpath(path.absolute().parent / value))
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return Settings(**values)


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield (setting, what) of everything that cannot be, or that would be unsafe."""
    if not _is_address(settings):
        yield "listen", _WANTED["listen"]
        return
    if settings.url is not None and not _host_of(settings.url):
        yield "url", _WANTED["url"]
        return
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(settings, one) and not getattr(settings, other):
            yield one, f"it needs {other} beside it"
    if settings.is_open and not settings.tls_cert and settings.plain_http != "allow":
        yield (
            "listen",
            f"{settings.listen} is not loopback, and without TLS everybody on the way reads the tokens: "
            "set tls_cert and tls_key, or plain_http: allow",
        )
    if not settings.names:
        yield "listen", "by which name will clients ask? set url, or hosts"
    if settings.tls_cert and (settings.url or "").startswith("http://"):
        yield "url", "the server speaks TLS: write https://"
    if settings.session_idle > settings.session_end:
        yield "session_idle", "it is longer than session_end"
    for proxy in settings.trusted_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            yield "trusted_proxies", str(error)
    if settings.publish_command and settings.publish_directory:
        yield "publish_directory", "publish_command is set too: one of the two publishes"
    user = _user_of(settings.events or "")
    if user is None:
        yield "events", _WANTED["events"]
    elif ":" in user:
        yield "events", "no password in it, everyone may read this file: use events_password_file"


def _is_address(settings: Settings) -> bool:
    host, port = settings.address
    if port > 65535:
        return False
    try:
        return host == "localhost" or bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _host_of(url: str) -> str:
    """Return the host of a URL, an IPv6 address in brackets; "" when that cannot be read."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        return f"[{ipaddress.IPv6Address(host)}]" if ":" in host else host
    except ValueError:
        return ""


def _user_of(url: str) -> str | None:
    """Return what stands before the host of a URL; None when that cannot be read."""
    try:
        return urlsplit(url).netloc.rpartition("@")[0]
    except ValueError:
        return None
