# SPDX-License-Identifier: GPL-3.0-or-later
"""Real workers that are killed, crash, hang, run out of memory or meet NaN: each has its cause and its retry.

`tests/soak/worker_faults.py` repeats it; docs/operator/reliability.md has its figures.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamwright.backend.server.policy import Policy
from dreamwright.shared.messages import ResumeJob
from tests.soak.fault_injection_server import INTERVAL, ROOT, FaultInjectionServer, running_fault_server

HANG = Policy(hang_minutes=0.2)  # 12 s between two steps, which take some hundredths; six times that to load

pytestmark = pytest.mark.timeout(1800)  # workers are started anew, which takes minutes on a machine that is busy


@pytest.fixture(scope="module")
def fault_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultInjectionServer]:
    with running_fault_server(tmp_path_factory.mktemp("fault_server"), HANG) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "cause", "expected"),
    [
        ("segfault", "crashed", "SIGSEGV"),
        ("device", "device-fault", "illegal memory access"),
        ("hang", "hang", "sent no heartbeat for 12 s while stepping"),
    ],
)
def test_crashed_or_hung_worker_is_replaced(
    what: str, cause: str, expected: str, fault_server: FaultInjectionServer
) -> None:
    name = fault_server.submit({"where": "step", "what": what, "step": 7})
    job = fault_server.ended(name)
    assert job.state == "succeeded" and job.mesh_bytes and job.cause == "", job
    assert fault_server.attempts(name) == [(1, 0), (2, INTERVAL)], "from its last checkpoint"
    history = fault_server.histories[name]
    assert any(expected in seen.message and seen.cause == cause for _, seen in history.seen), history.seen
    assert fault_server.server.store.records[name].attempts == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "cause"), [(signal.SIGKILL, "killed"), (signal.SIGSTOP, "hang")])
def test_signalled_worker_is_replaced(number: signal.Signals, cause: str, fault_server: FaultInjectionServer) -> None:
    name = fault_server.submit({"where": "step", "what": "wait", "seconds": 0.1})
    fault_server.wait_until(lambda: fault_server.job(name).step >= 5)
    os.kill(fault_server.worker(), number)
    fault_server.wait_until(lambda: fault_server.job(name).attempt == 2)
    assert fault_server.job(name).cause == cause
    job = fault_server.ended(name)
    assert job.state == "succeeded" and job.cause == "" and fault_server.attempts(name)[1] == (2, INTERVAL)


@pytest.mark.slow
def test_out_of_memory_retries_with_reduced_settings(
    fault_server: FaultInjectionServer,
) -> None:
    name = fault_server.submit(
        {"where": "step", "what": "memory", "step": 6, "attempts": 9}, **{"run.views_per_step": "2"}
    )
    job = fault_server.ended(name)
    assert job.state == "succeeded" and job.settings["run.views_at_once"] == "1"
    assert "after running out of memory it continues with run.views_at_once=1" in job.message
    assert fault_server.attempts(name) == [(1, 0), (2, 5)], "it went on from the step before the one that failed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "cause", "expected", "resumable"),
    [
        ("persistent memory", "memory", "2.00 GiB", True),
        ("MemoryError", "memory", "out of memory after step 4", True),
        ("nan", "not-a-number", "try another seed, or a smaller optimizer.learning_rate", True),
        ("bug", "fault", "ZeroDivisionError: division by zero (a fault of Dreamwright", True),
    ],
)
def test_deterministic_failures_end_at_once_and_can_resume(
    what: str, cause: str, expected: str, resumable: bool, fault_server: FaultInjectionServer
) -> None:
    """A failed job with a checkpoint continues from it when it is resumed."""
    fault = {"where": "step", "what": what, "step": 5, "attempts": 1}
    name = fault_server.submit(fault)
    job = fault_server.ended(name)
    assert (job.state, job.cause, job.resumable, job.attempt) == ("failed", cause, resumable, 1), job
    assert expected in job.message
    assert fault_server.request(ResumeJob(name)).job.state in ("queued", "running")
    job = fault_server.ended(name)
    assert (job.state, job.cause, job.resumable) == ("succeeded", "", False), job
    assert fault_server.attempts(name) == [(1, 0), (2, INTERVAL)]


@pytest.mark.slow
def test_three_deaths_without_progress_fail_the_job(fault_server: FaultInjectionServer) -> None:
    name = fault_server.submit({"where": "step", "what": "segfault", "step": 1, "attempts": 3})
    job = fault_server.ended(name)
    assert (job.state, job.cause, job.attempt, job.resumable) == ("failed", "crashed", 3, False), job
    assert "SIGSEGV" in job.message and "3 times" in job.message and "worker's log" in job.message


SERVED = """
import json, os, sys, torch
from pathlib import Path
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 2  # as on a machine with two of them
started = []
torch.cuda._lazy_init = lambda: started.append("lazy") or (_ for _ in ()).throw(RuntimeError("CUDA is initialized"))
from dreamwright.backend.cli.serve import all_devices
from tests.testing.scripted_worker_server import ScriptedServer, submit_message
from dreamwright.backend.server.workers.worker_protocol import JobFinished
from dreamwright.shared.messages import GetCapabilities
class Patch:
    def setattr(self, name, value):
        from dreamwright.backend.server import app
        app.LocalRunner = value
from dreamwright.backend.server import app
real = app.Server
import tests.testing.scripted_worker_server as scripted
scripted.Server = lambda address, folder, devices: real(address, folder, all_devices([]))
scripted_server = ScriptedServer(Path(sys.argv[1]), Patch())
devices = scripted_server.request(GetCapabilities()).devices
name = scripted_server.request(submit_message()).job.job
scripted_server.wait_until(lambda: scripted_server.runner.given == [name])
checkpoints = scripted_server.server.store.job_folder(name) / "checkpoints"
checkpoints.mkdir()
(checkpoints / "checkpoint.safetensors").write_bytes(b"x")
scripted_server.runner.queued = [JobFinished(name, "failed", "out of memory", False, cause="memory")]
scripted_server.wait_until(lambda: scripted_server.job(name).state == "failed" or len(scripted_server.runner.given) > 1)
scripted_server.close()
print(json.dumps({"devices": list(devices), "started": started, "initialized": torch.cuda.is_initialized(),
                  "driver": "libcuda.so" in Path("/proc/self/maps").read_text(),
                  "diffusers": "diffusers" in sys.modules}))
"""


def test_server_process_initializes_no_device(tmp_path: Path) -> None:
    """torch is loaded in it, to check settings; CUDA's start is made an error, and two devices are shown to it."""
    done = subprocess.run(
        [sys.executable, "-c", SERVED, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    output = done.stdout.strip().splitlines()[-1]
    assert (
        output
        == '{"devices": ["cuda:0", "cuda:1"], "started": [], "initialized": false, "driver": false, "diffusers": false}'
    )
