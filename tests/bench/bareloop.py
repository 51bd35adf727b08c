"""The least that Python can do with a TUN: read and write back, `python -m bench.bareloop TUN REPORT`, two descriptors.

It stands where a forwarder would, so that what that costs is compared with what no Python can go below. Reports as
one does, too.
"""

from __future__ import annotations

import os
import select
import sys

from tidegate_agents.datapath.forwarder import ACTIVE

BUFFER_BYTES = 10 + 65535  # a virtio_net_hdr and the largest packet


def main() -> None:
    tun, report = map(int, sys.argv[1:])
    buffer = memoryview(bytearray(BUFFER_BYTES))
    into = (buffer,)
    poller = select.poll()
    poller.register(tun, select.POLLIN)
    os.write(report, ACTIVE)
    while True:
        poller.poll()
        try:
            while True:
                os.write(tun, buffer[: os.readv(tun, into)])
        except BlockingIOError:
            pass


if __name__ == "__main__":
    main()
