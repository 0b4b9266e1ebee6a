# SPDX-License-Identifier: GPL-3.0-or-later
"""The process of one rank: a small run, optionally with a fault, that writes its events and result to a folder."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dreamwright.backend.config.schema import Config
from dreamwright.backend.errors import DreamwrightError, RunError
from dreamwright.backend.guidance.interfaces import GuidanceResult
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.runtime.distributed import ProcessGroup, SingleProcess, process_group
from dreamwright.backend.scenes.derived_config import surface_guidance
from dreamwright.backend.text.prompts import PromptEmbeddings
from dreamwright.backend.training.checkpoints import read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Checkpoint, Event, StepCompleted
from dreamwright.backend.training.field_training import field_trainer
from dreamwright.backend.training.job import Job, make_job
from dreamwright.backend.training.trainer import Trainer
from tests.testing.oracles import GaussianOracle
from tests.testing.preloaded import PROCESSES
from tests.testing.tiny_model import quick_config

# Uses all random draws: two backgrounds, shading and textures, jitter, noise, occupancy.
BUSY = (
    "run.views_per_step=2", "background.kind=mlp", "background.random_probability=0.5", "shading.albedo_only_share=0",
    "render.occupancy_interval=3", "regularizers.smoothness=0.01", "regularizers.orientation_start=0.01",
    "regularizers.orientation_end=0.01", "guidance.omega=1", "guidance.opposite_weight=1",
    "run.max_restarts=1",
)  # fmt: skip


def busy_job(*settings: str) -> Job:
    return make_job("a ball", "oracle", "draft", quick_config(*BUSY, *settings))


def run_of(config: Config, group: ProcessGroup = SingleProcess(), **options: Any) -> Trainer:
    """A run whose guidance depends on the noise."""
    ball = torch.full((3, 16, 16), -0.2)
    ball[0, 4:12, 4:12] = 0.8
    oracle = GaussianOracle(
        {"": torch.zeros(3, 16, 16), **{f"a ball, {v} view": ball for v in ("front", "side", "back", "overhead")}}, 0.5
    )
    return field_trainer(
        config,
        ScoreDistillation(oracle, config.guidance),
        PromptEmbeddings(oracle, "a ball", config.guidance),
        group=group,
        surface_guidance=ScoreDistillation(oracle, surface_guidance(config)) if config.surface.steps else None,
        **options,
    )


class InjectedFault:
    """Wraps a guidance and injects one fault after `at` calls."""

    def __init__(self, inner: Any, what: str, at: int) -> None:
        self.inner, self.what, self.left = inner, what, at

    def gradient(self, image: torch.Tensor, *rest: Any) -> GuidanceResult:
        result = self.inner.gradient(image, *rest)
        self.left -= 1
        if self.left != 0:
            return result
        if self.what == "nan":
            return GuidanceResult(result.gradient * float("nan"), result.scalars)
        if self.what == "error":
            raise RunError("injected fault")
        if self.what == "death":
            os._exit(9)
        if self.what == "silence":
            time.sleep(60)
        return result


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def one_rank(
    rank: int, count: int, port: int, folder: Path, settings: tuple[str, ...], options: dict[str, Any]
) -> None:
    """Run one rank; options: fault (what, at, rank), stop (at, rank), resume, timeout."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    record: dict[str, Any] = {"events": [], "error": ""}
    started = time.monotonic()
    try:
        with process_group(torch.device("cpu"), options.get("timeout", 60.0)) as group:
            job = busy_job(*settings, *options.get(f"settings of {rank}", ()))
            stopped: list[bool] = []
            resume = read_checkpoint(folder / "work", job).state if options.get("resume") else None
            run = run_of(job.config, group, resume=resume, should_stop=lambda: bool(stopped))
            fault = options.get("fault")
            if fault and fault[2] == rank:
                run.scene.guidance = InjectedFault(run.scene.guidance, *fault[:2])
            for event in run:
                record["events"].append(described(event))
                if isinstance(event, Checkpoint):
                    write_checkpoint(folder / "work", job, event.state)
                if isinstance(event, StepCompleted) and options.get("stop") == (event.step, rank):
                    stopped.append(True)
            save_file({k: v.contiguous() for k, v in run.scene.state().tensors.items()}, folder / f"{rank}.safetensors")
    except DreamwrightError as error:
        record["error"] = f"{type(error).__name__}: {error}"
    record["seconds"] = time.monotonic() - started
    (folder / f"{rank}.json").write_text(json.dumps(record))


def described(event: Event) -> list[Any]:
    """An event as JSON: name, step, and the verdict, seed or figures."""
    detail = {k: getattr(event, k) for k in ("verdict", "new_seed", "complete", "scalars") if hasattr(event, k)}
    step = event.state.step if isinstance(event, Checkpoint) else event.step
    return [type(event).__name__, step, detail]


def ranks_run(folder: Path, *settings: str, count: int = 2, **options: Any) -> list[dict[str, Any]]:
    """The records of `count` ranks, {} for one that was killed. Fails when one still runs after two minutes."""
    port = free_port()
    processes = [
        PROCESSES.Process(target=one_rank, args=(rank, count, port, folder, settings, options)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    silent = options.get("fault", ("", 0, -1))
    for rank, process in enumerate(processes):
        if silent[0] == "silence" and rank == silent[2]:
            continue
        process.join(120)
        assert not process.is_alive(), f"rank {rank} hangs"
    for process in processes:
        process.kill()
        process.join()
    paths = [folder / f"{rank}.json" for rank in range(count)]
    return [json.loads(path.read_text()) if path.is_file() else {} for path in paths]
