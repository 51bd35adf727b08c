"""What happens to a running gateway arrives at a log endpoint: refusals and drift, once each, while logging is on."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from netns.lab import DEVICE, PLACES, Lab, LogEndpoint, ping, until
from tidegate_schema import validation

pytestmark = pytest.mark.netns


def told(endpoint: LogEndpoint) -> list[dict[str, Any]]:
    """Return the host events that have arrived."""
    return [one for one in endpoint.events() if one["event.action"] == "host"]


def named(endpoint: LogEndpoint) -> list[tuple[str, str]]:
    return [(one["tidegate.host.event"], one.get("tidegate.host.name", "")) for one in told(endpoint)]


def offer(lab: Lab, serial: int, **other: Any) -> None:
    """Publish what the gateway has already, under another serial or in another way."""
    files = {"peers.json": lab.everyone(), "policy.json": lab.policy_file(alice=[], bob=[])}
    lab.signer.publish(lab.bundles, "gateway", "fra1", files, serial, **other)


def refused(lab: Lab, name: str) -> None:
    """Wait until what is offered is refused by this name."""
    until(
        f"it is refused as {name}",
        lambda: ((lab.gateway.status() or {}).get("refusal") or {}).get("name") == name,
    )


def test_a_refusal_arrives_at_the_log_endpoint_once_and_over_a_restart(lab: Lab) -> None:
    endpoint = LogEndpoint(lab.service, lab.directory)
    lab.publish(serial=5)
    lab.start(f"log_endpoint={endpoint.url}", "flush_interval=0.1", "logging_enabled=on", serial=5)
    until("the release is told of", lambda: ("release-applied", "") in named(endpoint))
    (applied,) = [one for one in told(endpoint) if one["tidegate.host.event"] == "release-applied"]
    release = (lab.gateway.status() or {})["release"]
    assert (applied["tidegate.release.serial"], applied["tidegate.release.digest"]) == (5, release["digest"])

    offer(lab, 4)
    until("the refusal arrives", lambda: ("release-refused", "replayed") in named(endpoint))
    shown = lab.gateway.tidegate("events", "--once", *PLACES)
    assert "host        release-refused name=replayed" in shown
    lab.gateway.host.sh("ip", "link", "set", DEVICE, "down")
    until("the drift arrives", lambda: ("drift-repaired", "link") in named(endpoint))

    lab.gateway.stop(signal.SIGKILL)
    lab.gateway.start()
    offer(lab, 6, fleet="elsewhere")
    until("the next one arrives", lambda: ("release-refused", "other-fleet") in named(endpoint))
    journal = [json.loads(line) for line in lab.gateway.tidegate("history", "--json", *PLACES).splitlines()]
    until("all of the journal has arrived", lambda: len(told(endpoint)) >= len(journal))
    found = told(endpoint)
    assert [one["tidegate.host.number"] for one in found] == [one["number"] for one in journal]
    assert [one["@timestamp"] for one in found] == [one["time"] for one in journal]
    assert len({(one["tidegate.epoch"], one["event.sequence"]) for one in found}) == len(found)
    assert [validation.errors("event", one) for one in found] == [[]] * len(found)
    assert ping(lab.alice.host)


def test_while_logging_is_off_a_refusal_stays_on_the_host(lab: Lab) -> None:
    endpoint = LogEndpoint(lab.service, lab.directory)
    lab.publish(serial=5)
    lab.start(f"log_endpoint={endpoint.url}", "flush_interval=0.1", serial=5)
    offer(lab, 4)
    refused(lab, "replayed")
    lab.gateway.set("logging_enabled=on")
    offer(lab, 6, fleet="elsewhere")
    until("what comes later arrives", lambda: ("release-refused", "other-fleet") in named(endpoint))
    assert ("release-refused", "replayed") not in named(endpoint)
    assert "replayed" in lab.gateway.tidegate("history", *PLACES)
