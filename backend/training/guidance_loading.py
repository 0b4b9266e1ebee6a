# SPDX-License-Identifier: GPL-3.0-or-later
"""The guidance of a job: its prompts encoded, then its model loaded, by method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from dreamwright.shared.numbers import number_text

from ..config.schema import Config, GuidanceConfig
from ..guidance.clip_guidance import ClipGuidance
from ..guidance.clip_model import load_image_text
from ..guidance.denoisers.base import DiffusersDenoiser
from ..guidance.denoisers.loading import load_denoiser
from ..guidance.interfaces import Guidance, ScoreEstimate
from ..guidance.sds import ScoreDistillation
from ..models.lora_files import Lora, open_loras
from ..models.lora_targets import check_lora
from ..models.memory_estimate import check_memory
from ..models.pipeline_folder import PipelineFolder
from ..runtime.distributed import ProcessGroup
from ..scenes.derived_config import guidance_for, surface_guidance
from ..text.conditioning import TextEncoder
from ..text.encoder_process import PipelinePromptEncoder, make_text_encoder
from ..text.prompts import PromptEmbeddings
from .job import Job
from .model_swap import OneAtATime, SwappedGuidance


@dataclass(frozen=True)
class LoadedGuidance:
    """A guidance, the embeddings that it compares with, lines for the user, and the line of what memory it needs."""

    guidance: Guidance
    prompts: PromptEmbeddings
    notices: tuple[str, ...]
    surface: Guidance | None = None  # of the stage after the field, where there is one
    surface_prompts: PromptEmbeddings | None = None  # of that stage's own model, where it has one
    needs: tuple[str, ...] = ()


def load_diffusion_guidance(
    job: Job,
    folder: PipelineFolder,
    dtype: torch.dtype,
    device: torch.device | str,
    group: ProcessGroup,
    should_stop: Callable[[], bool],
    check_stop: Callable[[], None],
    within_memory: AbstractContextManager[None],
    surface_folder: PipelineFolder | None = None,
    begin_with_surface: bool = False,
) -> LoadedGuidance:
    """Score distillation of a diffusion model. The text encoders are freed before the network is loaded.

    `check_stop` may end the loading by StoppedError between its parts. surface_folder: of another model, for the stage
    after the field. It is loaded once before the field's, so that a fault in it shows before the first step; a run that
    continues in that stage (`begin_with_surface`) loads it alone. Raises ModelError, PromptError, StoppedError and
    InsufficientMemoryError.
    """
    config, needs = job.config, tuple[str, ...]()
    guidance = config.guidance
    loras = open_loras(config.model.loras, folder)
    if job.scene == "field":
        needs = (check_memory(folder, config, dtype, device, surface_folder),)
    else:
        guidance = guidance_for(guidance, config.refine.strength)
    notices: tuple[str, ...] = (f"guidance: {_guidance_text(guidance)}",)
    check_rule(folder, config)

    def embedded(folder: PipelineFolder, loras: tuple[Lora, ...]) -> tuple[TextEncoder, PromptEmbeddings]:
        encoder = make_text_encoder(folder, device, dtype, config.text, should_stop, loras=loras)
        with _main_first(group):
            prompts = PromptEmbeddings(PipelinePromptEncoder(encoder, device), job.prompt, config.guidance)
        encoder.free()
        check_stop()
        return encoder, prompts

    encoder, prompts = embedded(folder, loras)
    if surface_folder is not None:
        surface_encoder, surface_prompts = embedded(surface_folder, ())
        turn, own = OneAtATime(), config.for_surface_model.model

        def load_surface() -> Guidance:
            denoiser = load_denoiser(surface_folder.path, device, dtype, config=own, text=surface_encoder)
            return ScoreDistillation(denoiser, surface_guidance(config))

        def load_field() -> Guidance:
            denoiser = load_denoiser(folder.path, device, dtype, config=config.model, text=encoder)
            return ScoreDistillation(denoiser, guidance)

        field, second = SwappedGuidance(load_field, turn), SwappedGuidance(load_surface, turn)
        with within_memory:
            for swapped in (second,) if begin_with_surface else (second, field):
                swapped.loaded()
                check_stop()
        notices += (f"the second stage by {config.surface.model}: {_guidance_text(surface_guidance(config))}",)
        return LoadedGuidance(field, prompts, notices, second, surface_prompts, needs)
    with within_memory:
        denoiser = load_denoiser(folder.path, device, dtype, config=config.model, text=encoder)
        estimate = score_estimate(denoiser, guidance)
    surface = ScoreDistillation(denoiser, surface_guidance(config), estimate) if config.surface.steps else None
    return LoadedGuidance(ScoreDistillation(denoiser, guidance, estimate), prompts, notices, surface, None, needs)


def check_rule(folder: PipelineFolder, config: Config) -> None:
    """Raise ConfigError where the rule of distillation cannot be followed with this model, from its files' headers."""
    if config.guidance.rule == "vsd":
        check_lora(folder, config.guidance.lora_rank)


def score_estimate(denoiser: DiffusersDenoiser, guidance: GuidanceConfig) -> ScoreEstimate | None:
    """The estimate of the renders' score that the rule "vsd" needs, in the denoiser's network; None for other rules."""
    if guidance.rule != "vsd":
        return None
    from ..guidance.lora_estimate import LoraEstimate  # peft takes a second to import

    return LoraEstimate(denoiser, guidance)


def load_clip_guidance(
    job: Job, folder: Path, dtype: torch.dtype, device: torch.device | str, within_memory: AbstractContextManager[None]
) -> LoadedGuidance:
    """CLIP's cosine. Raises ModelError and PromptError."""
    config = job.config
    with within_memory:
        model = load_image_text(folder, device, dtype)
    notices = [f"guidance: minus CLIP's cosine over {config.clip.crops} crops a view of {model.image_size} pixels"]
    if config.guidance.negative_prompt.strip():
        notices.append(f"{config.run.method} has no use for a negative prompt; it is left out")
    prompts = PromptEmbeddings(model, job.prompt, config.guidance)
    return LoadedGuidance(ClipGuidance(model, config.clip), prompts, tuple(notices))


def _guidance_text(guidance: GuidanceConfig) -> str:
    """The rule, both names of the weight of classifier-free guidance, and the noise times."""
    end = f"{guidance.t_max_end:.3g}"
    if guidance.t_min_end:
        end = f"{guidance.t_min_end:.3g} to {end}"
    return (
        f"{guidance.rule}, omega {number_text(guidance.omega)} in (1 + omega) eps_c - omega eps_u, which is diffusers' "
        f"guidance_scale {number_text(1 + guidance.omega)}; t {guidance.t_min:.3g} to {guidance.t_max:.3g}, "
        f"at the end {end}"
    )


@contextmanager
def _main_first(group: ProcessGroup) -> Iterator[None]:
    """The main process first, so that the others of its machine find the embeddings in the cache."""
    if not group.is_main:
        group.all_reduce_max(0)
    yield
    if group.is_main:
        group.all_reduce_max(0)
