# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the wire and the backend: what this server offers, and a submitted job as a validated one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreamwright.shared.capabilities import Capabilities, ModelInfo, PresetInfo, SettingRange, SettingInfo
from dreamwright.shared.messages import JobSummary, SubmitJob

from ..config.parsing import BOUNDS, apply_settings
from ..config.presets import PRESETS, Preset, get_preset
from ..config.schema import Config
from ..errors import ModelError, PromptError
from ..models.json_object import read_object
from ..models.local import ModelStatus, local_models, registered_model, resolve_model
from ..models.registry import BY_NAME
from ..models.required_files import INDEX, family_of, is_clip_folder, parts_of
from ..text.vocabulary import read_vocabulary, unknown_message, unknown_words
from ..training.job import Job, make_job
from ..training.methods import check_model
from ..training.refine_job import PRESET as REFINE_PRESET
from ..training.refine_job import REFINE, RefineJob
from .policy import Policy, stated_bounds
from .workers.refine_executor import refine_job_of

# Settings that the panel offers as controls, with a label and a tip; every other one can be sent by name too.
OFFERED: Mapping[str, tuple[str, str]] = {
    "run.steps": ("Steps", "Optimization steps: more give more detail and take longer"),
    "run.views_per_step": ("Views per Step", "Pictures rendered and judged in one step"),
    "guidance.omega": (
        "Guidance Weight",
        "How strictly the prompt is followed: omega in (1 + omega) eps_c - omega eps_u",
    ),
    "guidance.view_dependent": ("View Words", "Tell the model which side it is looking at"),
    "run.finetune_share": (
        "Keep when Refining",
        "Share of the steps that a prop skips which begins from another one's field: more keeps more of that",
    ),
    "render.samples": ("Samples per Ray", "Points along a ray: more resolve thinner parts"),
    "mesh.resolution": ("Mesh Grid", "Cells a side of the grid that the surface is taken from"),
    "mesh.triangles": ("Triangles", "Largest number of triangles of the finished mesh"),
    "mesh.height_m": ("Height", "Height of the finished prop in metres"),
}
# The same of what is offered for a mesh that is sent to be refined, under the preset "refine".
OFFERED_FOR_A_MESH: Mapping[str, tuple[str, str]] = {
    "refine.strength": (
        "Strength",
        "How far vertices and colors may go: 0 changes nothing, 1 moves a vertex by up to half the mesh's radius",
    ),
    "refine.positions": ("Shape", "Move the vertices"),
    "refine.colors": ("Colors", "Change the vertices' colors"),
}


DEVICES_TOLD = 64  # to the panel, which only shows them; a cluster may have more


def capabilities(devices: tuple[str, ...], policy: Policy = Policy()) -> Capabilities:
    """Everything that the panel needs to draw itself."""
    return Capabilities(
        models=tuple(_model_card(info) for info in local_models()),
        presets=tuple(PresetInfo(p.name, p.summary, p.config.run.steps) for p in _presets(devices)),
        settings=tuple(_setting_card(name) for name in (*OFFERED, *OFFERED_FOR_A_MESH)),
        devices=devices[:DEVICES_TOLD],
        bounds=stated_bounds(policy),
        setting_bounds=tuple(SettingRange(name, float(low), float(high)) for name, (low, high) in BOUNDS.items()),
    )


def _presets(devices: tuple[str, ...]) -> list[Preset]:
    """Every preset, first the one that suits these devices: it is what a stranger's first press of Generate runs."""
    first = "draft" if set(devices) <= {"cpu"} else "standard"
    return sorted(PRESETS.values(), key=lambda preset: preset.name != first)


def _model_card(info: ModelStatus) -> ModelInfo:
    known, missing = {}, "" if info.folder is not None else info.how_to_get
    if info.folder is not None:
        try:
            known = read_vocabulary(info.folder) or {}
        except ModelError as error:
            missing = str(error)
    return ModelInfo(
        name=info.name,
        summary=info.summary,
        ready=not missing,
        missing=missing,
        examples=tuple(known.get("examples", ()))[:20],
        vocabulary=tuple(known.get("words", ()))[:500],
    )


def _value(config: Config, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


def _setting_card(name: str) -> SettingInfo:
    label, tip = {**OFFERED, **OFFERED_FOR_A_MESH}[name]
    default = _value(Config(), name)
    kind = "switch" if isinstance(default, bool) else "integer" if isinstance(default, int) else "number"
    low, high = BOUNDS.get(name, (0.0, 1.0))
    of_a_prop = {preset.name: _value(preset.config, name) for preset in PRESETS.values()} if name in OFFERED else {}
    of_a_mesh = {REFINE_PRESET: _value(REFINE, name)} if name in OFFERED_FOR_A_MESH or name == "run.steps" else {}
    defaults = {**of_a_prop, **of_a_mesh}
    return SettingInfo(name, label, tip, kind, float(low), float(high), (), defaults)


def job_of(asked: SubmitJob | JobSummary) -> Job | RefineJob:
    """The validated job that was asked for. Raises PromptError, ConfigError and ModelError."""
    if asked.mesh:
        return refine_job_of(asked)
    config = apply_settings(get_preset(asked.preset).config, [f"{k}={v}" for k, v in asked.settings.items()])
    config = replace(config, run=replace(config.run, seed=asked.seed))
    config = replace(config, guidance=replace(config.guidance, negative_prompt=asked.negative))
    return make_job(asked.prompt, asked.model, asked.preset, config)


def check_submission(request: SubmitJob, folders: bool = True) -> Job | RefineJob:
    """The job, when this server can make it.

    Raises the errors of `job_of`, PromptError for unknown words, ConfigError for a texture without xatlas.
    Without `folders` a model is named, not pointed at: no guest may learn or have read what lies where on this disk.
    """
    job = job_of(request)
    if not folders and (registered_model(job.model) is None or ("/" in job.model and Path(job.model).exists())):
        names = ", ".join(BY_NAME)
        raise ModelError(
            f"the model {job.model!r} is no model's name; allowed are {names}, or owner/name of a model of the hub that the "
            "server has; only its admins may name a folder"
        )
    folder = resolve_model(job.model)
    if not (folder / INDEX).is_file() and not is_clip_folder(folder):
        raise ModelError(
            f"the model {job.model!r} is a folder without {INDEX}; give a diffusers pipeline folder or one of {', '.join(BY_NAME)}"
        )
    check_model(job.config.run.method, job.model, folder)
    known = read_vocabulary(folder)
    if known is not None:
        unknown = unknown_words(f"{job.prompt} {job.config.guidance.negative_prompt}", known)
        if unknown:
            raise PromptError(unknown_message(unknown, known))
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
