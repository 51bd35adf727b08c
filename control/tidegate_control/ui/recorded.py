"""What recorded flows say, in words: outcomes of replay, readiness and suggest as pages show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tidegate_compiler.learn import replaytext, suggestdoc
from tidegate_compiler.learn.flows import TooManyFlowsError
from tidegate_compiler.plan.report import some
from tidegate_control.learn.asking import AGAIN, BusyError, TooMuchError
from tidegate_control.learn.sources import SourceError
from tidegate_control.problems import Problem
from tidegate_control.ui.planview import MOST, Sentence


@dataclass(frozen=True)
class Replayed:
    """A replay: its totals, what makes it less than whole, and what changes; `more` counts what is left out."""

    summary: str
    span: str
    flows: int
    cautions: tuple[str, ...]
    breaks: tuple[Sentence, ...]
    passes: tuple[Sentence, ...]
    more: Mapping[str, int]


@dataclass(frozen=True)
class Suggested:
    """A policy or group of a suggestion: its YAML, and what a form of a new one begins with.

    `kept` is a policy that is there already. `evidence` and `excess` are empty for a group.
    """

    name: str
    yaml: str
    form: Mapping[str, str]
    evidence: str = ""
    excess: str = ""
    kept: bool = False


def replayed(told: Mapping[str, Any]) -> Replayed:
    """Return a replay's document in words."""
    document = dict(told)
    return Replayed(
        replaytext.summary(document),
        replaytext.span(document),
        document["counts"]["flows"],
        tuple(replaytext.cautions(document)),
        tuple(map(_sentence, document["breaks"][:MOST])),
        tuple(map(_sentence, document["passes"][:MOST])),
        {kind: max(0, len(document[kind]) - MOST) for kind in ("breaks", "passes")},
    )


def _sentence(one: dict[str, Any]) -> Sentence:
    text = f"{replaytext.who(one)} → {replaytext.to(one)} {some(one['ports'])}".rstrip()
    where = f" through {some(one['gateways'])}"
    return Sentence(text, f"{replaytext.because(one)}. Recorded: {replaytext.evidence(one)}{where}", ())


def policies(told: Mapping[str, Any]) -> Iterator[Suggested]:
    """Yield a suggestion's policies, those that are there already last."""
    for one in sorted(told["policies"], key=lambda one: bool(one["kept"])):
        form = {
            "name": one["name"],
            "from": "\n".join(one["from"]),
            "to": "\n".join(one["to"]),
            "action": "allow",
            "ports": "\n".join(one["ports"] or ()),
        }
        excess = suggestdoc.excess(one) if one["excess"]["pairs"] or one["excess"]["clients"] else ""
        yaml = suggestdoc.policy_text(one)
        yield Suggested(one["name"], yaml, form, suggestdoc.evidence(one), excess, one["kept"])


def groups(told: Mapping[str, Any]) -> Iterator[Suggested]:
    """Yield the groups that a suggestion had to make."""
    for one in told["groups"]:
        form = {"name": one["name"], "members": "\n".join(one["members"])}
        yield Suggested(one["name"], suggestdoc.group_text(one), form)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what keeps flows from being read into a Problem that a page shows: 422 or 503."""
    try:
        yield
    except BusyError as error:
        raise _later("Not now", f"{error}; try again in {AGAIN} s") from None
    except (TooMuchError, TooManyFlowsError) as error:
        raise Problem(422, "More than is answered at once", str(error)) from None
    except SourceError as error:
        raise _later("The events are not to be had", str(error)) from None


def _later(title: str, detail: str) -> Problem:
    return Problem(503, title, detail, headers={"Retry-After": str(AGAIN)})
