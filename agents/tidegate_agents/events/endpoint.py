"""What the settings of a log endpoint may say together, and the secrets that they name.

A secret is in a file of its own, never in the settings, which everyone may read: a bearer token, and a private key.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tidegate_agents.files import FileRefused

FILES = ("log_token_file", "log_ca_file", "log_cert_file", "log_key_file")
SECRET = ("log_token_file", "log_key_file")
# Names under which log receivers take a secret in a URL; everyone may read the settings.
_SECRET_PARAMETERS = frozenset(("password", "passwd", "token", "access_token", "api_key", "apikey", "secret"))
_TOKEN_MAX_BYTES = 16 * 1024
_TOKEN = re.compile(rb"(?:(?:Basic|Bearer) )?[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1; RFC 7617


def contradiction(settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the setting that does not go with the others, and why in a line; None when all go together."""
    one, other = "log_cert_file", "log_key_file"
    for name, needed in ((one, other), (other, one)):
        if settings.get(name) and not settings.get(needed):
            return name, f"it needs {needed} beside it"
    endpoint = settings.get("log_endpoint")
    if not isinstance(endpoint, str):
        return None
    try:
        url = urlsplit(endpoint)
        host, _ = url.hostname, url.port
    except ValueError:
        return "log_endpoint", "no URL that can be read: write http://HOST or https://HOST"
    if not host:
        return "log_endpoint", "it names no host"
    if "@" in url.netloc:
        return "log_endpoint", "no user or password in it, everyone may read this file: use log_token_file"
    for parameter, _ in parse_qsl(url.query, keep_blank_values=True):
        if parameter.lower() in _SECRET_PARAMETERS:
            return "log_endpoint", f"no {parameter} in it, everyone may read this file: use log_token_file"
    if url.scheme == "http":
        for name in ("log_ca_file", "log_cert_file"):
            if settings.get(name):
                return name, "log_endpoint is http://, where nobody shows a certificate: use https://"
        if settings.get("log_token_file") and not _is_loopback(host):
            return (
                "log_token_file",
                "log_endpoint is http:// and not localhost: the token would be readable; use https://",
            )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authorization(settings: Mapping[str, Any]) -> str | None:
    """Return the value of Authorization that the token file holds; FileRefused names the file, never what is in it."""
    path = settings.get("log_token_file")
    if path is None:
        return None
    with opened("log_token_file", path) as fd:
        text = os.read(fd, _TOKEN_MAX_BYTES + 1)
    if len(text) > _TOKEN_MAX_BYTES or not _TOKEN.fullmatch(text.strip()):
        raise FileRefused(f"log_token_file: {path}: not a token on one line")
    token = text.strip().decode("ascii")
    return token if " " in token else f"Bearer {token}"


def versions(settings: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Return what tells each file that is named from what it was before; FileRefused as `opened`."""
    return {name: _version(name, settings[name]) for name in FILES if settings.get(name)}


def _version(name: str, path: str) -> tuple[int, int, int]:
    with opened(name, path) as fd:
        info = os.fstat(fd)
    return info.st_ino, info.st_mtime_ns, info.st_size


@contextlib.contextmanager
def opened(name: str, path: str) -> Iterator[int]:
    """Open the file that the setting `name` names; FileRefused when it is none, or a secret that is open to others.

    What is checked is what is then read. Links are followed: they are a way to rotate a secret.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise FileRefused(f"{name}: {path}: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise FileRefused(f"{name}: {path}: not a regular file")
        if name in SECRET and info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise FileRefused(f"{name}: {path}: others may read it or write to it; chmod 600 {path}")
        if name in SECRET and info.st_uid not in (0, os.geteuid()):
            raise FileRefused(f"{name}: {path}: it belongs to another user")
        yield fd
    finally:
        os.close(fd)
