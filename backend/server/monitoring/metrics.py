# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics for Prometheus: the server's thread publishes snapshots, and the exporter's thread serves the newest one.

No label names a user, a job or a prompt: their number is unbounded, and readers of metrics need not know them.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from dreamwright.shared import __version__

from ...errors import ConfigError
from .counters import Histogram
from .health import liveness_fault, readiness_faults
from .http_endpoint import HttpEndpoint
from .status_reporter import MetricsSnapshot

try:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
    )
except ModuleNotFoundError as error:
    raise ConfigError(
        "--metrics needs the package prometheus_client; install it with: pip install 'dreamwright[metrics]'"
    ) from error

log = logging.getLogger(__name__)


class Exporter:
    """An HTTP port in a thread of its own: /metrics for Prometheus, /healthz and /readyz for health checks.

    `clock` returns seconds and never goes back. Raises ConfigError for an address that cannot be used.
    """

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        host, port = read_address(address)
        if not is_loopback(host):
            log.warning(
                "metrics are readable from other machines, without encryption or keys", extra={"address": address}
            )
        self._clock = clock
        self._turned_at = clock()
        registry = CollectorRegistry()
        self._collector = MetricsCollector()
        registry.register(self._collector)
        ProcessCollector(registry=registry)  # memory, open files and processor time of the server's own process
        try:
            self._endpoint = HttpEndpoint(
                host,
                port,
                {
                    "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
                    "/healthz": lambda: _health_page((liveness_fault(self._silent_s()),)),
                    "/readyz": lambda: _health_page(readiness_faults(self._collector.snapshot, self._silent_s())),
                },
            )
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that no resolver takes
            raise ConfigError(
                f"cannot serve metrics on {address}: {getattr(error, 'strerror', None) or error}; stop what uses it, "
                "or choose another with --metrics"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._endpoint.port}/metrics"

    def publish(self, snapshot: MetricsSnapshot) -> None:
        """Serve this snapshot from now on."""
        self._turned_at = self._clock()
        self._collector.snapshot = snapshot  # assignment is atomic: the other thread sees the old or the new one

    def close(self) -> None:
        """Stop serving and release the port."""
        self._endpoint.close()

    def _silent_s(self) -> float:
        return self._clock() - self._turned_at


def _health_page(faults: Iterable[str]) -> tuple[int, str, bytes]:
    """One fault a line and status 503, or "ok"."""
    text = "".join(f"{fault}\n" for fault in faults if fault)
    return (503 if text else 200), "text/plain; charset=utf-8", (text or "ok\n").encode()


def read_address(address: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT. Raises ConfigError."""
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        raise ConfigError(
            f"the address for metrics is {address!r}; allowed is HOST:PORT, for example 127.0.0.1:9464 "
            "(port 0 takes a free one)"
        )
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether other machines cannot reach a host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class MetricsCollector:
    """A Prometheus collector of the newest snapshot; only the version before the first."""

    def __init__(self) -> None:
        self.snapshot: MetricsSnapshot | None = None

    def collect(self) -> Iterator[Metric]:
        """All metrics, in base units and by the naming rules of Prometheus."""
        yield InfoMetricFamily("dreamwright_build", "The server's version", {"version": __version__})
        snapshot = self.snapshot
        if snapshot is None:
            return
        for name, help_text, value in (
            ("uptime_seconds", "Since the server's start", snapshot.uptime_s),
            ("connections", "Connections with a recent request", snapshot.connections),
            ("queue_jobs", "Jobs that wait for a device", snapshot.jobs["queued"]),
            ("queue_oldest_wait_seconds", "Since the longest waiting job was submitted", snapshot.oldest_wait_s),
            ("mesh_bytes", "Meshes in the state folder", snapshot.mesh_bytes),
            ("checkpoint_bytes", "Checkpoints in the state folder", snapshot.checkpoint_bytes),
            ("disk_free_bytes", "Free space on the state folder's disk", snapshot.disk_free_bytes),
        ):
            yield GaugeMetricFamily(f"dreamwright_{name}", help_text, value)
        yield _gauges("jobs", "Jobs that are kept, by state", "state", snapshot.jobs)
        yield _gauges("device_busy", "1 if a job runs on it", "device", snapshot.busy)
        yield _gauges(
            "device_steps_per_second", "Pace of the running job; 0 without one", "device", snapshot.steps_per_s
        )
        yield _gauges(
            "device_silent_seconds", "Since the last step report of the running job", "device", snapshot.silent_s
        )
        yield CounterMetricFamily(
            "dreamwright_worker_deaths", "Worker processes that ended without a result", snapshot.worker_deaths
        )
        yield CounterMetricFamily("dreamwright_preview_bytes", "Previews sent", snapshot.preview_bytes)
        yield CounterMetricFamily(
            "dreamwright_lost_events", "Events that slow clients did not receive", snapshot.lost_events
        )
        yield _counters("jobs_ended", "Jobs that ended, by outcome", "outcome", snapshot.ended)
        yield _counters("requests", "Requests, by type; none: invalid messages", "type", snapshot.requests)
        yield _counters("refusals", "Requests that were refused, by code", "code", snapshot.refusals)
        yield _histograms("request_duration_seconds", "From a request to its reply", {}, snapshot.answers)
        yield _histograms("step_duration_seconds", "One step of a job", snapshot.steps)


def _gauges(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"dreamwright_{name}", help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counters(name: str, help_text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"dreamwright_{name}", help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histograms(
    name: str, help_text: str, by_device: Mapping[str, Histogram], single: Histogram | None = None
) -> Metric:
    family = HistogramMetricFamily(f"dreamwright_{name}", help_text, labels=["device"] if single is None else [])
    for labels, histogram in (
        [([], single)] if single is not None else [([device], histogram) for device, histogram in by_device.items()]
    ):
        bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.total)
    return family
