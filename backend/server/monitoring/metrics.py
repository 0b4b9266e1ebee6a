# SPDX-License-Identifier: GPL-3.0-or-later
"""MetricsSnapshot for Prometheus: the server's loop publishes, and the exporter's thread reads what was published last.

No label names a user, a job or a prompt: their number has no bound, and whoever may read figures need not know them.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate

from dreamwright.shared import __version__

from ...errors import ConfigError
from .counters import Histogram
from .status_reporter import MetricsSnapshot

try:
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
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
    """An HTTP port for Prometheus, with a thread of its own. Raises ConfigError for an address that cannot be used."""

    def __init__(self, address: str) -> None:
        host, port = read_address(address)
        if not is_loopback(host):
            log.warning(
                "figures are open to other machines, without encryption and without keys", extra={"address": address}
            )
        registry = CollectorRegistry()
        self._shelf = MetricsCollector()
        registry.register(self._shelf)
        ProcessCollector(registry=registry)  # memory, open files and processor time of the server's own process
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"figures cannot be given at {address}: {error.strerror or error}; stop what uses it, or choose another with --metrics"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/metrics"

    def publish(self, figures: MetricsSnapshot) -> None:
        """From now on these figures are given."""
        self._shelf.figures = figures  # one reference, replaced whole: the other thread sees the old or the new

    def close(self) -> None:
        """Let go of the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


def read_address(address: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT. Raises ConfigError."""
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        raise ConfigError(
            f"the address for figures is {address!r}; allowed is HOST:PORT, for example 127.0.0.1:9464 (port 0 takes a free one)"
        )
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether nothing outside of this machine reaches a host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class MetricsCollector:
    """A Prometheus collector of the figures that were published last; empty before the first."""

    def __init__(self) -> None:
        self.figures: MetricsSnapshot | None = None

    def collect(self) -> Iterator[Metric]:
        """All metrics, in base units and by the naming rules of Prometheus."""
        yield InfoMetricFamily("dreamwright_build", "The server's version", {"version": __version__})
        figures = self.figures
        if figures is None:
            return
        for name, words, value in (
            ("uptime_seconds", "Since the server's start", figures.uptime_s),
            ("connections", "Connections that were heard of late", figures.connections),
            ("queue_jobs", "Jobs that wait for a device", figures.jobs["queued"]),
            ("queue_oldest_wait_seconds", "Since the longest waiting job was submitted", figures.oldest_wait_s),
            ("mesh_bytes", "Meshes in the state folder", figures.mesh_bytes),
            ("checkpoint_bytes", "Checkpoints in the state folder", figures.checkpoint_bytes),
            ("disk_free_bytes", "Room on the state folder's disk", figures.disk_free_bytes),
        ):
            yield GaugeMetricFamily(f"dreamwright_{name}", words, value)
        yield _gauges("jobs", "Jobs that are kept, by state", "state", figures.jobs)
        yield _gauges("device_busy", "1: a job runs on it", "device", figures.busy)
        yield _gauges(
            "device_steps_per_second", "Pace of the running job; 0 where none runs", "device", figures.steps_per_s
        )
        yield _gauges(
            "device_silent_seconds", "Since the running job's worker last told of a step", "device", figures.silent_s
        )
        yield CounterMetricFamily(
            "dreamwright_worker_deaths", "Worker processes that ended on their own", figures.worker_deaths
        )
        yield CounterMetricFamily("dreamwright_preview_bytes", "Previews sent", figures.preview_bytes)
        yield CounterMetricFamily(
            "dreamwright_lost_events", "Events that a slow client did not get", figures.lost_events
        )
        yield _counters("jobs_ended", "Jobs that ended, by outcome", "outcome", figures.ended)
        yield _counters("requests", "Requests, by type; none: what was no request", "type", figures.requests)
        yield _counters("refusals", "Requests that were refused, by code", "code", figures.refusals)
        yield _spreads("request_duration_seconds", "From a request to its reply", {}, figures.answers)
        yield _spreads("step_duration_seconds", "One step of a job", figures.steps)


def _gauges(name: str, words: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"dreamwright_{name}", words, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counters(name: str, words: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"dreamwright_{name}", words, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _spreads(name: str, words: str, by_device: Mapping[str, Histogram], whole: Histogram | None = None) -> Metric:
    family = HistogramMetricFamily(f"dreamwright_{name}", words, labels=["device"] if whole is None else [])
    for labels, spread in (
        [([], whole)] if whole is not None else [([device], spread) for device, spread in by_device.items()]
    ):
        bounds = [*(str(bound) for bound in spread.bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(spread.counts))), spread.total)
    return family
