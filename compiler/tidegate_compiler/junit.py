"""Access tests as JUnit XML, the form that CI servers show: one case per test and client, with its file and line.

The format has no standard; these are the attributes of https://github.com/testmoapp/junitxml that GitLab, Jenkins and
the common GitHub actions read.
"""

from __future__ import annotations

from xml.etree import ElementTree

from tidegate_compiler.accesstests import Report
from tidegate_compiler.diagnostics import Where

COVERAGE = "policy coverage"


def junit(report: Report, require_coverage: bool = False) -> bytes:
    """Return the report; where coverage is required, a policy that no test touches is a failed case, too."""
    untested = report.untested if require_coverage else ()
    suite = ElementTree.Element(
        "testsuite",
        name="tidegate access tests",
        tests=str(len(report.results) + len(untested)),
        failures=str(len(report.failures) + len(untested)),
        errors="0",
        skipped="0",
    )
    for result in report.results:
        where = result.test.where
        _case(suite, where.file, result.title, where, None if result.passed else result.outcome)
    for policy in untested:
        _case(suite, COVERAGE, policy.name, policy.where, f"no test touches the policy {policy.name}")
    ElementTree.indent(suite)
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _case(suite: ElementTree.Element, of: str, name: str, where: Where, failure: str | None) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=_xml(of), name=name, file=_xml(where.file), line=str(where.line)
    )
    if failure is not None:
        ElementTree.SubElement(case, "failure", message=failure).text = _xml(str(where))


def _xml(path: str) -> str:
    """Return a file name without what XML 1.0 cannot hold."""
    return "".join(char if char.isprintable() else "?" for char in path)
