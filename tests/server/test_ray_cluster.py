# SPDX-License-Identifier: GPL-3.0-or-later
"""The server and its runner on a real Ray cluster whose nodes declare GPUs that they do not have.

A node, the head, an actor, the bridge and the server are lost in turn.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip(
        "Ray's clusters of several nodes on one machine run on Linux only: no test of Ray clusters runs",
        allow_module_level=True,
    )

from dreamwright.backend.server.workers.fencing import raise_fence
from dreamwright.backend.server.workers.job_executor import MESH_FILE, JobExecutor
from dreamwright.backend.server.workers.runner import WorkerExited
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport, Report
from dreamwright.shared.mesh_file import decode_mesh
from dreamwright.shared.messages import CancelJob
from tests.testing.ray_cluster_server import ClusterRunner, ClusterServer, actor_processes
from tests.testing.ray_jobs import LONG, job_order
from tests.testing.ray_test_cluster import RayTestCluster

# Waits end with their condition. Their limits are reached only on failure: nodes and workers start within seconds, or
# within a minute on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def machines() -> Iterator[RayTestCluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the paths of its sockets may have 107 characters
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Cluster writes its address to the default folder, which does not exist unless another Ray made it,
        # perhaps another user's.
        environment.setenv("RAY_TMPDIR", str(folder))
        (folder / "ray").mkdir()
        environment.setenv("RAY_worker_niceness", "0")  # 15 by default, at which workers hardly run on a busy machine
        # How long nodes wait for a lost head, 60 by default.
        environment.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "15")
        environment.setenv("RAY_raylet_start_wait_time_s", "240")  # for the start of a node on a busy machine
        environment.setenv("OMP_NUM_THREADS", "1")
        machines = RayTestCluster(folder)
        yield machines
        machines.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def reference(model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The mesh of an uninterrupted run in this process."""
    folder = tmp_path_factory.mktemp("reference")
    raise_fence(folder, 1)
    reports: list[Report] = []
    JobExecutor(job_order(model, folder, "job", 1, "cpu"), "cpu", reports.append, lambda: "").run()
    assert reports[-1].how == "succeeded"
    return (folder / MESH_FILE).read_bytes()


@pytest.fixture
def cluster_server(tmp_path: Path, machines: RayTestCluster, model: Path) -> Iterator[ClusterServer]:
    machines.add("left", "right")
    server = ClusterServer(tmp_path / "state", machines, model)
    server.wait_until(lambda: set(server.runner.devices) == {"left/0", "right/0"})
    yield server
    server.close()


@pytest.fixture
def cluster_runner(tmp_path: Path, machines: RayTestCluster) -> Iterator[ClusterRunner]:
    machines.add("left", "right")
    runner = ClusterRunner(tmp_path, machines, grace_s=1.0)
    yield runner
    runner.close()


def test_job_of_a_lost_node_resumes_elsewhere_with_the_same_mesh(
    cluster_server: ClusterServer, machines: RayTestCluster, reference: bytes
) -> None:
    """And the third waits in the server's own queue, where it can be cancelled; the second is cancelled within a
    step.
    """
    submitted = time.monotonic()
    first, second, third = cluster_server.submit(), cluster_server.submit(LONG), cluster_server.submit(LONG)
    cluster_server.wait_until(lambda: cluster_server.job(first).step >= 3 and cluster_server.job(second).step >= 3)
    print(f"third step of both {time.monotonic() - submitted:.1f} s after their submission")
    assert {cluster_server.job(first).device, cluster_server.job(second).device} == {"left/0", "right/0"}
    assert cluster_server.job(third).state == "queued" and cluster_server.job(third).attempt == 0
    started = time.monotonic()
    machines.kill(cluster_server.job(first).device.partition("/")[0])
    cluster_server.wait_until(lambda: cluster_server.job(first).state == "queued")
    noticed = time.monotonic() - started
    assert "was lost; it continues from its checkpoint" in cluster_server.job(first).message
    assert (
        cluster_server.runner.devices == (cluster_server.job(second).device,)
        and cluster_server.job(third).state == "queued"
    )
    cluster_server.request(CancelJob(second))
    reached = cluster_server.job(second).step
    cluster_server.wait_until(lambda: cluster_server.job(second).state == "cancelled")
    steps = decode_mesh(cluster_server.mesh(second)).facts["steps"]
    print(f"node loss noticed after {noticed:.1f} s; cancelled at step {steps}, last reported {reached}")
    cluster_server.wait_until(lambda: cluster_server.job(first).state == "running")
    assert (
        cluster_server.job(first).attempt == 2
        and cluster_server.job(first).device == cluster_server.job(second).device
        and cluster_server.job(third).state == "queued"
    )
    cluster_server.request(CancelJob(third))
    assert cluster_server.job(third).state == "cancelled" and cluster_server.job(third).attempt == 0
    before = cluster_server.job(first).step
    free = time.monotonic()
    cluster_server.wait_until(
        lambda: cluster_server.job(first).step > before or cluster_server.job(first).state != "running"
    )
    print(f"node lost at step {before}; further than that {time.monotonic() - free:.1f} s after another GPU was free")
    cluster_server.wait_until(lambda: cluster_server.job(first).state == "succeeded")
    assert cluster_server.mesh(first) == reference


