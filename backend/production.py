# SPDX-License-Identifier: GPL-3.0-or-later
"""From a job to a mesh: load the model, optimise, extract. The command line and the server's workers both run this."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping

import torch
from torch import Tensor

from dreamwright.backend.cameras import Cameras, orbit_cameras
from dreamwright.backend.distillation import ScoreDistillation
from dreamwright.backend.events import Event, RunState
from dreamwright.backend.guidance.pixel import PixelDiffusion
from dreamwright.backend.job import Job
from dreamwright.backend.meshing.compare import FieldViews
from dreamwright.backend.meshing.mesh import Mesh, MeshReport, build_mesh
from dreamwright.backend.models import resolve_model
from dreamwright.backend.optimization import Run, optimise
from dreamwright.backend.prompts import PromptBank
from dreamwright.backend.rendering.shading import Shading
from dreamwright.shared import __version__


class Production:
    """One job under way. `events` runs it; `mesh` makes what there is so far into a mesh, at any time.

    Raises ModelError and PromptError while loading, CheckpointError for a state of another job.
    """

    def __init__(
        self, job: Job, device: torch.device | str, resume: RunState | None, should_stop: Callable[[], bool]
    ) -> None:
        if job.config.run.threads:
            torch.set_num_threads(job.config.run.threads)
        self.job = job
        denoiser = PixelDiffusion.load(resolve_model(job.model), device=device)
        bank = PromptBank(denoiser, job.prompt, job.config.guidance)
        self.warnings = bank.warnings
        denoiser.free_text_encoder()
        guidance = ScoreDistillation(denoiser, job.config.guidance)
        self.run: Run = optimise(job.config, guidance, bank, resume, should_stop, device)

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.run.distiller.step

    def events(self) -> Iterator[Event]:
        """Optimise; see `optimization.Run`."""
        return iter(self.run)

    def mesh(self) -> tuple[Mesh, MeshReport]:
        """The field's surface with its colours. Raises RunError when there is none yet."""
        distiller = self.run.distiller

        def albedo(cameras: Cameras) -> tuple[Tensor, Tensor]:
            seen = distiller.view(cameras, [Shading()] * len(cameras), 64, backdrop=1.0)
            return seen.image, seen.opacity

        with torch.no_grad():
            distiller.field.begin_step(distiller.progress)
            views = FieldViews(orbit_cameras([0, 90, 180, 270], 20.0, 1.9, 1.5), albedo)
            return build_mesh(distiller.field, self.job.config.mesh, views)

    def provenance(self) -> Mapping[str, Any]:
        """What a mesh's file says about where it came from."""
        return {
            "prompt": self.job.prompt,
            "model": self.job.model,
            "preset": self.job.preset,
            "seed": self.run.distiller.seed,
            "steps": self.step,
            "negative_prompt": self.job.config.guidance.negative_prompt,
            "dreamwright": __version__,
        }
