"""Failures are counted by address and over all; whoever fails elsewhere locks nobody out."""

from __future__ import annotations

import pytest

from tidegate_control.access import attempts as module
from tidegate_control.access.attempts import OVER_ALL, PER_ADDRESS, SECONDS, Attempts, place
from unit.control.door.doorkit import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def attempts(clock: Clock) -> Attempts:
    return Attempts(clock)


def fail(attempts: Attempts, address: str, times: int, first: int = 0) -> None:
    for n in range(first, first + times):
        attempts.failed(address, f"guess {n}")


def test_an_address_with_too_many_failures_waits_until_they_are_old(attempts: Attempts, clock: Clock) -> None:
    fail(attempts, "192.0.2.1", PER_ADDRESS - 1)
    assert attempts.wait("192.0.2.1") == 0
    clock.now += 10
    fail(attempts, "192.0.2.1", 1, first=50)
    assert attempts.wait("192.0.2.1") == SECONDS - 10
    assert attempts.wait("192.0.2.2") == 0
    clock.now += SECONDS - 10
    assert attempts.wait("192.0.2.1") == 0


def test_the_same_wrong_token_again_is_no_guess(attempts: Attempts) -> None:
    for _ in range(5 * PER_ADDRESS):
        attempts.failed("192.0.2.1", "expired")
    assert attempts.wait("192.0.2.1") == 0
    assert len(attempts._over_all) == 1


def test_one_ipv6_host_has_one_place(attempts: Attempts) -> None:
    for n in range(PER_ADDRESS):
        attempts.failed(f"2001:db8::{n:x}", f"guess {n}")
    assert attempts.wait("2001:db8::ffff:1") > 0
    assert attempts.wait("2001:db8:0:1::1") == 0


def test_too_many_over_all_hold_up_those_who_failed_and_nobody_else(attempts: Attempts, clock: Clock) -> None:
    for n in range(OVER_ALL):
        attempts.failed(f"198.51.{n // 200}.{n % 200}", "a guess")
    assert attempts.wait("198.51.0.7") > 0
    assert attempts.wait("192.0.2.1") == 0
    clock.now += SECONDS
    assert attempts.wait("198.51.0.7") == 0


def test_the_table_is_bounded(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESSES", 20)
    for n in range(100):
        attempts.failed(f"192.0.2.{n}", "a guess")
    assert len(attempts._by_place) == 20
    assert len(attempts._over_all) <= OVER_ALL


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "?"),
        ("", "?"),
    ],
)
def test_whom_an_address_stands_for(address: str, expected: str) -> None:
    assert place(address) == expected
