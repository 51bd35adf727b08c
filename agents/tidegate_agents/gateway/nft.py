"""Hand a ruleset to nft(8): one transaction, all of it or nothing."""

from __future__ import annotations

import subprocess

from tidegate_agents.gateway.ruleset import TABLE
from tidegate_agents.host import HostError


def load(ruleset: str) -> None:
    """Load a ruleset; HostError with nft's own first line when it is refused, and then nothing has changed."""
    done = subprocess.run(["nft", "-f", "-"], input=ruleset, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(
            f"nft refused the ruleset: {(done.stderr.strip() or 'no reason given').splitlines()[0]}"
        )


def remove() -> None:
    """Take the private table away, if it is there."""
    load(f"table inet {TABLE}\ndelete table inet {TABLE}\n")
