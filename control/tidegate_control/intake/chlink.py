"""ClickHouse's HTTP interface, as far as a store needs it: statements, inserts, and rows that come one by one.

ClickHouse's own client for Python asks its server for what releases before 2019 have not, and Debian's is one of
these. The interface itself is the same in all of them. https://clickhouse.com/docs/interfaces/http
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from tidegate_control.intake.store import StoreError, Unavailable

_TIMEOUT_S, _QUERY_TIMEOUT_S = 30.0, 300.0
_TOLD_BYTES = 2000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_PATIENCE = ("MEMORY_LIMIT", "TOO_MANY_PARTS", "TIMEOUT", "Memory limit", "Too many parts", "Timeout")
"""What passes: words of errors, by which a batch is no reason to give up."""


class Link:
    """One server, and one database there."""

    def __init__(self, url: str, password: str) -> None:
        """Take a URL as `open_store` has it; StoreError when it is none, or would show the password on a network."""
        try:
            parts = urlsplit(url)
            host, port, user = parts.hostname, parts.port, parts.username
        except ValueError:
            host = port = user = None
        database = parts.path.removeprefix("/")
        if not host or not user or not _NAME.fullmatch(user) or not _NAME.fullmatch(database):
            raise StoreError("events: write clickhouse://USER@HOST:PORT/DATABASE, or clickhouses:// for TLS")
        if parts.password is not None or parts.query or parts.fragment:
            raise StoreError(
                "events: nothing behind the database, and no password before the host: that has a file"
            )
        self._is_tls = parts.scheme == "clickhouses"
        if not self._is_tls and not _is_loopback(host):
            raise StoreError(
                f"events: {host} is not this host, so events would be readable on the way: clickhouses://"
            )
        self._address = host, port or (8443 if self._is_tls else 8123)
        self.database = database
        basic = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        self._headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/octet-stream"}
        self._kept: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def do(self, statement: str, data: bytes = b"", **settings: Any) -> None:
        """Run a statement that has no rows; with `data`, one that inserts it. Unavailable, StoreError."""
        with self._lock:
            connection, self._kept = self._kept or self._connection(_TIMEOUT_S), None
            try:
                answer = self._post(connection, statement, data, settings)
                answer.read()
            except BaseException:
                connection.close()
                raise
            self._kept = connection

    def rows(self, query: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a query, by column; Unavailable, StoreError."""
        connection = self._connection(_QUERY_TIMEOUT_S)
        try:
            settings = {"output_format_json_quote_64bit_integers": 0}
            for line in self._post(connection, f"{query} FORMAT JSONEachRow", b"", settings):
                yield json.loads(line)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"events: ClickHouse: {_why(error)}") from None
        finally:
            connection.close()

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._kept is not None:
                self._kept.close()
                self._kept = None

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        host, port = self._address
        made = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        return made(host, port, timeout=timeout)

    def _post(
        self, connection: http.client.HTTPConnection, statement: str, data: bytes, settings: Mapping[str, Any]
    ) -> http.client.HTTPResponse:
        # The status is told when all is done, not with the first row: what fails on the way is seen to have failed.
        parameters = {"database": self.database, "wait_end_of_query": 1, "buffer_size": 1 << 20, **settings}
        body = data or statement.encode()
        if data:
            parameters["query"] = statement
        try:
            try:
                connection.request("POST", f"/?{urlencode(parameters)}", body, self._headers)
                answer = connection.getresponse()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # It was closed while it was idle. Twice the same is one event (`clickhouse`).
                connection.close()
                connection.request("POST", f"/?{urlencode(parameters)}", body, self._headers)
                answer = connection.getresponse()
            if answer.status == 200:
                return answer
            said = answer.read(_TOLD_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"events: ClickHouse: {_why(error)}") from None
        line = " ".join(said.split())[:300]
        passes = answer.status in (429, 502, 503, 504) or any(word in said for word in _PATIENCE)
        raise (Unavailable if passes else StoreError)(f"events: ClickHouse: {answer.status}: {line}")


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
