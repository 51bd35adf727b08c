"""How long new flows wait for their first answer: `python -m bench.probe SOURCE SECONDS`, and `… serve` to answer.

Sends a packet of UDP from another port every 10 ms, whether or not those before were answered, so that a gateway that
hangs is asked as often as one that does not. Prints JSON: milliseconds, one for each; what stays without an answer has
waited for as long as it is given.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time

from bench.flood import DESTINATION

ECHO = 7
EVERY, GIVEN = 0.01, 1.0  # seconds
FIRST_PORT = 20000


def serve() -> None:
    """Send back what comes, for good."""
    service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    service.bind((DESTINATION, ECHO))
    while True:
        service.sendto(*service.recvfrom(100))


def waits(source: str, seconds: float) -> list[float]:
    """Return how long each of the flows has waited, in seconds."""
    found: list[float] = []
    waiting = selectors.DefaultSelector()

    def collect(until: float) -> None:
        while (left := until - time.monotonic()) > 0 and waiting.get_map():
            for key, _ in waiting.select(left):
                one, sent = key.data
                with contextlib.suppress(ConnectionError):  # told that nobody listens: no answer
                    one.recv(100)
                    found.append(time.monotonic() - sent)
                waiting.unregister(one)
                one.close()
        time.sleep(max(0.0, until - time.monotonic()))

    begin, count = time.monotonic(), int(seconds / EVERY)
    for number in range(count):
        collect(begin + number * EVERY)
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((source, FIRST_PORT + number))
        one.connect((DESTINATION, ECHO))
        waiting.register(one, selectors.EVENT_READ, (one, time.monotonic()))
        one.send(b"?")
    collect(time.monotonic() + GIVEN)
    return [min(one, GIVEN) for one in found] + [GIVEN] * (count - len(found))


def main() -> None:
    if sys.argv[1] == "serve":
        serve()
    print(json.dumps([wait * 1e3 for wait in waits(sys.argv[1], float(sys.argv[2]))]))


if __name__ == "__main__":
    main()
