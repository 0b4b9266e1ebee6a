# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that stops: its jobs are queued again, its clients are notified, and it ends in time even with hung workers.

`tests/soak/graceful_stop.py` repeats it; docs/operator/reliability.md has its figures.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq

from dreamwright.backend.cli.main import build_parser
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.service import SHUTDOWN_MESSAGE
from dreamwright.backend.server.workers.dispatcher import STOPPED
from dreamwright.backend.server.workers.local_runner import LocalRunner
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.messages import CancelJob, JobList, JobReply, PauseJob, ResumeJob, ServerShutdown, Subscribe
from tests.soak.graceful_stop import stop_and_resume
from tests.soak.worker_processes import is_process_running
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.scripted_worker_server import ScriptedServer, submit_message
from tests.testing.server_process import server_process


class Orders:
    """Which attempts the runner of an in-memory server was ordered to stop."""

    def __init__(self, in_memory_server: InMemoryServer) -> None:
        self.given: list[tuple[str, str]] = []
        in_memory_server.runner.stop = lambda job, why: self.given.append((job, why))


def test_shutdown_requeues_running_jobs(
    in_memory_server: InMemoryServer,
) -> None:
    orders = Orders(in_memory_server)
    running, next_one = in_memory_server.submit("ada"), in_memory_server.submit("bob")
    in_memory_server.step()
    in_memory_server.service.begin_shutdown()
    assert orders.given == [(running, "pause")] and in_memory_server.service.running_jobs() == [running]
    in_memory_server.report(JobFinished, running, "paused", "", False)
    assert (
        in_memory_server.job(running).state == "queued"
        and in_memory_server.job(running).message == STOPPED
        and in_memory_server.service.running_jobs() == []
    )
    in_memory_server.step(10.0)
    assert in_memory_server.runner.given == [running], "the free device got no other job"
    in_memory_server.kill()
    in_memory_server.open()
    in_memory_server.step()
    assert in_memory_server.runner.given == [running] and in_memory_server.job(next_one).queue_position == 1, (
        "it goes on first when the server is back"
    )


def test_paused_job_stays_paused(in_memory_server: InMemoryServer) -> None:
    Orders(in_memory_server)
    job = in_memory_server.submit("ada")
    in_memory_server.step()
    in_memory_server.request(PauseJob(job))
    in_memory_server.service.begin_shutdown()
    in_memory_server.report(JobFinished, job, "paused", "", False)
    assert in_memory_server.job(job).state == "paused"


def test_pause_of_an_earlier_attempt_is_ignored(in_memory_server: InMemoryServer) -> None:
    Orders(in_memory_server)
    job = in_memory_server.submit("ada")
    in_memory_server.step()
    in_memory_server.request(PauseJob(job))
    in_memory_server.report(JobFinished, job, "paused", "", False)
    in_memory_server.request(ResumeJob(job))
    in_memory_server.step()
    in_memory_server.service.begin_shutdown()
    in_memory_server.report(JobFinished, job, "paused", "", False)
    assert in_memory_server.job(job).state == "queued"


def test_job_that_ends_during_shutdown_keeps_its_result(in_memory_server: InMemoryServer) -> None:
    orders = Orders(in_memory_server)
    cancelled = in_memory_server.submit("ada")
    in_memory_server.step()
    in_memory_server.request(CancelJob(cancelled))
    orders.given.clear()
    in_memory_server.service.begin_shutdown()
    assert orders.given == [], "it stops already, and its mesh is being made"
    in_memory_server.report(JobFinished, cancelled, "cancelled", "", False)
    assert in_memory_server.job(cancelled).state == "cancelled"


def test_subscribers_receive_the_shutdown(in_memory_server: InMemoryServer) -> None:
    in_memory_server.request(Subscribe(), "ada")
    in_memory_server.service.begin_shutdown()
    in_memory_server.request(Subscribe(), "bob")
    for name in (b"ada", b"bob"):
        assert [event for event in in_memory_server.events[name] if isinstance(event, ServerShutdown)] == [
            ServerShutdown(SHUTDOWN_MESSAGE)
        ]


def run_in_steps(scripted_server: ScriptedServer, words: list[int], grace_s: float) -> tuple[bool, float]:
    """(what `run` returns, the seconds it took); the client lives on beside it."""
    over = threading.Event()

    def live() -> None:
        while not over.is_set():
            scripted_server.events += scripted_server.client.tick()
            time.sleep(0.002)

    thread = threading.Thread(target=live)
    thread.start()
    started = time.monotonic()
    try:
        whole = scripted_server.server.run(lambda: len(words), grace_s)
    finally:
        over.set()
        thread.join()
    return whole, time.monotonic() - started


def restart(scripted_server: ScriptedServer) -> None:
    """The server, which has closed by itself, is started again, and a client beside it."""
    scripted_server.client.close()
    scripted_server.open()


