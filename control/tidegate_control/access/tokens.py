"""Bearer tokens: 256 random bits behind a public ID, kept as hashes, ending always.

    tgc_1f0c2a9b_0kQ…43 characters of base64url…
    │   │        └── the secret
    │   └── ID: what a list, a log and the file call it by
    └── what secret scanners look for

STATE/tokens.json has for each: ID, name, email, scopes, gateway, times, and SHA-256 of the whole text. A slow hash
protects secrets that can be guessed; 2^256 cannot, and every request would pay for it (docs/adr/0016).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tidegate_control.access import privatefiles
from tidegate_control.access.caller import GATEWAY_INTAKE, SCOPES, Caller, closure
from tidegate_control.access.privatefiles import StateError
from tidegate_schema import jsonfile
from tidegate_schema.names import is_name

log = logging.getLogger("tidegate.control.access")

FORMAT = 1
PATTERN = re.compile(r"tgc_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
MAX_SECONDS = 366 * 86400
MOST = 10_000
"""Tokens that one server keeps: a gateway has one."""
_MAX_BYTES = 8 << 20
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,190}")
_KEPT_SECONDS = 90 * 86400  # how long a list still tells of one that has ended
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


class TokenError(ValueError):
    """A token that cannot be made or ended; the message is one line."""


@dataclass(frozen=True)
class Token:
    """What is kept of a token. Times are seconds of the epoch; `revoked` is 0 for one that is not."""

    id: str
    name: str
    email: str
    scopes: tuple[str, ...]
    gateway: str | None
    created: int
    expires: int
    revoked: int
    sha256: str

    def state(self, now: float) -> str:
        """Return "live", "expired" or "revoked"."""
        if self.revoked:
            return "revoked"
        return "live" if self.created - 60 <= now < self.expires else "expired"

    def caller(self) -> Caller:
        """Return who holds it."""
        return Caller(self.name, self.email, closure(self.scopes), self.gateway)


def digest(text: str) -> str:
    """Return the hash by which a token is known."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def make(
    name: str, scopes: Sequence[str], *, gateway: str | None, email: str | None, now: float, seconds: int
) -> tuple[Token, str]:
    """Return a new token and its text, which nobody keeps; TokenError when what is asked for makes no sense."""
    if not is_name(name):
        raise TokenError(f"a token's name is a-z, 0-9 and -, at most 63, not {name!a}")
    if not scopes or set(scopes) - set(SCOPES):
        raise TokenError(f"scopes are {', '.join(SCOPES)}")
    if GATEWAY_INTAKE in scopes:
        if len(set(scopes)) > 1:
            raise TokenError(f"{GATEWAY_INTAKE} stands alone: a gateway brings events and does nothing else")
        if gateway is None or not is_name(gateway):
            raise TokenError(f"{GATEWAY_INTAKE} needs the gateway's name in the inventory: --gateway NAME")
    elif gateway is not None:
        raise TokenError(f"only {GATEWAY_INTAKE} is bound to a gateway")
    if email is not None and not _EMAIL.fullmatch(email):
        raise TokenError(f"not an email address: {email!a}")
    if not 0 < seconds <= MAX_SECONDS:
        raise TokenError("a token ends within 366 days, and not before it begins")
    identifier = secrets.token_hex(4)
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode("ascii")
    text = f"tgc_{identifier}_{secret}"
    token = Token(
        id=identifier,
        name=name,
        email=email or f"{name}@tidegate.invalid",  # RFC 2606: nobody's
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        gateway=gateway,
        created=int(now),
        expires=int(now) + seconds,
        revoked=0,
        sha256=digest(text),
    )
    return token, text


class Tokens:
    """The tokens of a state directory; the file is read again when it has changed.

    A file that cannot be relied on holds no token at all: nobody is let in, and the log says why.
    """

    def __init__(self, state: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = state / "tokens.json"
        self._lock = state / "tokens.lock"
        self._clock = clock
        self._mutex = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._known: dict[str, Token] = {}

    def find(self, text: str) -> Token | None:
        """Return the live token whose text this is; None for a stranger's, an expired or a revoked one."""
        match = PATTERN.fullmatch(text)
        token = self._current().get(match[1]) if match else None
        # Compared in constant time, also where there is nothing to compare with.
        is_right = hmac.compare_digest(digest(text), token.sha256 if token else _NOBODY)
        return token if token is not None and is_right and token.state(self._clock()) == "live" else None

    def live(self, identifier: str) -> Token | None:
        """Return a token by its ID as long as it is live: what a session asks at every request."""
        token = self._current().get(identifier)
        return token if token is not None and token.state(self._clock()) == "live" else None

    def all(self) -> list[Token]:
        """Return every token, the ended ones of late too, oldest first. StateError."""
        return self._read()

    def add(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        seconds: int,
        gateway: str | None = None,
        email: str | None = None,
    ) -> tuple[Token, str]:
        """Make a token and keep its hash; returns it and its text. TokenError, StateError, OSError."""
        token, text = make(name, scopes, gateway=gateway, email=email, now=self._clock(), seconds=seconds)
        with privatefiles.locked(self._lock):
            kept = self._read()
            if any(one.name == name and one.state(self._clock()) == "live" for one in kept):
                raise TokenError(f"there is a token {name}: revoke it first, or choose another name")
            if len(kept) >= MOST or any(one.id == token.id for one in kept):
                raise TokenError(f"no room for another token, there are {len(kept)}: revoke some")
            self._write([*kept, token])
        return token, text

    def revoke(self, name: str) -> Token:
        """End the live token of a name, or the one of an ID; TokenError when there is none."""
        with privatefiles.locked(self._lock):
            kept = self._read()
            now = self._clock()
            found = [one for one in kept if name in (one.name, one.id) and one.state(now) == "live"]
            if not found:
                ended = " any more" if any(name in (one.name, one.id) for one in kept) else ""
                raise TokenError(
                    f"there is no live token {name!a}{ended}; tidegate control token list has them"
                )
            self._write([replace(one, revoked=int(now)) if one in found else one for one in kept])
        return replace(found[0], revoked=int(now))

    def _current(self) -> dict[str, Token]:
        with self._mutex:
            try:
                version = privatefiles.version(self._path)
                if version != self._version:
                    self._known = {}
                    self._version = version
                    self._known = {token.id: token for token in self._read()}
            except (OSError, StateError) as error:
                self._known = {}
                log.error("no token counts: %s", error)
            return self._known

    def _read(self) -> list[Token]:
        data = privatefiles.read_private(self._path, _MAX_BYTES)
        if data is None:
            return []
        try:
            return [_token(one) for one in _listed(jsonfile.parse(data))]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise StateError(f"{self._path}: not a list of tokens, or of another version") from None

    def _write(self, tokens: list[Token]) -> None:
        now = self._clock()
        kept = [asdict(one) for one in tokens if max(one.expires, one.revoked) + _KEPT_SECONDS > now]
        privatefiles.write_private(self._path, jsonfile.canonical({"format": FORMAT, "tokens": kept}))


def _listed(document: Any) -> list[Any]:
    if document["format"] != FORMAT or not isinstance(document["tokens"], list):
        raise ValueError
    return list(document["tokens"])


def _token(one: dict[str, Any]) -> Token:
    token = Token(**{**one, "scopes": tuple(one["scopes"])})
    texts = (token.id, token.name, token.email, token.sha256)
    times = (token.created, token.expires, token.revoked)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in times):
        raise ValueError
    if set(token.scopes) - set(SCOPES) or (GATEWAY_INTAKE in token.scopes) != (token.gateway is not None):
        raise ValueError
    return token
