"""TLS from two files, which may change while the server runs: new connections get the new certificate."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("tidegate.control")
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class TlsError(ValueError):
    """A certificate or key that is not usable; the message is one line."""


class Tls:
    """The context that connections begin with."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Read both; TlsError when that is not possible, or when others may read the key."""
        self._cert, self._key = cert, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._versions = self._look()
        self._load(self.context)

    def follow(self) -> None:
        """Take up files that have changed; one that is not usable is told in the log and changes nothing."""
        try:
            versions = self._look()
            if versions == self._versions:
                return
            self._versions = versions
            # Tried on another context first: half of a new pair would end every new connection.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except TlsError as error:
            log.error("the certificate in use stays: %s", error)
        else:
            log.info("took up the certificate %s", self._cert)

    def _look(self) -> list[tuple[int, int, int]]:
        found = []
        for path in (self._cert, self._key):
            with _opened(path) as info:
                if path == self._key and info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise TlsError(f"tls_key: {path}: others may read it; chmod 600 {path}")
                found.append((info.st_ino, info.st_mtime_ns, info.st_size))
        return found

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # A password would be asked for on the terminal, where nobody sits.
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except OSError as error:  # ssl.SSLError is one
            why = getattr(error, "reason", None) or error.strerror or "not usable"
            raise TlsError(f"tls_cert and tls_key: {self._cert}, {self._key}: {_plain(str(why))}") from None
        except ValueError as error:
            raise TlsError(f"tls_key: {self._key}: {error}") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[os.stat_result]:
    try:
        fd = os.open(path, _READ)
    except OSError as error:
        raise TlsError(f"{path}: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise TlsError(f"{path}: not a regular file")
        yield info
    finally:
        os.close(fd)


def _no_password() -> str:
    raise ValueError("it is encrypted: the server reads a key without a password")


def _plain(reason: str) -> str:
    """Return OpenSSL's words (KEY_VALUES_MISMATCH) as others write them."""
    return reason.replace("_", " ").lower()
