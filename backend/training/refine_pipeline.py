# SPDX-License-Identifier: GPL-3.0-or-later
"""From a mesh and a prompt to the refined mesh: encode, load, optimize. Like `backend/training/pipeline.py` for a prompt alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from dreamwright.shared import __version__

from ..errors import OutOfMemoryError, is_out_of_memory, one_line
from ..geometry.build import Mesh
from ..geometry.input_mesh import InputMesh
from ..guidance.denoisers.loading import chosen_dtype, load_denoiser
from ..guidance.sds import ScoreDistillation
from ..models.local import resolve_model
from ..models.pipeline_folder import open_pipeline
from ..scenes.mesh_scene import guidance_for
from ..text.encoder_process import PipelinePromptEncoder, make_text_encoder
from ..text.prompts import PromptEmbeddings
from .events import Event, RunState
from .refine_job import RefineJob
from .refine_trainer import Refinement


class RefineProduction:
    """One refinement under way. `events` runs it; `mesh` is the mesh so far, at any time.

    Raises ModelError and PromptError while loading, OutOfMemoryError, StoppedError, and CheckpointError for a state of another job.
    """

    def __init__(
        self,
        job: RefineJob,
        subject: InputMesh,
        device: torch.device | str,
        resume: RunState | None,
        should_stop: Callable[[], bool],
    ) -> None:
        config = job.config
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        self.job = job
        told = guidance_for(config.guidance, config.refine.strength)
        folder, dtype = open_pipeline(resolve_model(job.model)), chosen_dtype(config.model, device)
        self.notices = (
            f"{len(subject.vertices)} vertices, {len(subject.faces)} triangles; strength {config.refine.strength:g}: no vertex moves more "
            f"than {100 * config.refine.strength * config.refine.reach / 0.5:.0f}% of the mesh's radius",
            f"guidance: omega {told.omega:g}, t {told.t_min:g} to {told.t_max:.2f}, at the end {told.t_max_end:.2f}",
        )
        text = make_text_encoder(folder, device, dtype, config.text, should_stop)
        bank = PromptEmbeddings(PipelinePromptEncoder(text, device), job.prompt, config.guidance)
        text.free()
        denoiser = load_denoiser(folder.path, device, dtype, config=config.model, text=text)
        self.run = Refinement(config, ScoreDistillation(denoiser, told), bank, subject, resume, should_stop, device)
        self.warnings = bank.warnings

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.run.scene.step

    def events(self) -> Iterator[Event]:
        """Optimize; see `Refinement`. Raises OutOfMemoryError: the last checkpoint is kept."""
        try:
            yield from self.run
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"out of memory at step {self.step} ({one_line(error)}); continue with --resume on a machine with more, or start "
                "afresh with run.views_per_step=1 or refine.supersampling=1"
            ) from error

    def mesh(self) -> Mesh:
        """The mesh as it is now."""
        return self.run.scene.mesh()

    def provenance(self) -> Mapping[str, Any]:
        """What a mesh's file says about where it came from."""
        guidance, refine = self.job.config.guidance, self.job.config.refine
        return {
            "prompt": self.job.prompt,
            "model": self.job.model,
            "preset": self.job.preset,
            "seed": self.run.scene.seed,
            "steps": self.step,
            "strength": refine.strength,
            "refined_sha256": self.job.mesh,
            "negative_prompt": guidance.negative_prompt,
            "omega": guidance.omega,
            "guidance_scale": 1 + guidance.omega,
            "dreamwright": __version__,
        }
