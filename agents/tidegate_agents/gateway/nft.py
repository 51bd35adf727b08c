"""Hand rulesets to nft(8): one transaction, all of it or nothing; and notice when somebody else changed ours."""

from __future__ import annotations

import re
import subprocess

from tidegate_agents import tools
from tidegate_agents.gateway.ruleset import TABLE
from tidegate_agents.host import HostError

_OWN_TABLE = re.compile(rf"^table inet {TABLE} {{$.*?^}}$", re.MULTILINE | re.DOTALL)
_COUNT = re.compile(
    r"[ \t]*# count [0-9]+"
)  # of a set's elements; newer versions of nft print it, terse or not


_SECONDS = 60.0  # to list the whole ruleset of a busy host; a supervisor must not hang for good


def _nft(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return tools.run("nft", *arguments, text=text, seconds=_SECONDS)
    except subprocess.TimeoutExpired:
        raise HostError(f"nft {arguments[0]}: no answer within {_SECONDS:.0f} s") from None


def load(ruleset: str) -> None:
    """Load a ruleset; HostError with nft's own first line when it is refused, and then nothing has changed."""
    done = _nft("-f", "-", text=ruleset)
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[0]
        raise HostError(f"nft refused the ruleset: {reason}")


def remove() -> None:
    """Take the private table away, if it is there."""
    load(f"table inet {TABLE}\ndelete table inet {TABLE}\n")


def listing() -> str:
    """Return the whole ruleset with its counters as JSON, without elements; HostError when nft gives none.

    The whole of it, for the reason that `Rules` has.
    """
    return _list("--json")


def stateless() -> str:
    """Return the whole ruleset as text, without counts and elements; HostError when nft gives none."""
    return _list("--stateless")


def _list(how: str) -> str:
    done = _nft(how, "--terse", "list", "ruleset")
    if done.returncode:
        raise HostError(f"nft does not list the ruleset: {done.stderr.strip()[:200]}")
    return done.stdout


class Rules:
    """The ruleset in force, with what the kernel said it is right after it was loaded."""

    def __init__(self) -> None:
        self._ruleset = ""
        self._listing = ""

    def load(self, ruleset: str) -> None:
        """Put this ruleset in force."""
        load(ruleset)
        self._ruleset, self._listing = ruleset, self._listed()

    def are_changed(self) -> bool:
        """Tell whether the table is not as it was left.

        Another tool's `nft flush ruleset`, as Debian's nftables.service does at each restart, takes it away.
        """
        return self._listed() != self._listing

    def reload(self) -> None:
        """Put the same ruleset in force again."""
        self.load(self._ruleset)

    @staticmethod
    def _listed() -> str:
        # The whole ruleset: asked for one table, nft fetches every element of its sets and then leaves them out, which
        # takes seconds for a full flow set (nft 1.0.6, 2026-11-29: 2.5 s with 200,000, and 3 ms this way).
        return own_table(stateless())


def own_table(listing: str) -> str:
    """Return our table from a listing of all, without what changes by itself: "" when it is not there."""
    found = _OWN_TABLE.search(listing)
    return _COUNT.sub("", found[0]) if found is not None else ""
