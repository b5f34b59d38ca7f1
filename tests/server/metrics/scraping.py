"""Reads `GET /metrics` as Prometheus does."""

from collections.abc import Iterable

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

# The value of each sample, by its name and the values of its labels in the order of their names.
Samples = dict[tuple[str, ...], float]


async def families(client: httpx.AsyncClient) -> list[Metric]:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return list(text_string_to_metric_families(response.text))


async def scrape(client: httpx.AsyncClient) -> Samples:
    return samples_of(await families(client))


def samples_of(metrics: Iterable[Metric]) -> Samples:
    return {
        (each.name, *(each.labels[label] for label in sorted(each.labels))): each.value
        for metric in metrics
        for each in metric.samples
    }


def moved(before: Samples, after: Samples) -> Samples:
    """Return by how much each sample grew, those that did not left out."""
    return {
        name: value - before.get(name, 0.0)
        for name, value in after.items()
        if value != before.get(name, 0.0)
    }
