# SPDX-License-Identifier: GPL-3.0-or-later
"""From a job to a mesh: encode the prompt, load the model, optimize a scene, extract. Commands and workers run it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from dreamwright.shared import __version__

from ..config.presets import get_preset
from ..config.schema import METHOD_GUIDANCE, RunConfig
from ..errors import CheckpointError, ConfigError, OutOfMemoryError, StoppedError, is_out_of_memory, one_line
from ..geometry.build import Mesh, MeshReport
from ..geometry.input_mesh import InputMesh
from ..geometry.unwrap import check_unwrapper
from ..guidance.denoisers.loading import chosen_dtype
from ..guidance.interfaces import learner_of
from ..models.local import resolve_model
from ..models.memory_estimate import reduce_memory
from ..models.pipeline_folder import PipelineFolder, open_pipeline
from ..runtime.distributed import ProcessGroup, SingleProcess
from ..scenes.initial_field import InitialField
from ..scenes.interfaces import RunState, Scene
from ..scenes.mesh_scene import MeshScene
from ..scenes.sphere_scene import SphereScene
from .events import Event
from .field_training import field_factory
from .guidance_loading import LoadedGuidance, load_clip_guidance, load_diffusion_guidance
from .job import Job
from .methods import check_model
from .recipe_choice import surface_recipe
from .time_estimate import estimate_time
from .trainer import Trainer

LOADING, OPTIMIZING = ("while loading the model", "start again"), ("while optimizing", "continue with --resume")
DETAILS = re.compile(r" \([^)]*\)|, by .*")  # of the lines of memory, its parts, and of time, what it is from
FEWER_SAMPLES = {
    "field": "fewer render.samples",
    "mesh": "a smaller render.resolution or refine.supersampling",
    "sphere": "a smaller render.resolution or refine.supersampling",
}


class TextTo3DPipeline:
    """One job under way. `events` runs it; `mesh` makes the scene as it is into a mesh, at any time.

    `initial_field`: the field that a field scene starts from. `input_mesh`: the mesh of a job that refines one.
    `is_watched`: whether live meshes are wanted, see `Trainer`.
    `notices` and `warnings` are lines for the user; `needs` are the notices of memory and time, short for a panel.
    Raises ModelError and PromptError while loading, ConfigError for what the scene cannot do, for a run that cannot fit
    into memory and for a texture without xatlas, OutOfMemoryError when it did not fit, StoppedError, and
    CheckpointError for a state of another job.
    """

    def __init__(
        self,
        job: Job,
        device: torch.device | str,
        resume: RunState | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        group: ProcessGroup | None = None,
        initial_field: InitialField | None = None,
        input_mesh: InputMesh | None = None,
        is_watched: Callable[[], bool] = lambda: False,
    ) -> None:
        self.job, self._device = job, device
        group = group or SingleProcess()
        _check_inputs(job, group, initial_field, input_mesh)
        if job.config.run.threads:
            torch.set_num_threads(job.config.run.threads)
        if job.scene == "field" and job.config.mesh.texture:
            check_unwrapper()  # at the start, not at the end of a long run

        def check_stop() -> None:
            # Before the first step there is nothing to keep, and a network takes long to load.
            if resume is None and group.world_size == 1 and should_stop():
                raise StoppedError("stopped before the first step")

        self._dtype = chosen_dtype(job.config.model, device)
        self._folder: PipelineFolder | None = None
        self._surface_folder: PipelineFolder | None = None
        in_surface = resume is not None and resume.step >= job.config.run.steps
        loaded = self._load_guidance(group, should_stop, check_stop, in_surface)
        make_scene = self._scene_factory(loaded, group, initial_field, input_mesh)

        def make_trainer(run: RunConfig, resume: RunState | None) -> Trainer:
            with self._within_memory(*LOADING):
                return Trainer(make_scene, run, resume, should_stop, group=group, is_watched=is_watched)

        self._make_trainer = make_trainer
        self.trainer = make_trainer(job.config.run, resume)
        check_stop()
        recipe = (get_preset(job.preset, job.family).notice,) if job.family else ()
        needs = (*loaded.needs, *self._time_needed(group.world_size))
        self.needs = tuple(DETAILS.sub("", line) for line in needs)
        self.notices = (*recipe, *self.scene.notices, *loaded.notices, *needs)
        prompts = (loaded.prompts, *([loaded.surface_prompts] if loaded.surface_prompts is not None else []))
        self.warnings = (*(warning for bank in prompts for warning in bank.warnings), *self.scene.warnings)

    def _load_guidance(
        self, group: ProcessGroup, should_stop: Callable[[], bool], check_stop: Callable[[], None], in_surface: bool
    ) -> LoadedGuidance:
        job, loading = self.job, self._within_memory(*LOADING)
        path = resolve_model(job.model)
        check_model(job.config.run.method, job.model, path)
        if METHOD_GUIDANCE[job.config.run.method] == "image-text":
            return load_clip_guidance(job, path, self._dtype, self._device, loading)
        self._folder = open_pipeline(path)
        if job.has_surface_model:
            surface_recipe(job.config.surface.model)  # refuses a model that cannot guide the stage
            self._surface_folder = open_pipeline(resolve_model(job.config.surface.model))
        return load_diffusion_guidance(
            job, self._folder, self._dtype, self._device, group, should_stop, check_stop, loading,
            self._surface_folder, in_surface,
        )  # fmt: skip

    def _time_needed(self, processes: int) -> tuple[str, ...]:
        """The line of what time the run needs, none for a run of few steps."""
        vertices = len(self.scene.input_mesh.vertices) if isinstance(self.scene, MeshScene) else 0
        folder = resolve_model(self.job.model)
        estimate = estimate_time(self.job, folder, self._dtype, self._device, self.step, vertices, processes)
        return () if estimate is None else (str(estimate),)

    def _scene_factory(
        self,
        loaded: LoadedGuidance,
        group: ProcessGroup,
        initial_field: InitialField | None,
        input_mesh: InputMesh | None,
    ) -> Callable[[int], Scene]:
        """Makes the job's scene of a seed."""
        config, device = self.job.config, self._device
        make_field = field_factory(
            config, loaded.guidance, loaded.prompts, device, group, initial_field, loaded.surface,
            loaded.surface_prompts,
        )  # fmt: skip

        def make_scene(seed: int) -> Scene:
            learner = learner_of(loaded.guidance)
            if learner is not None:
                learner.reset(seed)
            if input_mesh is not None:
                return MeshScene(config, loaded.guidance, loaded.prompts, input_mesh, seed, device)
            if self.job.scene == "sphere":
                return SphereScene(config, loaded.guidance, loaded.prompts, seed, device)
            return make_field(seed)

        return make_scene

    def with_seed(self, seed: int, resume: RunState | None = None) -> TextTo3DPipeline:
        """The same job with another seed, which shares the loaded model; only one of the two may run at a time.

        Raises as the constructor does for its scene.
        """
        other = copy.copy(self)
        config = self.job.config
        other.job = replace(self.job, config=replace(config, run=replace(config.run, seed=seed)))
        other.trainer = self._make_trainer(other.job.config.run, resume)
        return other

    @property
    def scene(self) -> Scene:
        """The scene in use; a restart replaces it."""
        return self.trainer.scene

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.scene.step

    @property
    def is_done(self) -> bool:
        """Whether no step is left to take."""
        return self.scene.is_done

    def state(self) -> RunState:
        """The state from which an equal pipeline continues."""
        return self.trainer.state()

    def events(self) -> Iterator[Event]:
        """Optimize; see `Trainer`. Raises OutOfMemoryError, after a last checkpoint, with the settings to lower."""
        with self._within_memory(*OPTIMIZING):
            yield from self.trainer

    def mesh(
        self, progress: Callable[[float], None] = lambda share: None, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Mesh, MeshReport]:
        """See `Scene.to_mesh`."""
        return self.scene.to_mesh(progress, should_stop)

    def provenance(self) -> Mapping[str, Any]:
        """The facts of a mesh's origin that its file carries."""
        guidance = self.job.config.guidance
        return {
            "prompt": self.job.prompt,
            "method": self.job.config.run.method,
            "model": self.job.model,
            **({"loras": list(self.job.loras)} if self.job.loras else {}),
            **({"surface_model": self.job.config.surface.model} if self.job.has_surface_model else {}),
            "preset": self.job.preset,
            "recipe": self.job.recipe,
            "seed": self.scene.seed,
            **self.scene.provenance(),
            **({"refined_sha256": self.job.input_mesh} if self.job.input_mesh else {}),
            "steps": self.step,
            "negative_prompt": guidance.negative_prompt,
            "omega": guidance.omega,
            "guidance_scale": 1 + guidance.omega,
            "dreamwright": __version__,
        }

    @contextmanager
    def _within_memory(self, when: str, then: str) -> Iterator[None]:
        """Turn errors about memory into one line with the settings that a resumed run may lower."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            known = isinstance(error, OutOfMemoryError)
            what = one_line(error) if known else f"out of memory {when} ({one_line(error)})"
        else:
            return
        # Outside the handler, so that nothing holds the failed step's tensors.
        raise OutOfMemoryError(f"{what}; {then}, and {self._memory_advice()}")

    def _memory_advice(self) -> str:
        advice = (
            "free some memory first, as no setting that a resumed run may change helps much, or start afresh with "
            f"{FEWER_SAMPLES[self.job.scene]} or a smaller model"
        )
        if self.job.config.splits_further:
            advice = "set run.views_at_once=1"
        if self._folder is None:  # a CLIP's own share is small
            return advice
        return reduce_memory(
            self._folder,
            self.job.config,
            self._dtype,
            self._device,
            otherwise=advice,
            surface_folder=self._surface_folder,
        )


def _check_inputs(
    job: Job, group: ProcessGroup, initial_field: InitialField | None, input_mesh: InputMesh | None
) -> None:
    """Raise for inputs that the job's scene has no use for, or lacks."""
    what = job.config.run.method if job.scene == "sphere" else "the refinement of a mesh"
    if initial_field is not None and job.scene != "field":
        start = "a sphere" if job.scene == "sphere" else "the given mesh"
        raise CheckpointError(
            f"{what} begins from {start}, not from another run's field; leave --from out, or choose another --method"
        )
    if group.world_size > 1 and job.scene != "field":
        raise ConfigError(f"{what} runs in one process, not in {group.world_size}; start it without torchrun")
    if (input_mesh is not None) != bool(job.input_mesh):
        raise ConfigError("the job and its mesh do not belong together; make the job with the mesh's digest")