def test_job_outlives_server_and_bridge(cluster_server: ClusterServer) -> None:
    job = cluster_server.submit(LONG)
    cluster_server.client.subscribe(job)
    cluster_server.wait_until(lambda: bool(cluster_server.previews) and cluster_server.job(job).step > 3)
    (actor,) = actor_processes()
    cluster_server.runner._bridge.kill()
    before = cluster_server.job(job).step
    cluster_server.wait_until(lambda: cluster_server.runner._connected is False)
    cluster_server.wait_until(lambda: cluster_server.runner._connected and cluster_server.job(job).step > before)
    assert cluster_server.job(job).attempt == 1 and cluster_server.job(job).state == "running"
    cluster_server.close()
    before = cluster_server.job(job).step
    cluster_server.previews.clear()
    cluster_server.open()
    assert (
        cluster_server.job(job).state == "running"
        and cluster_server.job(job).attempt == 1
        and cluster_server.runner.idle_devices() != list(cluster_server.runner.devices)
    )
    cluster_server.client.subscribe(job)
    cluster_server.wait_until(lambda: cluster_server.job(job).step > before and bool(cluster_server.previews))
    assert actor_processes() == [actor] and cluster_server.job(job).attempt == 1
    steps = [frame.step for frame in cluster_server.previews]
    assert steps == sorted(steps) and len(steps) <= 3, "previews from before the subscription are not kept"
    cluster_server.request(CancelJob(job))
    cluster_server.wait_until(lambda: cluster_server.job(job).state == "cancelled")
    assert cluster_server.job(job).mesh_bytes and decode_mesh(cluster_server.mesh(job)).facts["steps"] < LONG
    cluster_server.wait_until(lambda: not actor_processes())
    assert set(cluster_server.runner.idle_devices()) == set(cluster_server.runner.devices)


def test_only_the_later_of_two_attempts_continues(cluster_runner: ClusterRunner, tmp_path: Path, model: Path) -> None:
    """As when a node that was only disconnected comes back after its job was assigned to another."""
    folder = tmp_path / "job"
    raise_fence(folder, 1)
    cluster_runner.runner.assign("left/0", job_order(model, folder, "job", 1, "left/0", LONG))
    cluster_runner.wait_until(lambda report: isinstance(report, ProgressReport) and report.step >= 3)
    raise_fence(folder, 2)
    cluster_runner.runner.assign("right/0", job_order(model, folder, "job", 2, "right/0", LONG))
    cluster_runner.received.clear()
    cluster_runner.wait_until(
        lambda report: isinstance(report, ProgressReport)
    )  # so the first attempt gave up the folder: its own end is ten minutes away
    assert not (folder / MESH_FILE).exists()
    cluster_runner.runner.stop("job", "cancel")
    ended = cluster_runner.wait_until(lambda report: isinstance(report, (JobFinished, WorkerExited)))
    assert (
        isinstance(ended, JobFinished)
        and (ended.how, ended.attempt, ended.meshed) == ("cancelled", 2, True)
        and (folder / MESH_FILE).exists()
    )
    assert {report.attempt for report in cluster_runner.received} == {2}
    end = time.monotonic() + 60
    while actor_processes():  # the first one too ends after its last report is read
        assert time.monotonic() < end and not list(cluster_runner.runner.reports())
        cluster_runner.runner.socket.poll(50)


