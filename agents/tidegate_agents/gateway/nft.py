"""Hand rulesets to nft(8): one transaction, all of it or nothing; and notice when somebody else changed ours."""

from __future__ import annotations

import subprocess

from tidegate_agents.gateway.ruleset import TABLE
from tidegate_agents.host import HostError


def _nft(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["nft", *arguments], input=text, capture_output=True, text=True, check=False)


def load(ruleset: str) -> None:
    """Load a ruleset; HostError with nft's own first line when it is refused, and then nothing has changed."""
    done = _nft("-f", "-", text=ruleset)
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[0]
        raise HostError(f"nft refused the ruleset: {reason}")


def remove() -> None:
    """Take the private table away, if it is there."""
    load(f"table inet {TABLE}\ndelete table inet {TABLE}\n")


class Rules:
    """The ruleset in force, with what the kernel said it is right after it was loaded."""

    def __init__(self) -> None:
        self._ruleset = ""
        self._listing = ""

    def load(self, ruleset: str) -> None:
        """Put this ruleset in force."""
        load(ruleset)
        self._ruleset, self._listing = ruleset, self._listed()

    def mend(self) -> bool:
        """Load the ruleset again when the table is not as it was left; tells whether that was so.

        Another tool's `nft flush ruleset`, as Debian's nftables.service does at each restart, takes it away.
        """
        if self._listed() == self._listing:
            return False
        self.load(self._ruleset)
        return True

    @staticmethod
    def _listed() -> str:
        # Without counters, and without the elements of sets, of which there may be a quarter of a million.
        return _nft("--stateless", "--terse", "list", "table", "inet", TABLE).stdout
