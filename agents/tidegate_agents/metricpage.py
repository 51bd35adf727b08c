"""A page of metrics in Prometheus' text format, and the metrics that both kinds of agent have. Pure.

Whatever is not known at the moment has no sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tidegate_schema import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the page: the text format that every version of Prometheus takes."""


class Family(NamedTuple):
    """One metric: counter or gauge, the unit of its value, its labels, and what it says."""

    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str


Sample: TypeAlias = tuple[str, tuple[str, ...], float]
"""The name of its family, the values of its labels, and its value."""

COMMON: dict[str, Family] = {
    "tidegate_build_info": Family("gauge", "1", ("version",), "The version that runs."),
    "tidegate_start_time_seconds": Family(
        "gauge", "seconds", (), "When the agent started, Unix time; its own counts begin there."
    ),
    "tidegate_release_serial": Family(
        "gauge", "number", (), "Serial of the release in force; none before the first."
    ),
    "tidegate_release_not_after_seconds": Family(
        "gauge", "seconds", (), "The end of the release in force, Unix time."
    ),
    "tidegate_release_stale": Family("gauge", "0 or 1", (), "1 while the release in force is past its end."),
    "tidegate_release_on_trial": Family(
        "gauge", "0 or 1", (), "1 while the release in force is not confirmed yet."
    ),
    "tidegate_release_rolled_back": Family(
        "gauge", "0 or 1", (), "1 while an older release is in force, since a newer one has failed."
    ),
    "tidegate_release_refused": Family(
        "gauge", "0 or 1", (), "1 while the release that is offered is refused."
    ),
    "tidegate_release_refusals_total": Family(
        "counter", "refusals", ("name",), "Releases that were refused, by the name of the refusal."
    ),
    "tidegate_release_rollbacks_total": Family(
        "counter", "rollbacks", (), "Releases that failed and were taken back."
    ),
    "tidegate_settings_refused": Family("gauge", "0 or 1", (), "1 while the settings file is invalid."),
    "tidegate_trouble": Family(
        "gauge", "0 or 1", (), "1 while something cannot be applied and is tried again."
    ),
}
"""The metrics that every agent has."""


def of_agent(status: Mapping[str, Any], started: float) -> Iterator[Sample]:
    """Yield the samples of COMMON: from a status, and the start in Unix seconds."""
    yield "tidegate_build_info", (__version__,), 1
    yield "tidegate_start_time_seconds", (), started
    if status["release"] is not None:
        yield "tidegate_release_serial", (), status["release"]["serial"]
        yield "tidegate_release_not_after_seconds", (), status["release"]["not_after"]
    yield "tidegate_release_stale", (), status["stale"]
    yield "tidegate_release_on_trial", (), status["trial"] is not None
    yield "tidegate_release_rolled_back", (), status["rolled_back"] is not None
    yield "tidegate_release_refused", (), status["refusal"] is not None
    for name, count in status["happened"].get("release-refused", {}).items():
        yield "tidegate_release_refusals_total", (name,), count
    yield "tidegate_release_rollbacks_total", (), sum(status["happened"].get("rolled-back", {}).values())
    yield "tidegate_settings_refused", (), status["settings_problem"] is not None
    yield "tidegate_trouble", (), status["trouble"] is not None


def page(families: Mapping[str, Family], samples: Iterable[Sample]) -> bytes:
    """Return the page, each family in the order of the catalogue."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(families, samples))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, families: Mapping[str, Family], samples: Iterable[Sample]) -> None:
        self._families, self._samples = families, samples

    def collect(self) -> Iterator[Metric]:
        found: dict[str, list[tuple[tuple[str, ...], float]]] = {}
        for name, labels, value in self._samples:
            found.setdefault(name, []).append((labels, value))
        for name, family in self._families.items():
            if name in found:
                kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                metric = kind(name, family.meaning, labels=family.labels)
                for labels, value in found[name]:
                    metric.add_metric(labels, value)
                yield metric
