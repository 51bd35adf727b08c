"""How often one may be wrong: failures by address, and over all, in a bounded table.

An address with too many different wrong tokens waits before it is listened to again, whatever it sends. When too many
have failed over all, every address with a failure waits, and one without is heard: so nobody is locked out by what
others do elsewhere, and a guesser with many addresses has one guess for each. The same wrong token again is no
guess: a gateway with an expired token locks out nobody behind the same router.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

PER_ADDRESS = 10
OVER_ALL = 300
SECONDS = 300.0
ADDRESSES = 10_000


def place(address: str) -> str:
    """Return whom an address stands for: an IPv4 address, or the /64 that one IPv6 host may choose from."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "?"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


class Attempts:
    """Failures of the last SECONDS; `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._by_place: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._over_all: deque[float] = deque(maxlen=OVER_ALL)

    def wait(self, address: str) -> float:
        """Return for how many seconds nothing from this address is looked at; 0 when it may ask now."""
        now = self._clock()
        with self._mutex:
            failures = self._of(place(address), now)
            if not failures:
                return 0.0
            if len(failures) >= PER_ADDRESS:
                return max(min(failures.values()) + SECONDS - now, 1.0)
            if len(self._over_all) == OVER_ALL and self._over_all[0] + SECONDS > now:
                return max(self._over_all[0] + SECONDS - now, 1.0)
        return 0.0

    def failed(self, address: str, what: str) -> None:
        """Count a failure; `what` is the hash of the token that was wrong."""
        now, where = self._clock(), place(address)
        with self._mutex:
            failures = self._of(where, now)
            if what in failures:
                return
            if not failures:
                self._by_place[where] = failures
                while len(self._by_place) > ADDRESSES:
                    self._by_place.popitem(last=False)
            failures[what] = now
            self._by_place.move_to_end(where)
            self._over_all.append(now)

    def _of(self, where: str, now: float) -> dict[str, float]:
        failures = self._by_place.get(where, {})
        for what in [what for what, then in failures.items() if then + SECONDS <= now]:
            del failures[what]
        if not failures:
            self._by_place.pop(where, None)
        return failures
