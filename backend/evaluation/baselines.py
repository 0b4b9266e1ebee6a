# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of a comparison: one job for each method, prompt and seed, kept so that a killed evaluation continues."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..config.parsing import apply_settings
from ..errors import CheckpointError, DreamwrightError, StoppedError
from ..geometry.build import Mesh
from ..io.output_files import write_output
from ..scenes.interfaces import RunState
from ..training.checkpoints import (
    has_checkpoint,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from ..training.events import Checkpoint, Event, Finished
from ..training.job import Job, identify_model, make_job
from ..training.methods import get_method, uses
from ..training.pipeline import TextTo3DPipeline
from ..training.recipe_choice import choose_recipe
from .captions import slug
from .run_settings import make_folder
from .samples import arrays_of, mesh_of
from .starter import PROMPTS

PROMPT_ORDER = (*PROMPTS[::2], *PROMPTS[1::2])  # PROMPTS come in pairs of a prop; few of these are of many props
RESULT, MESH, WORK = "result.json", "mesh.safetensors", "work"


@dataclass(frozen=True)
class Experiment:
    """One job of the comparison."""

    method: str
    prompt: str
    seed: int

    def folder(self, out: Path) -> Path:
        """Folder of the result."""
        return out / self.method / f"{slug(self.prompt)}.{self.seed}"


@dataclass(frozen=True)
class RunResult:
    """Seconds that a job of that fingerprint took, and the error of one that failed."""

    fingerprint: str
    seconds: float
    error: str = ""


def experiments(methods: Sequence[str], prompts: Sequence[str], seeds: int) -> list[Experiment]:
    """All experiments, prompt by prompt, so that an unfinished evaluation compares the methods as well."""
    return [Experiment(method, prompt, seed) for seed in range(seeds) for prompt in prompts for method in methods]


def experiment_job(experiment: Experiment, settings: Sequence[str] = (), models: dict[str, str] | None = None) -> Job:
    """The job by its method's own preset and model, with the settings that the method reads.

    Raises ConfigError and ModelError.
    """
    method = get_method(experiment.method)
    model = (models or {}).get(experiment.method, method.model)
    recipe = choose_recipe(method.preset, model)
    base = recipe.config
    apply_settings(base, settings)  # an unknown name or a value out of range is an error for every method
    config = apply_settings(
        base, [setting for setting in settings if uses(method.name, setting.partition("=")[0].strip())]
    )
    config = replace(config, run=replace(config.run, seed=experiment.seed))
    return make_job(experiment.prompt, model, method.preset, config, family=recipe.family)


def job_fingerprint(job: Job) -> str:
    """SHA-256 of all that a mesh depends on: the job with its model's weights, and the settings of meshing."""
    digest = hashlib.sha256(identify_model(job).fingerprint().encode())
    digest.update(json.dumps(asdict(job.config.mesh), sort_keys=True).encode())
    return digest.hexdigest()


def load_result(folder: Path, fingerprint: str) -> tuple[RunResult, Mesh | None] | None:
    """A kept result of that fingerprint and its mesh; None when there is none, or a damaged one."""
    try:
        result = RunResult(**json.loads((folder / RESULT).read_text(encoding="utf-8")))
        if result.fingerprint != fingerprint:
            return None
        return result, None if result.error else mesh_of(load_file(folder / MESH))
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return None


def _resume_state(work: Path, job: Job) -> RunState | None:
    """The state of an interrupted run; None without one, and for a damaged one or one of other settings."""
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
    """Run the job, from its checkpoint if there is one, and keep its mesh; one that fails is kept as failed.

    `seconds` are those of this call. Raises StoppedError, after a checkpoint, when `should_stop` is true.
    """
    make_folder(folder)
    work, start, fingerprint = folder / WORK, clock(), job_fingerprint(job)
    job, error, mesh = identify_model(job), "", None
    try:
        pipeline = TextTo3DPipeline(job, device, _resume_state(work, job), should_stop)
        for event in pipeline.events():
            watch(event)
            if isinstance(event, Checkpoint):
                write_checkpoint(work, job, event.state)
            if isinstance(event, Finished) and not event.complete:
                raise StoppedError(f"stopped at step {event.step} of {job.prompt!r}; the same command continues there")
        mesh, _ = pipeline.mesh()
        write_output(folder / MESH, save(arrays_of(mesh)))
    except StoppedError:
        raise
    except DreamwrightError as failure:
        error = str(failure)
    result = RunResult(fingerprint, clock() - start, error)
    write_output(folder / RESULT, (json.dumps(asdict(result), indent=2) + "\n").encode())
    remove_checkpoints(work)
    return result, mesh
