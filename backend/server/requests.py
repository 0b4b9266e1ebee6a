# SPDX-License-Identifier: GPL-3.0-or-later
"""What this server offers to clients, and requests as validated jobs."""

from __future__ import annotations

from dataclasses import replace

from dreamwright.shared.capabilities import Capabilities, PresetInfo
from dreamwright.shared.messages import JobSummary, SubmitJob

from ..config.presets import PRESETS
from ..config.recipes.recipe import Recipe
from ..errors import ModelError
from ..models.json_files import read_object
from ..models.local import is_offered, resolve_model
from ..models.lora_base import read_base, read_lora_file
from ..models.lora_choice import find_lora, offered_loras, parse_loras
from ..models.model_files import INDEX, family_of, is_clip_folder, parts_of
from ..models.registry import BY_NAME
from ..models.vocabulary_file import read_vocabulary
from ..text.vocabulary import check_words
from ..training.job import Job, make_job
from ..training.recipe_choice import SURFACE_MODEL, choose_recipe, recipe_config
from .offered_models import model_infos, models_free_bytes
from .offered_settings import recipe_infos, setting_infos, setting_ranges
from .policy import Policy, stated_bounds
from .workers.worker_protocol import RunJob

MAX_DEVICES = 64  # in the capabilities, where they are only shown; a cluster may have more


def capabilities(devices: tuple[str, ...], policy: Policy = Policy(), may_manage_models: bool = False) -> Capabilities:
    """Models, presets, settings and limits: everything that a client needs to draw its panel.

    `may_manage_models`: whether they are for a user who may download models to this machine.
    """
    return Capabilities(
        models=model_infos(may_manage_models),
        presets=tuple(PresetInfo(p.name, p.summary, p.config.total_steps) for p in _presets(devices)),
        recipes=recipe_infos(),
        settings=setting_infos(),
        devices=devices[:MAX_DEVICES],
        loras=offered_loras(),
        bounds=stated_bounds(policy),
        setting_bounds=setting_ranges(),
        models_free_bytes=models_free_bytes() if may_manage_models else 0,
    )


def _presets(devices: tuple[str, ...]) -> list[Recipe]:
    """Every preset, the default for these devices first."""
    first = "draft" if set(devices) <= {"cpu"} else "standard"
    return sorted(PRESETS.values(), key=lambda preset: preset.name != first)


def job_of(request: SubmitJob | JobSummary | RunJob) -> Job:
    """The validated job of a request. Raises PromptError, ConfigError, and ModelError for a model that is not there."""
    recipe = choose_recipe(request.preset, request.model, bool(request.mesh))
    config = recipe_config(recipe, [f"{name}={value}" for name, value in request.settings.items()])
    config = replace(config, run=replace(config.run, seed=request.seed))
    if request.negative:  # else the recipe's own
        config = replace(config, guidance=replace(config.guidance, negative_prompt=request.negative))
    return make_job(request.prompt, request.model, request.preset, config, request.mesh, recipe.family)


def check_submission(request: SubmitJob, folders: bool = True) -> Job:
    """The validated job of a request that this server can run.

    `folders`: whether models and LoRAs may be paths. Other users may only name them, so that they learn nothing about
    the server's disk. Raises the errors of `job_of`, ModelError, also for a LoRA of another base, PromptError for
    unknown words, and ConfigError for a texture without xatlas.
    """
    model = request.model
    if not folders:
        # Names of settings are stripped when they are applied, so they are here.
        others = [str(value).strip() for name, value in request.settings.items() if name.strip() == SURFACE_MODEL]
        for name in (model, *filter(None, others)):
            _check_named(name)
    folder = resolve_model(model)
    if not (folder / INDEX).is_file() and not is_clip_folder(folder):
        raise ModelError(
            f"the model {model!r} is a folder without {INDEX}; allowed are a diffusers pipeline folder and "
            f"{', '.join(BY_NAME)}; choose one of them"
        )
    job = job_of(request)
    for lora, _ in parse_loras(job.config.model.loras):
        # The whole check needs diffusers, which takes seconds to import: the worker does it.
        read_lora_file(find_lora(lora, names_only=not folders), read_base(folder, model), lora)
    vocabulary = read_vocabulary(folder)
    for prompt in (job.prompt, job.config.guidance.negative_prompt):
        check_words(prompt, vocabulary)
    if job.config.mesh.texture:
        from ..geometry.unwrap import check_unwrapper  # imports scipy, which only this needs

        check_unwrapper()
    return job


def _check_named(model: str) -> None:
    """Raise ModelError for a model that this machine does not offer by name: paths are the admins' alone.

    Every name that is neither registered nor here gets one answer, so that nobody learns what is on the disk.
    """
    if model in BY_NAME or is_offered(model):
        return
    raise ModelError(
        f"the model {model!r} is none that this server has; allowed are {', '.join(BY_NAME)}, owner/name of a model of "
        "the hub that the server has, or the name of one that was imported there; only its admins may name a folder"
    )


def has_vae(model: str) -> bool:
    """Whether a model works on latents, read from its index alone. Raises ModelError."""
    folder = resolve_model(model)
    index = read_object(folder / INDEX)
    return "vae" in parts_of(family_of(index, str(folder)), index)
