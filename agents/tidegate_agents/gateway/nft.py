"""Hand rulesets to nft(8): one transaction, all of it or nothing; and notice when somebody else changed ours."""

from __future__ import annotations

import re
import subprocess

from tidegate_agents.gateway.ruleset import TABLE
from tidegate_agents.host import HostError

_OWN_TABLE = re.compile(rf"^table inet {TABLE} {{$.*?^}}$", re.MULTILINE | re.DOTALL)
_COUNT = re.compile(
    r"[ \t]*# count [0-9]+"
)  # of a set's elements; newer versions of nft print it, terse or not


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
        # The whole ruleset: asked for one table, nft fetches every element of its sets and then leaves them out, which
        # takes seconds for a full flow set (nft 1.0.6, 2026-11-29: 2.5 s with 200,000, and 3 ms this way).
        return own_table(_nft("--stateless", "--terse", "list", "ruleset").stdout)


def own_table(listing: str) -> str:
    """Return our table from a listing of all, without what changes by itself: "" when it is not there."""
    found = _OWN_TABLE.search(listing)
    return _COUNT.sub("", found[0]) if found is not None else ""
