"""Has the tests of this folder run in one emulated machine, as one pytest there, and reports what it reports."""

from __future__ import annotations

import os

import pytest

from kernel.machine import why_not
from kernel.reports import HERE, INSIDE, Reports, Teller

REPORTS = pytest.StashKey[Reports]()


def pytest_configure(config: pytest.Config) -> None:
    if INSIDE in os.environ:
        config.pluginmanager.register(Teller())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put this folder's tests last: the machine works while those of the namespaces run, which mostly wait."""
    items.sort(key=lambda item: 2 if item.path.is_relative_to(HERE) else "netns" in item.keywords)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not item.path.is_relative_to(HERE) or INSIDE in os.environ or why_not():
        return None  # another folder's, in the machine already, or skipped with the reason
    reports = item.session.stash.setdefault(REPORTS, Reports())
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for fields in reports.of(item.nodeid):
        report = pytest.TestReport(
            item.nodeid,
            item.location,
            dict.fromkeys(item.keywords, 1),
            **{**fields, "longrepr": fields["longrepr"] or None},
        )
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    item.session._setupstate.teardown_exact(nextitem)
    return True


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = why_not()
    if INSIDE not in os.environ and reason is not None and item.path.is_relative_to(HERE):
        pytest.skip(f"needs a kernel in an emulated machine ({reason})")
