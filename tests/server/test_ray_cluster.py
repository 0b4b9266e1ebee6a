# SPDX-License-Identifier: GPL-3.0-or-later
"""The real server on a real Ray cluster whose nodes only say that they have a GPU; a node, an actor, the envoy and the
server are lost.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

if sys.platform != "linux":
    pytest.skip(
        "Ray's clusters of several nodes on one machine run on Linux only: NOTHING of Ray is tested here",
        allow_module_level=True,
    )

from dreamwright.backend.server.app import Server
from dreamwright.backend.server.workers.fencing import raise_fence
from dreamwright.backend.server.workers.job_executor import MESH_FILE, JobExecutor
from dreamwright.backend.server.workers.ray_runner import RayRunner, own_namespace
from dreamwright.backend.server.workers.runner import WorkerExited
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport, Report
from dreamwright.shared.client import Client
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.mesh_file import decode_mesh
from dreamwright.shared.messages import CancelJob, JobChanged, JobList, JobSummary, PreviewFrame, SubmitJob
from tests.testing.ray_jobs import LONG, SETTINGS, STEPS, job_order
from tests.testing.ray_test_cluster import RayTestCluster
from tests.testing.tiny_model import save_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def machines() -> Iterator[RayTestCluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the paths of its sockets may have 107 characters
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Cluster notes its address in the default folder, which only another Ray has made there, and which may be
        # somebody's.
        environment.setenv("RAY_TMPDIR", str(folder))
        (folder / "ray").mkdir()
        environment.setenv(
            "RAY_worker_niceness", "0"
        )  # 15 by default: on a machine with other work they would hardly run
        environment.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "15")  # 60 by default, for a head that went away
        environment.setenv("RAY_raylet_start_wait_time_s", "240")  # a node's own start, on a machine with other work
        environment.setenv("OMP_NUM_THREADS", "1")
        machines = RayTestCluster(folder)
        yield machines
        machines.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The mesh of a run of this process that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    raise_fence(folder, 1)
    said: list[Report] = []
    JobExecutor(job_order(model, folder, "job", 1, "cpu"), "cpu", said.append, lambda: "").run()
    assert said[-1].how == "succeeded"
    return (folder / MESH_FILE).read_bytes()


class House:
    """The server on the cluster, and an artist's client, in one thread."""

    def __init__(self, state: Path, machines: RayTestCluster, model: Path) -> None:
        self.state, self._machines, self._model = state, machines, model
        self.jobs: dict[str, JobSummary] = {}
        self.previews: list[PreviewFrame] = []
        self.tickets = 0
        self.open()

    def open(self) -> None:
        def runner(context: zmq.Context) -> RayRunner:
            return RayRunner(context, self._machines.address, own_namespace(self.state), self.state / "logs", "cpu")

        self.server = Server("tcp://127.0.0.1:*", self.state, (), runner=runner)
        self.client = Client(self.server.address)
        self.client.connect()
        self.client.subscribe()
        self.wait_until(lambda: self.client.state is ConnectionState.ONLINE)

    @property
    def runner(self) -> Any:
        return self.server.runner

    def step(self) -> None:
        self.server.step(0.02)
        for event in self.client.tick():
            for job in (
                event.jobs if isinstance(event, JobList) else (event.job,) if isinstance(event, JobChanged) else ()
            ):
                self.jobs[job.job] = job
            if isinstance(event, PreviewFrame):
                self.previews.append(event)

    def wait_until(self, happened: Callable[[], bool], limit_s: float = 240.0) -> None:
        end = time.monotonic() + limit_s
        while not happened():
            if time.monotonic() > end:
                logs = "".join(path.read_text()[-2000:] for path in (self.state / "logs").glob("*"))
                raise TimeoutError(f"it did not happen; jobs: {list(self.jobs.values())}; logs: {logs}")
            self.step()

    def request(self, message: Any) -> Any:
        answers: list[Any] = []
        self.client.request(message, answers.append)
        self.wait_until(lambda: bool(answers))
        return answers[0]

    def submit(self, steps: int = STEPS) -> str:
        self.tickets += 1
        settings = SETTINGS | {"run.steps": str(steps)}
        return self.request(
            SubmitJob(f"t{self.tickets}", "a red mushroom", "", str(self._model), "draft", 0, settings)
        ).job.job

    def job(self, name: str) -> JobSummary:
        return self.server.store.records[name].summary

    def mesh(self, name: str) -> bytes:
        return (self.server.store.job_folder(name) / MESH_FILE).read_bytes()

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def house(tmp_path: Path, machines: RayTestCluster, model: Path) -> Iterator[House]:
    machines.add("left", "right")
    house = House(tmp_path / "state", machines, model)
    house.wait_until(lambda: set(house.runner.devices) == {"left/0", "right/0"})
    yield house
    house.close()


