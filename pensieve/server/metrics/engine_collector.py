"""Metrics of the engine, read from its health at each scrape.

The health sums over all workers, so counters never go down. What only a loaded worker knows is left
out while there is none.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from pensieve.engine.generation import (
    Engine,
    EngineHealth,
    EngineState,
    EngineStats,
    RestartCause,
)


@dataclass(frozen=True, slots=True)
class _Gauge:
    name: str
    text: str
    read: Callable[[EngineStats], float]


_WORKER_GAUGES = (
    _Gauge("requests_queued", "Requests that wait for their turn.", lambda stats: stats.queued),
    _Gauge("requests_running", "Requests in prefill or decoding.", lambda stats: stats.running),
    _Gauge(
        "worker_memory_bytes",
        "Memory of the worker's process; where there is no macOS, without GPU memory.",
        lambda stats: stats.worker_bytes,
    ),
    _Gauge(
        "memory_limit_bytes",
        "Memory that pensieve may use.",
        lambda stats: stats.memory_limit_bytes,
    ),
    _Gauge("weights_bytes", "The model's weights in memory.", lambda stats: stats.weights_bytes),
    _Gauge(
        "kv_cache_limit_bytes",
        "Memory for KV caches and prefixes together.",
        lambda stats: stats.kv_budget_bytes,
    ),
    _Gauge(
        "kv_cache_used_bytes", "KV caches of running requests.", lambda stats: stats.kv_used_bytes
    ),
    _Gauge(
        "prefix_memory_bytes",
        "Cached prefixes in memory.",
        lambda stats: stats.prefix_memory_bytes,
    ),
    _Gauge("prefix_disk_bytes", "Cached prefixes on disk.", lambda stats: stats.prefix_disk_bytes),
    _Gauge(
        "prefix_disk_limit_bytes",
        "Size that cached prefixes may have on disk.",
        lambda stats: stats.prefix_disk_cap_bytes,
    ),
    _Gauge(
        "disk_written_today_bytes",
        "Written to disk in the last 24 hours.",
        lambda stats: stats.written_today_bytes,
    ),
    _Gauge(
        "disk_write_quota_bytes",
        "Bytes that may be written to disk in 24 hours.",
        lambda stats: stats.daily_write_budget_bytes,
    ),
    _Gauge(
        "disk_writing_paused",
        "1 while no prefix is written: the quota is spent or the disk is full.",
        lambda stats: stats.is_writing_paused,
    ),
)


class EngineCollector:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        health = self._engine.health
        yield _one_of("engine_state", "1 for the engine's state.", health.state)
        yield _gauge("requests_open", "Requests that the engine has accepted.", health.in_flight)
        for gauge in _WORKER_GAUGES:
            value = health.stats and gauge.read(health.stats)
            yield _gauge(gauge.name, gauge.text, value)
        yield from _counters(health)
        if health.replicas:
            yield from _of_replicas(health.replicas)


def _of_replicas(replicas: Mapping[str, EngineHealth]) -> Iterator[Metric]:
    yield _by_name(
        *("replica_up", "1 if the engine takes requests."),
        {name: each.is_well for name, each in replicas.items()},
    )
    yield _by_name(
        *("replica_requests_open", "Requests that the engine has accepted."),
        {name: each.in_flight for name, each in replicas.items()},
    )


def _by_name(name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"pensieve_{name}", text, labels=["replica"])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _counters(health: EngineHealth) -> Iterator[Metric]:
    totals = health.totals
    yield _by_label(
        *("worker_restarts", "Replaced workers, by what the last one did.", "cause"),
        {cause: health.restarts_by_cause.get(cause, 0) for cause in get_args(RestartCause)},
    )
    yield _counter("worker_sleeps", "Times that an idle model was unloaded.", health.sleeps)
    yield _counter("worker_wakes", "Times that it was loaded for a request.", health.wakes)
    yield _counter(
        "preemptions", "Times that a request was returned to the queue.", totals.preempted
    )
    yield _counter("grammar_compile_seconds", "Spent on compiling grammars.", totals.grammar_s)
    drafts = totals.drafts.by_source
    yield _by_label(
        *("draft_tokens", "Drafted tokens.", "source"),
        {source: counts.drafted for source, counts in drafts.items()},
    )
    yield _by_label(
        *("accepted_draft_tokens", "Drafted tokens that were right.", "source"),
        {source: counts.accepted for source, counts in drafts.items()},
    )


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"pensieve_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"pensieve_{name}", text, value)


def _by_label(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"pensieve_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _one_of(name: str, text: str, state: EngineState) -> Metric:
    family = GaugeMetricFamily(f"pensieve_{name}", text, labels=["state"])
    for each in get_args(EngineState):
        family.add_metric([each], each == state)
    return family
