# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboard, the alerts and the scrape configuration of docs/operator/examples name metrics that the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dreamwright.backend.server.monitoring.metrics import MetricsCollector
from dreamwright.backend.server.workers.worker_protocol import ProgressReport
from tests.testing.in_memory_server import InMemoryServer

EXAMPLES = Path(__file__).parents[2] / "docs" / "operator" / "examples"
FROM_ELSEWHERE = {"up", "process_resident_memory_bytes"}  # of Prometheus itself, and of its library for Python
FUNCTIONS = {"rate", "increase", "sum", "by", "avg_over_time", "histogram_quantile"}


@pytest.fixture
def samples(in_memory_server: InMemoryServer) -> dict[str, set[str]]:
    """The labels of every sample that a server with a job exports, by the sample's name."""
    job = in_memory_server.submit()
    in_memory_server.step()
    for step in (1, 5):  # the first report has no duration
        in_memory_server.report(ProgressReport, job, step, 100, float(step), 1.0)
    registry, collector = CollectorRegistry(), MetricsCollector()
    registry.register(collector)
    collector.snapshot = in_memory_server.service.metrics()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        if not family.samples:
            found[f"{family.name}_total" if family.type == "counter" else family.name] = {"type", "code"}
    return found


def names_in(expression: str) -> set[str]:
    without_labels = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\(le(, \w+)?\)", "", expression)
    return set(re.findall(r"[a-z_]+", without_labels)) - FUNCTIONS


def test_every_panel_shows_a_metric_that_there_is(samples: dict[str, set[str]]) -> None:
    dashboard = json.loads((EXAMPLES / "dreamwright_dashboard.json").read_text(encoding="utf-8"))
    targets = [(panel, target) for panel in dashboard["panels"] for target in panel["targets"]]
    shown = set()
    for panel, target in targets:
        names = names_in(target["expr"])
        assert names and names <= set(samples) | FROM_ELSEWHERE, (panel["title"], names - set(samples))
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert all(label in samples[name] for name in names), (panel["title"], label)
        shown |= names
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    histograms = {name for name in samples if name.endswith(("_count", "_sum"))}
    left = {name for name in samples if not name.endswith("_created")} - shown - histograms
    assert left == {"dreamwright_build_info"}, "a metric that no panel shows"


def test_panels_do_not_overlap() -> None:
    dashboard = json.loads((EXAMPLES / "dreamwright_dashboard.json").read_text(encoding="utf-8"))
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & covered and place["x"] + place["w"] <= 24, panel["title"]
        cells |= covered


def test_every_alert_watches_a_metric_that_there_is(samples: dict[str, set[str]]) -> None:
    alerts: Any = yaml.safe_load((EXAMPLES / "dreamwright_alerts.yml").read_text(encoding="utf-8"))
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert len(rules) >= 5
    for rule in rules:
        expression = re.sub(r"\b\d[\de.]*\b", "", rule["expr"])
        names = names_in(expression)
        assert names and names <= set(samples) | FROM_ELSEWHERE, rule["alert"]


def test_the_scrape_configuration_names_the_alerts() -> None:
    content = yaml.safe_load((EXAMPLES / "prometheus.yml").read_text(encoding="utf-8"))
    assert all((EXAMPLES / name).is_file() for name in content["rule_files"])
    assert content["scrape_configs"][0]["job_name"] == "dreamwright", "the alerts and the dashboard name this job"
