# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the wire and the backend: what this server offers, and a submitted job as a validated one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dreamwright.shared.capabilities import Capabilities, ModelInfo, PresetInfo
from dreamwright.shared.messages import JobSummary, SubmitJob
from dreamwright.shared.prompt_words import PromptVocabulary

from ..config.parsing import apply_settings
from ..config.presets import PRESETS, Preset, preset_config
from ..errors import ModelError
from ..models.json_files import read_object
from ..models.local import ModelStatus, local_models, registered_model, resolve_model
from ..models.model_files import INDEX, family_of, is_clip_folder, parts_of
from ..models.registry import BY_NAME
from ..models.vocabulary_file import read_vocabulary
from ..text.vocabulary import check_words
from ..training.job import Job, make_job
from ..training.methods import check_model
from .offered_settings import setting_infos, setting_ranges
from .policy import Policy, stated_bounds
from .workers.worker_protocol import RunJob

MAX_DEVICES = 64  # to the panel, which only shows them; a cluster may have more


def capabilities(devices: tuple[str, ...], policy: Policy = Policy()) -> Capabilities:
    """Everything that the panel needs to draw itself."""
    return Capabilities(
        models=tuple(_model_card(info) for info in local_models()),
        presets=tuple(PresetInfo(p.name, p.summary, p.config.run.steps) for p in _presets(devices)),
        settings=setting_infos(),
        devices=devices[:MAX_DEVICES],
        bounds=stated_bounds(policy),
        setting_bounds=setting_ranges(),
    )


def _presets(devices: tuple[str, ...]) -> list[Preset]:
    """Every preset, first the one that suits these devices: it is what a stranger's first press of Generate runs."""
    first = "draft" if set(devices) <= {"cpu"} else "standard"
    return sorted(PRESETS.values(), key=lambda preset: preset.name != first)


def _model_card(info: ModelStatus) -> ModelInfo:
    known, missing = PromptVocabulary(), "" if info.folder is not None else info.how_to_get
    if info.folder is not None:
        try:
            known = read_vocabulary(info.folder)
        except ModelError as error:
            missing = str(error)
    return ModelInfo(
        name=info.name,
        summary=info.summary,
        ready=not missing,
        missing=missing,
        examples=known.examples[:20],
        vocabulary=known.words[:500],
        word_kinds=dict(known.kinds),
        synonyms=dict(known.synonyms),
    )


def job_of(asked: SubmitJob | JobSummary | RunJob) -> Job:
    """The validated job that was asked for. Raises PromptError, ConfigError and ModelError."""
    base = preset_config(asked.preset, has_mesh=bool(asked.mesh))
    config = apply_settings(base, [f"{name}={value}" for name, value in asked.settings.items()])
    config = replace(config, run=replace(config.run, seed=asked.seed))
    config = replace(config, guidance=replace(config.guidance, negative_prompt=asked.negative))
    return make_job(asked.prompt, asked.model, asked.preset, config, input_mesh=asked.mesh)


def check_submission(request: SubmitJob, folders: bool = True) -> Job:
    """The job, when this server can make it.

    Raises the errors of `job_of`, PromptError for unknown words, ConfigError for a texture without xatlas.
    Without `folders` a model is named, not pointed at: no guest may learn or have read what lies where on this disk.
    """
    job = job_of(request)
    if not folders and (registered_model(job.model) is None or ("/" in job.model and Path(job.model).exists())):
        names = ", ".join(BY_NAME)
        raise ModelError(
            f"the model {job.model!r} is no model's name; allowed are {names}, or owner/name of a model of the hub that "
            "the server has; only its admins may name a folder"
        )
    folder = resolve_model(job.model)
    if not (folder / INDEX).is_file() and not is_clip_folder(folder):
        raise ModelError(
            f"the model {job.model!r} is a folder without {INDEX}; give a diffusers pipeline folder or one of {', '.join(BY_NAME)}"
        )
    check_model(job.config.run.method, job.model, folder)
    vocabulary = read_vocabulary(folder)
    for prompt in (job.prompt, job.config.guidance.negative_prompt):
        check_words(prompt, vocabulary)
    if job.config.mesh.texture:
        from ..geometry.unwrap import (
            check_unwrapper,
        )  # with scipy, which the server needs for nothing else

        check_unwrapper()
    return job


def has_vae(model: str) -> bool:
    """Whether a model works on latents, by its index alone: no weight and no library of networks is loaded. Raises ModelError."""
    folder = resolve_model(model)
    index = read_object(folder / INDEX)
    return "vae" in parts_of(family_of(index, str(folder)), index)