def actors() -> list[psutil.Process]:
    """The actors' processes; Ray names them by their class."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "ray::JobActor" in " ".join(process.info["cmdline"] or ())
    ]


def test_job_of_a_lost_node_resumes_elsewhere_with_the_same_mesh(
    house: House, machines: RayTestCluster, undisturbed: bytes
) -> None:
    """And the third waits in the server's own queue, where it can be cancelled; the second is cancelled within a
    step.
    """
    submitted = time.monotonic()
    first, second, third = house.submit(), house.submit(LONG), house.submit(LONG)
    house.wait_until(lambda: house.job(first).step >= 3 and house.job(second).step >= 3)
    print(f"third step of both {time.monotonic() - submitted:.1f} s after they were sent")
    assert {house.job(first).device, house.job(second).device} == {"left/0", "right/0"}
    assert house.job(third).state == "queued" and house.job(third).attempt == 0
    begun = time.monotonic()
    machines.kill(house.job(first).device.partition("/")[0])
    house.wait_until(lambda: house.job(first).state == "queued")
    noticed = time.monotonic() - begun
    assert "was lost; it continues from its checkpoint" in house.job(first).message
    assert house.runner.devices == (house.job(second).device,) and house.job(third).state == "queued"
    house.request(CancelJob(second))
    reached = house.job(second).step
    house.wait_until(lambda: house.job(second).state == "cancelled")
    steps = decode_mesh(house.mesh(second)).facts["steps"]
    print(f"node loss noticed after {noticed:.1f} s; cancelled at step {steps}, last told {reached}")
    house.wait_until(lambda: house.job(first).state == "running")
    assert (
        house.job(first).attempt == 2
        and house.job(first).device == house.job(second).device
        and house.job(third).state == "queued"
    )
    house.request(CancelJob(third))
    assert house.job(third).state == "cancelled" and house.job(third).attempt == 0
    before = house.job(first).step
    free = time.monotonic()
    house.wait_until(lambda: house.job(first).step > before or house.job(first).state != "running")
    print(f"node lost at step {before}; further than that {time.monotonic() - free:.1f} s after another GPU was free")
    house.wait_until(lambda: house.job(first).state == "succeeded")
    assert house.mesh(first) == undisturbed


def test_job_outlives_server_and_bridge(house: House) -> None:
    job = house.submit(LONG)
    house.client.subscribe(job)
    house.wait_until(lambda: bool(house.previews) and house.job(job).step > 3)
    (actor,) = actors()
    house.runner._bridge.kill()
    before = house.job(job).step
    house.wait_until(lambda: house.runner._connected is False)
    house.wait_until(lambda: house.runner._connected and house.job(job).step > before)
    assert house.job(job).attempt == 1 and house.job(job).state == "running"
    house.close()
    before = house.job(job).step
    house.previews.clear()
    house.open()
    assert (
        house.job(job).state == "running"
        and house.job(job).attempt == 1
        and house.runner.idle_devices() != list(house.runner.devices)
    )
    house.client.subscribe(job)
    house.wait_until(lambda: house.job(job).step > before and bool(house.previews))
    assert actors() == [actor] and house.job(job).attempt == 1
    steps = [frame.step for frame in house.previews]
    assert steps == sorted(steps) and len(steps) <= 3, "what it saw while nobody looked did not pile up"
    house.request(CancelJob(job))
    house.wait_until(lambda: house.job(job).state == "cancelled")
    assert house.job(job).mesh_bytes and decode_mesh(house.mesh(job)).facts["steps"] < LONG
    house.wait_until(lambda: not actors())
    assert set(house.runner.idle_devices()) == set(house.runner.devices)


class Bench:
    """A runner without a server."""

    def __init__(self, folder: Path, machines: RayTestCluster, grace_s: float = 60.0) -> None:
        self._context, self._folder = zmq.Context(), folder
        self.said: list[Any] = []
        self.open(machines, grace_s)

    def open(self, machines: RayTestCluster, grace_s: float) -> None:
        self.runner = RayRunner(
            self._context, machines.address, f"dreamwright-{self._folder.name}", self._folder / "logs", "cpu", grace_s
        )
        self.runner.reattach({})

    def wait_until(self, happened: Callable[[Any], bool], limit_s: float = 240.0) -> Any:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            self.runner.socket.poll(50)
            self.said += self.runner.reports()
            for report in self.said:
                if happened(report):
                    return report
        raise TimeoutError(f"it did not happen; {self.said[-5:]}")

    def close(self) -> None:
        self.runner.close()
        self._context.destroy(0)


@pytest.fixture
def bench(tmp_path: Path, machines: RayTestCluster) -> Iterator[Bench]:
    machines.add("left", "right")
    bench = Bench(tmp_path, machines, grace_s=1.0)
    yield bench
    bench.close()


def test_only_the_later_of_two_attempts_continues(bench: Bench, tmp_path: Path, model: Path) -> None:
    """As when a node that was only cut off comes back, after its job was given to another."""
    folder = tmp_path / "job"
    raise_fence(folder, 1)
    bench.runner.assign("left/0", job_order(model, folder, "job", 1, "left/0", LONG))
    bench.wait_until(lambda report: isinstance(report, ProgressReport) and report.step >= 3)
    raise_fence(folder, 2)
    bench.runner.assign("right/0", job_order(model, folder, "job", 2, "right/0", LONG))
    bench.said.clear()
    bench.wait_until(
        lambda report: isinstance(report, ProgressReport)
    )  # so the first attempt has let go: its end is ten minutes away
    assert not (folder / MESH_FILE).exists()
    bench.runner.stop("job", "cancel")
    ended = bench.wait_until(lambda report: isinstance(report, (JobFinished, WorkerExited)))
    assert (
        isinstance(ended, JobFinished)
        and (ended.how, ended.attempt, ended.meshed) == ("cancelled", 2, True)
        and (folder / MESH_FILE).exists()
    )
    assert {report.attempt for report in bench.said} == {2}
    end = time.monotonic() + 60
    while actors():  # the first one too was heard out, and let go
        assert time.monotonic() < end and not list(bench.runner.reports())
        bench.runner.socket.poll(50)


def test_hung_actor_is_killed_and_a_killed_actor_reported(bench: Bench, tmp_path: Path, model: Path) -> None:
    """Both wait for a folder that their node does not see yet, and so look at nothing else."""
    for name, device in (("stuck", "left/0"), ("dies", "right/0")):
        (tmp_path / name).mkdir()
        bench.runner.assign(device, job_order(model, tmp_path / name, name, 1, device))
    end = time.monotonic() + 120
    while len(actors()) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    bench.runner.stop("stuck", "pause")
    ended = bench.wait_until(lambda report: isinstance(report, JobFinished))
    assert (
        ended == replace(ended, job="stuck", how="paused", attempt=1, meshed=False)
        and "goes on from its last checkpoint" in ended.message
    )
    while len(left := actors()) > 1:
        assert time.monotonic() < end + 120
        time.sleep(0.1)
    os.kill(left[0].pid, signal.SIGKILL)
    died = bench.wait_until(lambda report: isinstance(report, WorkerExited))
    assert (died.job, died.attempt) == ("dies", 1) and "its process on the cluster's node right died" in died.reason
    assert set(bench.runner.idle_devices()) == {"left/0", "right/0"}


def test_unwanted_actors_are_killed_on_restart(
    bench: Bench, tmp_path: Path, machines: RayTestCluster, model: Path
) -> None:
    (tmp_path / "old").mkdir()
    bench.runner.assign("left/0", job_order(model, tmp_path / "old", "old", 1, "left/0"))
    end = time.monotonic() + 120
    while not actors():
        assert time.monotonic() < end
        bench.runner.socket.poll(50)
    bench.runner.close()
    bench.open(machines, 1.0)
    assert set(bench.runner.idle_devices()) == {"left/0", "right/0"}
    while actors():
        assert time.monotonic() < end + 120 and not list(bench.runner.reports())
        time.sleep(0.1)


def test_node_without_dreamwright_fails_the_job(
    bench: Bench, tmp_path: Path, machines: RayTestCluster, model: Path
) -> None:
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "dreamwright.py").write_text("")  # a module where the package should be
    machines.add("bare", env_vars={"PYTHONPATH": str(tmp_path / "poison")})
    end = time.monotonic() + 60
    while "bare/0" not in bench.runner.devices:
        assert time.monotonic() < end and not list(bench.runner.reports())
        time.sleep(0.1)
    bench.runner.assign("bare/0", job_order(model, tmp_path, "job", 1, "bare/0"))
    ended = bench.wait_until(lambda report: isinstance(report, (JobFinished, WorkerExited)))
    assert isinstance(ended, JobFinished) and ended.how == "failed"
    assert "node bare cannot load dreamwright" in ended.message and "install dreamwright[ray]" in ended.message
    machines.kill("bare")
    assert "bare/0" in bench.runner.idle_devices(), "nobody has noticed yet"
    bench.runner.assign("bare/0", job_order(model, tmp_path, "job", 2, "bare/0"))
    died = bench.wait_until(lambda report: isinstance(report, WorkerExited))
    assert (died.job, died.attempt) == ("job", 2) and "bare" in died.reason
    assert set(bench.runner.devices) == set(bench.runner.idle_devices()) == {"left/0", "right/0"}


def test_runner_outlives_the_head_node(bench: Bench, tmp_path: Path, machines: RayTestCluster, model: Path) -> None:
    """Ray ends every process that has lost its head for a while; only the envoy is one of those."""
    bench.runner.assign("left/0", job_order(model, tmp_path, "job", 1, "left/0"))
    end = time.monotonic() + 120
    while not actors():
        assert time.monotonic() < end
        bench.runner.socket.poll(50)
    begun = time.monotonic()
    machines.kill_head()
    died = bench.wait_until(lambda report: isinstance(report, WorkerExited))
    print(f"the loss of the head and of all nodes was told {time.monotonic() - begun:.1f} s after it")
    assert (died.job, died.attempt) == ("job", 1)
    bench.wait_until(lambda report: bench.runner.idle_devices() == ["left/0"])
