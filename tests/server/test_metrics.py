# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics for Prometheus agree with the jobs that ran, and name no user, no job and no prompt."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.monitoring.counters import Histogram
from dreamwright.backend.server.monitoring.metrics import Exporter, MetricsCollector, is_loopback, read_address
from dreamwright.backend.server.workers.local_runner import WorkerExited
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport
from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import CancelJob, GetStatus, JobReply, ListJobs, PauseJob
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.scripted_worker_server import submit_message
from tests.testing.server_process import ServerProcess, server_process

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Samples:
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def scraped(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def shown(in_memory_server: InMemoryServer) -> str:
    registry, collector = CollectorRegistry(), MetricsCollector()
    registry.register(collector)
    collector.snapshot = in_memory_server.service.metrics()
    return generate_latest(registry).decode()


@given(st.lists(st.floats(0, 100), max_size=40), st.sets(st.floats(0.01, 99), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_histogram_counts_by_upper_bound(values: list[float], bounds: set[float]) -> None:
    histogram = Histogram(tuple(sorted(bounds)))
    for value in values:
        histogram.add(value)
    limits = [*sorted(bounds), float("inf")]
    expected = Counter(min(limit for limit in limits if value <= limit) for value in values)
    assert histogram.counts == [expected[limit] for limit in limits]
    assert histogram.total == pytest.approx(sum(values))


def test_metrics_match_the_jobs(in_memory_server: InMemoryServer) -> None:
    done, dying, waiting = in_memory_server.submit(), in_memory_server.submit(), in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.report(ProgressReport, done, 10, 100, 4.0, 36.0)
    in_memory_server.report(ProgressReport, done, 14, 100, 6.0, 34.0)  # 4 steps in 2 s
    in_memory_server.now += 3
    in_memory_server.wall += 3
    figures = read(shown(in_memory_server))
    assert figures["dreamwright_device_steps_per_second", (("device", "cpu"),)] == 2.0
    assert figures["dreamwright_device_silent_seconds", (("device", "cpu"),)] == 3.0
    assert figures["dreamwright_queue_jobs", ()] == 2 and figures["dreamwright_queue_oldest_wait_seconds", ()] == 3.0
    assert figures["dreamwright_step_duration_seconds_bucket", (("device", "cpu"), ("le", "0.5"))] == 4
    assert figures["dreamwright_step_duration_seconds_bucket", (("device", "cpu"), ("le", "0.25"))] == 0
    assert figures["dreamwright_step_duration_seconds_sum", (("device", "cpu"),)] == 2.0
    in_memory_server.finish(done, b"m" * 77)
    in_memory_server.runner.queued.append(WorkerExited(dying, -9))
    in_memory_server.step()
    in_memory_server.request(CancelJob(waiting))
    in_memory_server.now += 11
    figures = read(shown(in_memory_server))
    assert figures["dreamwright_worker_deaths_total", ()] == 1
    outcomes = {
        labels[0][1]: value for (name, labels), value in figures.items() if name == "dreamwright_jobs_ended_total"
    }
    assert outcomes == {"succeeded": 1, "cancelled": 1, "failed": 0}
    states = {labels[0][1]: value for (name, labels), value in figures.items() if name == "dreamwright_jobs"}
    assert states == {
        "queued": 0,
        "running": 1,
        "paused": 0,
        "cancelling": 0,
        "succeeded": 1,
        "failed": 0,
        "cancelled": 1,
    }
    assert figures["dreamwright_mesh_bytes", ()] == 77
    assert figures["dreamwright_device_steps_per_second", (("device", "cpu"),)] == 0.0, (
        "the next attempt has not reported yet"
    )


def test_restart_from_another_seed_counts_no_step_backwards(in_memory_server: InMemoryServer) -> None:
    job = in_memory_server.submit()
    in_memory_server.step()
    for step, elapsed in ((50, 10.0), (2, 0.4), (4, 0.8)):
        in_memory_server.report(ProgressReport, job, step, 100, elapsed, 1.0)
    assert read(shown(in_memory_server))["dreamwright_step_duration_seconds_count", (("device", "cpu"),)] == 2


def test_no_label_names_a_user_job_or_prompt(in_memory_server: InMemoryServer) -> None:
    job = in_memory_server.submit("ada", prompt="a blue chair")
    in_memory_server.step()
    in_memory_server.report(ProgressReport, job, 1, 100, 1.0, 1.0)
    in_memory_server.request(PauseJob(job), "ada")
    written = shown(in_memory_server)
    assert job not in written and "ada" not in written and "chair" not in written
    allowed = {"device", "state", "outcome", "type", "code", "le", "version"}
    assert {label for (_, labels) in read(written) for label, _ in labels} <= allowed


def test_metric_names_follow_prometheus_conventions(in_memory_server: InMemoryServer) -> None:
    job = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.report(ProgressReport, job, 1, 100, 1.0, 1.0)
    for family in text_string_to_metric_families(shown(in_memory_server)):
        assert re.fullmatch(r"dreamwright_[a-z_]+", family.name) and family.documentation, family.name
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
        assert not re.search(r"_(ms|millis|minutes|kb|mb|count)$", family.name)


@pytest.mark.parametrize("address", ["9464", "localhost", ":9464", "127.0.0.1:65536", "127.0.0.1:x"])
def test_invalid_metrics_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        read_address(address)


def test_metrics_beyond_loopback_warn(caplog: pytest.LogCaptureFixture) -> None:
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("gpu.example.org")
    for address, warned in (("127.0.0.1:0", False), ("0.0.0.0:0", True)):
        caplog.clear()
        Exporter(address).close()
        assert ("without encryption" in caplog.text) is warned


def test_metrics_port_in_use_is_reported() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as occupied,
        pytest.raises(ConfigError, match="choose another with --metrics"),
    ):
        Exporter(f"127.0.0.1:{occupied.getsockname()[1]}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(
        tmp_path_factory.mktemp("metrics"),
        "--metrics",
        "127.0.0.1:0",
        "--jobs-per-user",
        "3",
        module="tests.testing.fast_worker_server",
    ) as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_scrape_of_a_real_server_matches_its_jobs(server: ServerProcess, tmp_path: Path) -> None:
    with server.connected_client() as client:
        jobs = [server.request(client, submit_message(f"t{number}")) for number in range(3)]
        assert all(isinstance(reply, JobReply) for reply in jobs)
        for _ in range(2):
            assert isinstance(server.request(client, submit_message("bad", preset="none")), RequestError)
        assert isinstance(server.request(client, CancelJob("f" * 16)), RequestError)
        server.wait_until(
            lambda: all(job.state == "succeeded" for job in server.request(client, ListJobs()).jobs), client
        )
        status = server.request(client, GetStatus())
        figures = server.wait_until(
            lambda: (
                (found := read(scraped(server.metrics))).get(("dreamwright_requests_total", (("type", "GetStatus"),)))
                and found
            ),
            client,
        )
    assert figures["dreamwright_jobs_ended_total", (("outcome", "succeeded"),)] == 3
    assert figures["dreamwright_requests_total", (("type", "SubmitJob"),)] == 5
    assert figures["dreamwright_requests_total", (("type", "CancelJob"),)] == 1
    assert figures["dreamwright_refusals_total", (("code", "bad-input"),)] == 2
    assert figures["dreamwright_refusals_total", (("code", "no-such-job"),)] == 1
    assert figures["dreamwright_request_duration_seconds_count", ()] == sum(
        v for (name, _), v in figures.items() if name == "dreamwright_requests_total"
    )
    assert figures["dreamwright_connections", ()] == status.connections == 1
    meshes = sum(path.stat().st_size for path in (server.output.parent / "state").glob("jobs/*/mesh.dwm"))
    server.wait_until(lambda: read(scraped(server.metrics))["dreamwright_mesh_bytes", ()] == meshes > 0)
    # Any Python process has 1 MB and more than three standard streams open.
    assert figures["process_resident_memory_bytes", ()] > 1e6 and figures["process_open_fds", ()] > 3


def test_repeated_end_is_counted_once(in_memory_server: InMemoryServer) -> None:
    job = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.finish(job)
    in_memory_server.report(JobFinished, job, "succeeded", "", False)
    assert read(shown(in_memory_server))["dreamwright_jobs_ended_total", (("outcome", "succeeded"),)] == 1
