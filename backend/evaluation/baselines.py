# SPDX-License-Identifier: GPL-3.0-or-later
"""The experiments of a comparison of methods: one job for each method, prompt and seed, load_result so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ..config.parsing import apply_settings
from ..config.presets import get_preset
from ..errors import CheckpointError, DreamwrightError, StoppedError
from ..geometry.build import Mesh
from ..models.local import resolve_model
from ..training.checkpoints import (
    has_checkpoint,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from ..training.events import Checkpoint, Event, Finished, RunState
from ..training.job import Job, make_job
from ..training.methods import get_method, uses
from ..training.pipeline import TextTo3DPipeline
from .captions import slug
from .starter import PROMPTS

PROMPT_ORDER = (
    *PROMPTS[::2],
    *PROMPTS[1::2],
)  # the test's prompts come in pairs of a prop: few of them are better of many props


@dataclass(frozen=True)
class Experiment:
    """One job of the comparison."""

    method: str
    prompt: str
    seed: int

    def folder(self, out: Path) -> Path:
        """Where it is load_result."""
        return out / self.method / f"{slug(self.prompt)}.{self.seed}"


@dataclass(frozen=True)
class RunResult:
    """What a cell gave: a mesh, or the error that there is none."""

    fingerprint: str
    seconds: float
    error: str = ""


def experiments(methods: Sequence[str], prompts: Sequence[str], seeds: int) -> list[Experiment]:
    """All experiments, every method of one prompt and seed before the next, so that a short run can be compared as well."""
    return [Experiment(method, prompt, seed) for seed in range(seeds) for prompt in prompts for method in methods]


def experiment_job(cell: Experiment, settings: Sequence[str] = (), models: dict[str, str] | None = None) -> Job:
    """The cell's job by its method's own preset and model, with those of the settings that mean something to it. Raises ConfigError."""
    method = get_method(cell.method)
    base = get_preset(method.preset).config
    apply_settings(base, settings)  # a wrong name or number is one for every method
    config = apply_settings(
        base, [setting for setting in settings if uses(method.name, setting.partition("=")[0].strip())]
    )
    config = replace(config, run=replace(config.run, seed=cell.seed))
    return make_job(cell.prompt, (models or {}).get(cell.method, method.model), method.preset, config)


def fingerprint(job: Job) -> str:
    """What a load_result mesh must share with the job: settings and the model's weights."""
    digest = hashlib.sha256(job.fingerprint().encode())
    digest.update(json.dumps(asdict(job.config.mesh), sort_keys=True).encode())
    for file in sorted(resolve_model(job.model).rglob("*.safetensors")):
        status = file.stat()
        digest.update(f"{file.name} {status.st_size}".encode())
        digest.update(file.read_bytes() if status.st_size < 2**28 else str(status.st_mtime_ns).encode())
    return digest.hexdigest()


def load_result(folder: Path, wanted: str) -> tuple[RunResult, Mesh | None] | None:
    """A finished cell with that fingerprint, None where there is none."""
    try:
        result = RunResult(**json.loads((folder / "cell.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if result.fingerprint != wanted:
        return None
    return result, None if result.error else Mesh(**load_file(folder / "mesh.safetensors"))


def _resumed(work: Path, job: Job) -> RunState | None:
    """Where the job was stopped; None where it begins, also when what is there is damaged or another job's, as after a change of settings."""
    if not has_checkpoint(work):
        return None
    try:
        return read_checkpoint(work, job).state
    except CheckpointError:
        remove_checkpoints(work)
        return None


def run_experiment(
    job: Job,
    folder: Path,
    device: torch.device | str,
    should_stop: Callable[[], bool] = lambda: False,
    watch: Callable[[Event], None] = lambda event: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[RunResult, Mesh | None]:
    """Run the job, from its checkpoint where there is one, and keep what it gives; what fails is load_result as failed.

    `seconds` are those of this call. Raises StoppedError, after a checkpoint, when `should_stop` said so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work, begun, wanted = folder / "work", clock(), fingerprint(job)
    error, mesh = "", None
    try:
        resume = _resumed(work, job)
        production = TextTo3DPipeline(job, device, resume, should_stop)
        for event in production.events():
            watch(event)
            if isinstance(event, Checkpoint):
                write_checkpoint(work, job, event.state)
            if isinstance(event, Finished) and not event.complete:
                raise StoppedError(f"stopped at step {event.step} of {job.prompt!r}; the same command goes on from there")
        mesh, _ = production.mesh()
        save_file(
            {name: np.ascontiguousarray(value) for name, value in vars(mesh).items() if value is not None},
            folder / "mesh.safetensors",
        )
    except StoppedError:
        raise
    except DreamwrightError as failure:
        error = str(failure)
    result = RunResult(wanted, clock() - begun, error)
    temporary = folder / "cell.json.part"
    temporary.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "cell.json")
    remove_checkpoints(work)
    return result, mesh
