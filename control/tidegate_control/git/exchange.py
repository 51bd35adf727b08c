"""What a command is given and what it prints, both pipes at once, with an end to how much and how long.

A repository is made by others: a tree of some kilobytes can list more files than any memory holds.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time

_PIECE = 1 << 16
_ERRORS_MOST = 1 << 20


class TooMuch(Exception):  # noqa: N818 - it names what came
    """It prints more than anybody wants to read."""


def exchange(
    process: subprocess.Popen[bytes], given: bytes, *, seconds: float, most: int, is_cut: bool = False
) -> tuple[bytes, bytes]:
    """Return what a process prints on standard output and error; it has ended then, or with `is_cut` may go on.

    TooMuch when it prints more than `most` bytes, unless it is cut there; subprocess.TimeoutExpired.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + seconds
    out, err, rest = bytearray(), bytearray(), memoryview(given)
    places = {process.stdout.fileno(): (out, most), process.stderr.fileno(): (err, _ERRORS_MOST)}
    with selectors.DefaultSelector() as ready:
        for pipe in (process.stdout, process.stderr):
            ready.register(pipe, selectors.EVENT_READ)
        os.set_blocking(process.stdin.fileno(), False)
        ready.register(process.stdin, selectors.EVENT_WRITE)
        while ready.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(process.args, seconds)
            for key, _ in ready.select(left):
                if key.fileobj is process.stdin:
                    rest = _fed(key.fd, rest)
                    if not rest:
                        ready.unregister(process.stdin)
                        process.stdin.close()
                    continue
                found, bound = places[key.fd]
                piece = os.read(key.fd, _PIECE)
                found += piece
                if not piece:
                    ready.unregister(key.fileobj)
                elif len(found) > bound:
                    if is_cut and found is out:
                        return bytes(out[:most]), bytes(err)
                    raise TooMuch
    process.wait(max(0.0, deadline - time.monotonic()))
    return bytes(out), bytes(err)


def _fed(fd: int, rest: memoryview) -> memoryview:
    """Write what the pipe takes, and return what is left; nothing when nobody reads any more."""
    try:
        return rest[os.write(fd, rest[:_PIECE]) :] if rest else rest
    except BrokenPipeError:
        return rest[len(rest) :]
    except BlockingIOError:
        return rest
