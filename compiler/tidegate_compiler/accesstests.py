"""The inventory's own access tests: each packet's verdict against what is expected of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from tidegate_compiler.judge import Court, Judgement, judge, packet
from tidegate_compiler.model import AccessTest, Inventory
from tidegate_compiler.times import format_instant


@dataclass(frozen=True)
class Result:
    """One test for one client."""

    test: AccessTest
    client: str
    at: int
    judgement: Judgement

    @property
    def passed(self) -> bool:
        """Tell whether the verdict is the expected one."""
        return self.judgement.allow == (self.test.expect == "allow")

    @property
    def title(self) -> str:
        """Return the packet in words."""
        return f"{self.client} -> {self.test.address} {self.test.port} at {format_instant(self.at)}"

    @property
    def outcome(self) -> str:
        """Return the verdict in words."""
        verdict = "allow" if self.judgement.allow else "deny"
        by = f" by {self.judgement.policy}" if self.judgement.policy else ""
        return f"expected {self.test.expect}, got {verdict} ({self.judgement.reason}{by})"


@dataclass(frozen=True)
class Report:
    """All results in order, and the policies that decided none of them."""

    results: tuple[Result, ...]
    untested: tuple[str, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """Return the results that are not as expected."""
        return tuple(result for result in self.results if not result.passed)


def run(inventory: Inventory, over: Court, now: int) -> Report:
    """Run every test; those without `at` are asked about `now`, Unix seconds."""
    results = tuple(
        Result(test, client, at, judge(over, packet(client, test.address, test.port, at)))
        for test in inventory.tests
        for at in (now if test.at is None else test.at,)
        for client in _clients(test, inventory)
    )
    touched = {result.judgement.policy for result in results}
    return Report(results, tuple(name for name in inventory.policies if name not in touched))


def _clients(test: AccessTest, inventory: Inventory) -> Iterator[str]:
    if test.source.value.kind == "group":
        yield from sorted(member.value for member in inventory.groups[test.source.value.name].members)
    else:
        yield test.source.value.name


def junit(report: Report) -> bytes:
    """Return the report as JUnit XML, as CI servers read it."""
    suite = ElementTree.Element(
        "testsuite",
        name="tidegate access tests",
        tests=str(len(report.results)),
        failures=str(len(report.failures)),
        errors="0",
        skipped="0",
    )
    for result in report.results:
        file = result.test.where.file
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=_xml(file),
            name=result.title,
            file=_xml(file),
            line=str(result.test.where.line),
        )
        if not result.passed:
            ElementTree.SubElement(case, "failure", message=result.outcome).text = _xml(
                str(result.test.where)
            )
    ElementTree.indent(suite)
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _xml(path: str) -> str:
    """Return a file name without what XML 1.0 cannot hold."""
    return "".join(char if char.isprintable() else "?" for char in path)