def test_hung_actor_is_killed_and_a_killed_actor_reported(
    cluster_runner: ClusterRunner, tmp_path: Path, model: Path
) -> None:
    """Both wait for a folder that their node does not see yet, and read no messages meanwhile."""
    for name, device in (("stuck", "left/0"), ("dies", "right/0")):
        (tmp_path / name).mkdir()
        cluster_runner.runner.assign(device, job_order(model, tmp_path / name, name, 1, device))
    end = time.monotonic() + 120
    while len(actor_processes()) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    cluster_runner.runner.stop("stuck", "pause")
    ended = cluster_runner.wait_until(lambda report: isinstance(report, JobFinished))
    assert (
        ended == replace(ended, job="stuck", how="paused", attempt=1, meshed=False)
        and "continues from its last checkpoint" in ended.message
    )
    while len(left := actor_processes()) > 1:
        assert time.monotonic() < end + 120
        time.sleep(0.1)
    os.kill(left[0].pid, signal.SIGKILL)
    died = cluster_runner.wait_until(lambda report: isinstance(report, WorkerExited))
    assert (died.job, died.attempt) == ("dies", 1) and "its process on the cluster's node right ended" in died.reason
    assert set(cluster_runner.runner.idle_devices()) == {"left/0", "right/0"}


def test_unwanted_actors_are_killed_on_restart(
    cluster_runner: ClusterRunner, tmp_path: Path, machines: RayTestCluster, model: Path
) -> None:
    (tmp_path / "old").mkdir()
    cluster_runner.runner.assign("left/0", job_order(model, tmp_path / "old", "old", 1, "left/0"))
    end = time.monotonic() + 120
    while not actor_processes():
        assert time.monotonic() < end
        cluster_runner.runner.socket.poll(50)
    cluster_runner.runner.close()
    cluster_runner.open(machines, 1.0)
    assert set(cluster_runner.runner.idle_devices()) == {"left/0", "right/0"}
    while actor_processes():
        assert time.monotonic() < end + 120 and not list(cluster_runner.runner.reports())
        time.sleep(0.1)


def test_node_without_dreamwright_fails_the_job(
    cluster_runner: ClusterRunner, tmp_path: Path, machines: RayTestCluster, model: Path
) -> None:
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "dreamwright.py").write_text("")  # a module where the package should be
    machines.add("bare", env_vars={"PYTHONPATH": str(tmp_path / "poison")})
    end = time.monotonic() + 60
    while "bare/0" not in cluster_runner.runner.devices:
        assert time.monotonic() < end and not list(cluster_runner.runner.reports())
        time.sleep(0.1)
    cluster_runner.runner.assign("bare/0", job_order(model, tmp_path, "job", 1, "bare/0"))
    ended = cluster_runner.wait_until(lambda report: isinstance(report, (JobFinished, WorkerExited)))
    assert isinstance(ended, JobFinished) and ended.how == "failed"
    assert "node bare cannot load dreamwright" in ended.message and "install dreamwright[ray]" in ended.message
    machines.kill("bare")
    assert "bare/0" in cluster_runner.runner.idle_devices(), "the loss is not noticed yet"
    cluster_runner.runner.assign("bare/0", job_order(model, tmp_path, "job", 2, "bare/0"))
    died = cluster_runner.wait_until(lambda report: isinstance(report, WorkerExited))
    assert (died.job, died.attempt) == ("job", 2) and "bare" in died.reason
    assert set(cluster_runner.runner.devices) == set(cluster_runner.runner.idle_devices()) == {"left/0", "right/0"}


def test_runner_outlives_the_head_node(
    cluster_runner: ClusterRunner, tmp_path: Path, machines: RayTestCluster, model: Path
) -> None:
    """Ray ends every process that has lost its head for a while; only the bridge is one of those."""
    cluster_runner.runner.assign("left/0", job_order(model, tmp_path, "job", 1, "left/0"))
    end = time.monotonic() + 120
    while not actor_processes():
        assert time.monotonic() < end
        cluster_runner.runner.socket.poll(50)
    started = time.monotonic()
    machines.kill_head()
    died = cluster_runner.wait_until(lambda report: isinstance(report, WorkerExited))
    print(f"the loss of the head and of all nodes was reported {time.monotonic() - started:.1f} s after it")
    assert (died.job, died.attempt) == ("job", 1)
    cluster_runner.wait_until(lambda report: cluster_runner.runner.idle_devices() == ["left/0"])
