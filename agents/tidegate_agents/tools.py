"""Run the host's own programs (wg, ip, nft, wg-quick): bounded in time, whatever they print."""

from __future__ import annotations

import subprocess


def run(*words: str, text: str | None = None, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return its status and output; subprocess.TimeoutExpired after `seconds`.

    What is no UTF-8 is shown escaped: nft 1.0.6 was seen to print stray bytes in a message of its own.
    """
    return subprocess.run(
        words,
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="backslashreplace",
        check=False,
        timeout=seconds,
    )