def test_client_reports_the_shutdown(scripted_server: ScriptedServer) -> None:
    scripted_server.client.subscribe()
    scripted_server.wait_until(lambda: any(isinstance(event, JobList) for event in scripted_server.events))
    assert run_in_steps(scripted_server, [15], 30.0)[0] is True
    end = time.monotonic() + 30
    while scripted_server.client.state is not ConnectionState.LOST and time.monotonic() < end:
        scripted_server.events += scripted_server.client.tick()
        time.sleep(0.01)
    assert ServerShutdown(SHUTDOWN_MESSAGE) in scripted_server.events
    assert scripted_server.client.reason == SHUTDOWN_MESSAGE
    restart(scripted_server)


def test_hung_worker_is_killed_after_the_grace_period(scripted_server: ScriptedServer) -> None:
    job = scripted_server.request(submit_message()).job.job
    scripted_server.wait_until(lambda: scripted_server.runner.given == [job])
    whole, took = run_in_steps(scripted_server, [15], 0.5)
    assert whole is False and took >= 0.5  # a lower bound: the same clock measures the grace period
    assert scripted_server.runner.stopped == [(job, "pause")]
    restart(scripted_server)
    scripted_server.wait_until(lambda: scripted_server.runner.given == [job])
    assert scripted_server.job(job).attempt == 2, "it goes on when the server is back"


def test_second_signal_ends_at_once(scripted_server: ScriptedServer) -> None:
    job = scripted_server.request(submit_message()).job.job
    scripted_server.wait_until(lambda: scripted_server.runner.given == [job])
    whole, took = run_in_steps(scripted_server, [15, 15], 3600.0)
    assert whole is False and took < 3600.0  # the grace period, which a busy machine does not reach
    restart(scripted_server)


def test_two_hung_workers_share_one_grace_period(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped processes stand for workers in a kernel that does not return."""
    context = zmq.Context()
    runner = LocalRunner(context, ("cpu", "cuda:0"), tmp_path)
    hung = [
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.PIPE)
        for _ in range(2)
    ]
    waits: list[float] = []
    for worker, process in zip(runner._workers.values(), hung, strict=False):
        worker.process = process
        os.kill(process.pid, signal.SIGSTOP)
        wait = process.wait
        monkeypatch.setattr(
            process, "wait", lambda timeout=None, wait=wait: (waits.append(timeout or 0.0), wait(timeout))[1]
        )
    runner.close(1.0)
    context.destroy(0)
    assert not any(is_process_running(process.pid) for process in hung)
    # The second wait gets what is left of the first one's second; a busy machine only shortens it.
    assert sum(waits) <= 1.05, "what the two were waited for, together"


def test_ctrl_c_reaches_only_the_server(tmp_path: Path) -> None:
    """A worker is in a session of its own, where the terminal's SIGINT does not go, nor SIGHUP when its server dies."""
    context = zmq.Context()
    runner = LocalRunner(context, ("cpu",), tmp_path)
    try:
        runner.idle_devices()
        assert os.getsid(runner._workers["cpu"].process.pid) != os.getsid(0)
    finally:
        runner.close(0.0)
        context.destroy(0)


@pytest.mark.parametrize("grace", ["-1", "nan", "1e9"])
def test_invalid_grace_periods_are_refused(grace: str, tmp_path: Path) -> None:
    options = build_parser().parse_args(["serve", "--grace", grace, "--state", str(tmp_path)])
    with pytest.raises(ConfigError, match="--grace"):
        options.run(options)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_server_exits_on_sigterm(tmp_path: Path) -> None:
    """Its workers never stop; the grace of the second is an hour."""
    for grace, signals, code in (("1", 1, 0), ("3600", 2, 1)):
        with (
            server_process(tmp_path / grace, "--grace", grace, module="tests.testing.server_process") as server,
            server.connected_client() as client,
        ):
            assert isinstance(server.request(client, submit_message()), JobReply)
            server.wait_until(lambda: server.wrote("attempt begins"), client)
            server.process.send_signal(signal.SIGTERM)
            if signals == 2:
                server.wait_until(lambda: server.wrote("server stops"), client)
                server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(120) == code
            assert server.wrote("worker is killed while it runs a job job=")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_job_survives_sigterm_with_the_same_mesh(tmp_path: Path) -> None:
    """Nothing but the stop asks for a checkpoint. The second stop finds the worker standing still.

    300 steps, so that seconds are left when the second stop is due: 60 take one second in all.
    """
    figures = stop_and_resume(tmp_path, 1, 1, 0, 300)
    assert figures.faults == [] and figures.identical
    assert figures.codes == [0, 0] and figures.steps_lost == [0]
    assert len(figures.notified_s) == 2, "the client gets a notice of each stop"


def test_progress_during_shutdown_is_counted(in_memory_server: InMemoryServer) -> None:
    Orders(in_memory_server)
    job = in_memory_server.submit("ada")
    in_memory_server.step()
    in_memory_server.service.begin_shutdown()
    in_memory_server.report(ProgressReport, job, 7, 100, 1.0, 9.0)
    in_memory_server.report(JobFinished, job, "paused", "", False)
    assert in_memory_server.job(job).step == 7
