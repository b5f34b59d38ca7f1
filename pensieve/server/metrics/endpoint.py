"""`GET /metrics`. No key needed: it has numbers, and labels from fixed lists."""

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics_core import Metric
from starlette.requests import Request
from starlette.responses import Response

import pensieve
from pensieve.engine.generation import Engine
from pensieve.server.metrics.engine_collector import EngineCollector
from pensieve.server.metrics.request_metrics import RequestMetrics
from pensieve.server.middleware.request_context import request_context_of


class MetricsEndpoint:
    """Owns the registry of one application."""

    def __init__(self, engine: Engine, device: str) -> None:
        self._registry = CollectorRegistry()
        self.requests = RequestMetrics(self._registry)
        self._registry.register(EngineCollector(engine))
        info = Gauge("pensieve_build_info", "1.", ("version", "device"), registry=self._registry)
        info.labels(pensieve.__version__, device).set(1)

    async def metrics(self, request: Request) -> Response:
        request_context_of(request.scope).is_poll = True
        text = generate_latest(_WithoutCreated(self._registry))
        return Response(text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})


class _WithoutCreated:
    """The metrics of a registry without the series that say when each was first counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric
