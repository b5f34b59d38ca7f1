"""The page and the dashboard of metrics name those of the application, and all of them."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client.metrics_core import Metric

from pensieve.engine.generation import PRIORITIES, EngineHealth, EngineStats
from tests.packaging.project import read
from tests.server.metrics.scraping import families
from tests.server.serving import CALL, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio

PAGE, DASHBOARD = "docs/metrics.md", "docs/grafana-dashboard.json"
_NAME = re.compile(r"\bpensieve_\w+")
_ROW = re.compile(r"^\| `(pensieve_\w+)` \| (\w+) \| (.*?) ?\| (\S.*) \|$", re.MULTILINE)
# What PromQL adds to a name: `{label="value"}`, `by (label)`.
_LABEL = re.compile(r'(\w+)(?:=~?)"|by \(([^)]*)\)|\{\{(\w+)\}\}')


@pytest.fixture
async def metrics() -> list[Metric]:
    """All metrics, with samples of all labels."""
    health = EngineHealth("ready", stats=EngineStats(8, "why", 2, 3, 5))
    health = replace(health, replicas={"worker-1": health, "worker-2": health})
    async with in_memory(app_of(ScriptedEngine([says("ok")], health=health))) as client:
        await client.post("/v1/messages", json=CALL)
        return await families(client)


def exposed_name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def labels_of(metric: Metric) -> set[str]:
    return set().union(*(sample.labels for sample in metric.samples)) - {"le"}


async def test_page_has_a_row_for_every_metric_with_its_type_and_labels(
    metrics: list[Metric],
) -> None:
    rows = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _ in _ROW.findall(read(PAGE))
    }
    assert rows == {exposed_name(each): (each.type, labels_of(each)) for each in metrics}


async def test_every_metric_on_the_page_and_the_dashboard_exists(metrics: list[Metric]) -> None:
    samples = {sample.name for metric in metrics for sample in metric.samples}
    known = samples | {exposed_name(metric) for metric in metrics}
    assert set(_NAME.findall(read(PAGE))) <= known
    assert {name for query in queries() for name in _NAME.findall(query)} <= samples


async def test_dashboard_shows_every_metric_by_labels_that_it_has(metrics: list[Metric]) -> None:
    shown = " ".join(queries())
    for metric in metrics:
        assert re.search(rf"\b{exposed_name(metric)}(?:_bucket)?\b", shown), metric.name
    labels = set().union(*map(labels_of, metrics)) | {"le"}
    assert labels_in(shown) <= labels
    assert labels_in(" ".join(_ROW.sub("", read(PAGE)).splitlines())) <= labels


def test_dashboard_has_rows_in_the_order_of_the_page_and_panels_of_their_own() -> None:
    panels = json.loads(read(DASHBOARD))["panels"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == ["Requests", "Speed", "Cache", "Memory", "Worker"]
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_page_names_every_priority() -> None:
    assert all(f"`{priority}`" in read(PAGE) for priority in PRIORITIES)


def queries() -> Iterator[str]:
    for panel in json.loads(read(DASHBOARD))["panels"]:
        for target in panel.get("targets", ()):
            yield f"{target['expr']} {target['legendFormat']}"


def labels_in(text: str) -> set[str]:
    """Return the labels that queries and legends name."""
    return {
        label.strip()
        for groups in _LABEL.findall(text)
        for group in groups
        for label in group.split(",")
        if label.strip()
    }
