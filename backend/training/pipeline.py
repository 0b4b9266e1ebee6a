# SPDX-License-Identifier: GPL-3.0-or-later
"""From a job to a mesh: encode, load, optimize, extract. The command line and the server's workers both run this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamwright.shared import __version__

from ..cameras.poses import Cameras, orbit_cameras
from ..errors import CheckpointError, ConfigError, OutOfMemoryError, StoppedError, is_out_of_memory, one_line
from ..geometry.build import Mesh, MeshReport, build_mesh
from ..geometry.compare import FieldViews
from ..geometry.unwrap import check_unwrapper
from ..guidance.clip_guidance import ClipGuidance
from ..guidance.clip_model import load_image_text
from ..guidance.denoisers.loading import chosen_dtype, load_denoiser
from ..guidance.interfaces import Guidance
from ..guidance.sds import ScoreDistillation
from ..models.local import resolve_model
from ..models.memory_estimate import check_memory, lowering
from ..models.pipeline_folder import open_pipeline
from ..rendering.shading import Shading
from ..runtime.distributed import ProcessGroup, SingleProcess
from ..scenes.initial_field import InitialField
from ..scenes.sphere_scene import SphereScene, sphere_subject
from ..text.encoder_process import PipelinePromptEncoder, make_text_encoder
from ..text.prompts import PromptEmbeddings
from .events import Event, RunState
from .job import Job
from .methods import check_model
from .refine_trainer import Refinement
from .trainer import Run, optimize


class TextTo3DPipeline:
    """One job under way. `events` runs it; `mesh` makes what there is so far into a mesh, at any time.

    The prompts are encoded and the encoders gone before the network is loaded. `notices` holds what a person may like to
    know, `warnings` what they should. Raises ModelError and PromptError while loading, ConfigError when the run cannot
    fit into memory or a texture lacks xatlas, OutOfMemoryError when it did not, StoppedError, and CheckpointError for a state of another job.
    """

    def __init__(
        self,
        job: Job,
        device: torch.device | str,
        resume: RunState | None,
        should_stop: Callable[[], bool],
        ranks: ProcessGroup = SingleProcess(),
        origin: InitialField | None = None,
    ) -> None:
        if job.config.run.threads:
            torch.set_num_threads(job.config.run.threads)
        self.job, self._device, config = job, device, job.config
        if config.mesh.texture:
            check_unwrapper()  # not only at the end of a long run
        self._dtype, self._folder = chosen_dtype(config.model, device), None
        folder = resolve_model(job.model)
        check_model(config.run.method, job.model, folder)

        def give_way() -> None:
            # Nothing was done yet, and a network is what takes long to load.
            if resume is None and ranks.count == 1 and should_stop():
                raise StoppedError("stopped before the first step")

        if config.run.method == "clip-mesh":
            _check_alone(ranks, origin)
        if config.run.method in ("dream-fields", "clip-mesh"):
            guidance, bank = self._with_clip(folder)
        else:
            guidance, bank = self._with_diffusion(folder, should_stop, ranks, give_way)
        with self._within_memory("while loading the model", "start again"):
            self.run: Run | Refinement
            if config.run.method == "clip-mesh":
                subject = sphere_subject(config.sphere, config.run.seed if resume is None else resume.seed)
                self.notices += (f"a sphere of {len(subject.vertices)} vertices, {len(subject.faces)} triangles",)
                self.run = Refinement(config, guidance, bank, subject, resume, should_stop, device, kind=SphereScene)
            else:
                self.run = optimize(config, guidance, bank, resume, should_stop, device, ranks=ranks, origin=origin)
        give_way()
        self.warnings = (*bank.warnings, *self.run.warnings)

    def _with_diffusion(
        self, path: Path, should_stop: Callable[[], bool], ranks: ProcessGroup, give_way: Callable[[], None]
    ) -> tuple[Guidance, PromptEmbeddings]:
        config, device = self.job.config, self._device
        self._folder = open_pipeline(path)
        memory = check_memory(self._folder, config, self._dtype, device)
        self.notices = (memory, f"guidance: {_cfg(config.guidance.omega)}")
        text = make_text_encoder(self._folder, device, self._dtype, config.text, should_stop)
        with _main_first(ranks):
            bank = PromptEmbeddings(PipelinePromptEncoder(text, device), self.job.prompt, config.guidance)
        text.free()
        give_way()
        with self._within_memory("while loading the model", "start again"):
            denoiser = load_denoiser(path, device, self._dtype, config=config.model, text=text)
        return ScoreDistillation(denoiser, config.guidance), bank

    def _with_clip(self, path: Path) -> tuple[Guidance, PromptEmbeddings]:
        config = self.job.config
        with self._within_memory("while loading the model", "start again"):
            model = load_image_text(path, self._device, self._dtype)
        self.notices = (
            f"guidance: minus CLIP's cosine over {config.clip.crops} crops a view of {model.image_size} pixels",
        )
        if config.guidance.negative_prompt.strip():
            self.notices += (f"{config.run.method} has no use for a negative prompt; it is left out",)
        return ClipGuidance(model, config.clip), PromptEmbeddings(model, self.job.prompt, config.guidance)

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.run.step

    def events(self) -> Iterator[Event]:
        """Optimize; see `optimization.Run`. Raises OutOfMemoryError, after a last checkpoint, saying what to lower."""
        with self._within_memory("while optimizing", "continue with --resume"):
            yield from self.run

    @contextmanager
    def _within_memory(self, when: str, then: str) -> Iterator[None]:
        """Errors about memory become one line with the settings that a resumed run may lower."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            what = one_line(error) if isinstance(error, OutOfMemoryError) else f"out of memory {when} ({one_line(error)})"
            run = self.job.config.run
            fewer = "a smaller render.resolution" if run.method == "clip-mesh" else "fewer render.samples"
            nothing = (
                f"free some memory first, as no setting that a resumed run may change helps much, or start afresh with {fewer} "
                "or a smaller model"
            )
            if run.views_per_step > 1 and run.views_at_once != 1:
                nothing = "set run.views_at_once=1"
            if self._folder is None:  # a CLIP's own share is small
                advice = nothing
            else:
                advice = lowering(self._folder, self.job.config, self._dtype, self._device, otherwise=nothing)
        else:
            return
        # Outside the handler, so that nothing holds the failed step's tensors.
        raise OutOfMemoryError(f"{what}; {then}, and {advice}")

    def mesh(
        self, progress: Callable[[float], None] = lambda share: None, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Mesh, MeshReport]:
        """The field's surface with its colors, and its texture unless told to stop; or the mesh that is optimized itself.

        Raises RunError when there is none yet.

        `progress` hears the share of the texture that is baked.
        """
        if isinstance(self.run, Refinement):
            return self.run.scene.prop(self.job.config.mesh.height_m)
        scene = self.run.scene

        def albedo(cameras: Cameras) -> tuple[Tensor, Tensor]:
            seen = scene.view(cameras, [Shading()] * len(cameras), 64, backdrop=1.0)
            return seen.image, seen.opacity

        with torch.no_grad():
            scene.field.begin_step(scene.progress)
            views = FieldViews(orbit_cameras([0, 90, 180, 270], 20.0, 1.9, 1.5), albedo)
            try:
                return build_mesh(
                    scene.field, self.job.config.mesh, views, progress=progress, should_stop=should_stop
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise OutOfMemoryError(
                    f"out of memory while making the mesh of {self.job.config.mesh.resolution} cells a side; lower mesh.resolution "
                    "and continue with --resume: the checkpoint is kept"
                ) from error

    def provenance(self) -> Mapping[str, Any]:
        """What a mesh's file says about where it came from."""
        return {
            "prompt": self.job.prompt,
            "method": self.job.config.run.method,
            "model": self.job.model,
            "preset": self.job.preset,
            "seed": self.run.seed,
            **({"refined_from": self.run.origin.prompt} if self.run.origin is not None else {}),
            "steps": self.step,
            "negative_prompt": self.job.config.guidance.negative_prompt,
            "omega": self.job.config.guidance.omega,
            "guidance_scale": 1 + self.job.config.guidance.omega,
            "dreamwright": __version__,
        }


def _check_alone(ranks: ProcessGroup, origin: InitialField | None) -> None:
    """Raise for what clip-mesh cannot do: share its work, or begin from a field."""
    if origin is not None:
        raise CheckpointError(
            "clip-mesh begins from a sphere, not from another run's field; leave --from out, or choose another --method"
        )
    if ranks.count > 1:
        raise ConfigError(f"clip-mesh runs in one process, not in {ranks.count}; start it without torchrun")


def _cfg(omega: float) -> str:
    """Both names of the weight of classifier-free guidance."""
    return f"omega {omega:g} in (1 + omega) eps_c - omega eps_u, which is diffusers' guidance_scale {1 + omega:g}"


@contextmanager
def _main_first(ranks: ProcessGroup) -> Iterator[None]:
    """The main rank first, so that the others find in its cache what they need; a machine of their own encodes anew."""
    if not ranks.main:
        ranks.all_reduce_max(0)
    yield
    if ranks.main:
        ranks.all_reduce_max(0)
