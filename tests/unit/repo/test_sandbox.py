"""Tests that cannot run on a machine are skipped by name, and the run's last lines say so."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import sandbox

TESTS = Path(__file__).parents[2]

pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return a suite of one test per marker under this repository's own conftest."""
    pytester.makeconftest((TESTS / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers =\n    netns: x\n    needs_tools: x\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.netns
        def test_a_lab(): pass

        @pytest.mark.netns
        def test_another_lab(): pass

        @pytest.mark.needs_tools("no-such-tool", "sh")
        def test_a_tool(): pass

        def test_plain(): pass
        """
    )
    pytester.syspathinsert(str(TESTS))
    return pytester


def test_what_cannot_run_is_named_in_the_last_lines(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sandbox, "why_not", lambda: "no sandbox as an ordinary user: /dev/net/tun: Permission denied"
    )
    lines = suite.runpytest().outlines
    why = "no sandbox as an ordinary user: /dev/net/tun: Permission denied"
    name = "test_what_cannot_run_is_named_in_the_last_lines.py"
    assert [line for line in lines if line][-6:-1] == [
        f"SKIPPED {name}::test_a_lab: needs network namespaces and WireGuard ({why})",
        f"SKIPPED {name}::test_another_lab: needs network namespaces and WireGuard ({why})",
        f"SKIPPED {name}::test_a_tool: needs no-such-tool (not installed)",
        f"2 tests need network namespaces and WireGuard and were skipped: {why}",
        "1 test needs no-such-tool and was skipped: not installed",
    ]


def test_what_can_run_runs(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "why_not", lambda: None)
    suite.runpytest().assert_outcomes(passed=3, skipped=1)


def test_missing_programs_are_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox._probe.cache_clear()
    try:
        assert sandbox.why_not() == "not installed: unshare, mount, ip, nft, wg"
        with pytest.raises(RuntimeError, match="not installed"):
            sandbox.sandbox_prefix()
    finally:
        sandbox._probe.cache_clear()


@pytest.mark.netns
def test_a_sandbox_has_a_network_of_its_own() -> None:
    inside = subprocess.run(
        [*sandbox.sandbox_prefix(), "readlink", "/proc/self/ns/net", "/proc/self/ns/mnt"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    outside = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("net", "mnt")]
    assert len(inside) == 2
    assert set(inside).isdisjoint(outside)


@pytest.mark.netns
def test_what_was_started_in_a_sandbox_ends_with_it() -> None:
    if "--pid" not in sandbox.sandbox_prefix():
        pytest.skip("needs a PID namespace (this machine allows none)")
    command = [*sandbox.sandbox_prefix(), "sh", "-c", "echo up; sleep 60 & sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"  # before that, it may not have asked to die with its parent
        child.kill()
        # The grandchildren hold the pipe: it ends when they are gone, too.
        child.communicate(timeout=30)
