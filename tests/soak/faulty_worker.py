# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker process with injected faults.

`DREAMWRIGHT_FAULTS` names a JSON file that maps a job's seed to {"where", "what", "step", "attempts", "seconds"}.
`where` is loading, step or mesh. Attempts later than `attempts` get no fault. Each injected fault appends
"JOB ATTEMPT TIME" to a log beside the file; TIME is the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from dreamwright.backend.server.workers import worker
from dreamwright.backend.server.workers.worker_protocol import RunJob

CUDA_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 8 GiB"
EACH_TIME = ("wait", "memory")  # injected at every call from `step` on; the others once
CUDA_FAULT = "CUDA error: an illegal memory access was encountered"


def inject(what: str, fault: dict[str, Any], work: RunJob) -> None:
    """Inject a fault into this process. "nan" is handled by the caller, which changes the result."""
    import torch

    if what == "segfault":
        ctypes.string_at(0)
    elif what == "abort":
        os.abort()
    elif what == "exit":
        os._exit(7)
    elif what == "hang":
        ctypes.CDLL(None).pause()  # native code that does not return
    elif what == "wait":
        time.sleep(fault["seconds"])
    elif (what == "memory" and work.settings.get("run.views_at_once") != "1") or what == "persistent memory":
        raise torch.OutOfMemoryError(CUDA_MEMORY)
    elif what == "MemoryError":
        raise MemoryError
    elif what == "device":
        raise RuntimeError(CUDA_FAULT)
    elif what == "bug":
        raise ZeroDivisionError("division by zero")


@contextmanager
def injected(fault: dict[str, Any] | None, work: RunJob, fault_log: Path) -> Iterator[None]:
    """Patch the faulty function while the body runs."""
    if fault is None or work.attempt > fault.get("attempts", 1):
        yield
        return
    from dreamwright.backend.guidance import sds
    from dreamwright.backend.scenes import field_scene
    from dreamwright.backend.training import guidance_loading

    where, what, calls = fault["where"], fault["what"], 0
    owner, name = {
        "loading": (guidance_loading, "load_denoiser"),
        "step": (sds.ScoreDistillation, "gradient"),
        "mesh": (field_scene, "build_mesh"),
    }[where]
    real: Callable[..., Any] = getattr(owner, name)

    def faulty(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < fault.get("step", 1) or (what not in EACH_TIME and calls > fault.get("step", 1)):
            return real(*args, **kwargs)
        with fault_log.open("a") as file:
            file.write(f"{work.job} {work.attempt} {time.monotonic()}\n")
        inject(what, fault, work)
        result = real(*args, **kwargs)
        return replace(result, gradient=result.gradient * float("nan")) if what == "nan" else result

    with mock.patch.object(owner, name, faulty):
        yield


class FaultyWorker(worker.Worker):
    """A worker that injects the fault planned for the job's seed."""

    def run(self, work: RunJob) -> None:
        path = Path(os.environ["DREAMWRIGHT_FAULTS"])
        fault = json.loads(path.read_text()).get(str(work.seed))
        with injected(fault, work, path.with_suffix(".log")):
            super().run(work)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    worker.Worker = FaultyWorker
    worker.REPORT_S = 0.0
    worker.main()
