# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user asked for, validated once and then frozen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from ..config.parsing import validate
from ..config.presets import get_preset, preset_config
from ..config.recipes.recipe import Family
from ..config.schema import METHOD_SCENE, Config
from ..config.setting import SceneKind
from ..config.usage import check_settings_used, identity_settings
from ..models.fingerprint import model_fingerprint
from ..models.local import resolve_model
from ..models.lora_choice import lora_digests
from ..text.prompts import clean_prompt
from .methods import check_model, check_used


@dataclass(frozen=True)
class Job:
    """One prompt with everything that decides its result.

    model: a name or a folder, as given. family: the model's, whose recipe the preset means; None where the settings
    are all that is known. model_digest: of the model's files (`identify_model`), "" before they are
    looked at. initial_field, input_mesh: SHA-256 of the field or the mesh that the run starts from, "" without one.
    loras: SHA-256 and weight of each file of `model.loras` (`identify_model`), () before they are looked at.
    surface_model: digest of the files of `surface.model` (`identify_model`), "" without one.
    """

    prompt: str
    model: str
    preset: str
    config: Config
    model_digest: str = ""
    initial_field: str = ""
    input_mesh: str = ""
    family: Family | None = None
    loras: tuple[str, ...] = ()
    surface_model: str = ""

    @property
    def recipe(self) -> str:
        """The preset with the family of its recipe, such as "latent/draft"."""
        return get_preset(self.preset, self.family).path if self.family else self.preset

    @property
    def scene(self) -> SceneKind:
        """What is optimized."""
        return "mesh" if self.input_mesh else METHOD_SCENE[self.config.run.method]

    @property
    def has_surface_model(self) -> bool:
        """Whether a model of its own guides the stage after the field."""
        return self.scene == "field" and bool(self.config.surface.steps and self.config.surface.model)

    def fingerprint(self) -> str:
        """SHA-256 of what a resumed run must share with the one that it continues.

        `identity_settings` leaves out what changes reports, memory and rounding only, so a run that ran out of memory
        can be resumed with settings that take less. Models and LoRAs count by the contents of their files, not by
        their names.
        """
        settings = identity_settings(self.config, self.scene, initial_field=bool(self.initial_field))
        if self.loras:
            settings["model"].pop("loras")
        if self.surface_model:
            settings["surface"].pop("model")
        decided: dict[str, object] = {
            "prompt": self.prompt,
            "model": self.model_digest or self.model,
            "scene": self.scene,
            "settings": settings,
            "initial_field": self.initial_field,
            "input_mesh": self.input_mesh,
        }
        if self.loras:
            decided["loras"] = self.loras
        if self.surface_model:
            decided["surface_model"] = self.surface_model
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def make_job(
    prompt: str, model: str, preset: str, config: Config, input_mesh: str = "", family: Family | None = None
) -> Job:
    """A valid job. Raises PromptError, and ConfigError also for settings that this kind of run does not read."""
    if input_mesh:
        check_settings_used(config, "mesh", own=preset_config(preset, True, family or "starter"))
    else:
        check_used(config, preset, family)
    return Job(clean_prompt(prompt), model, preset, validate(config), input_mesh=input_mesh, family=family)


def identify_model(job: Job) -> Job:
    """The job with the digests of its model's files and of its LoRAs, which are read once and then remembered.

    Raises ModelError for a model that is not there, incomplete, or of a kind that cannot guide the job's method, and
    for LoRAs that are not there or do not fit it; ConfigError for a LoRA's weight that is none.
    """
    folder = resolve_model(job.model)
    check_model(job.config.run.method, job.model, folder)
    loras: tuple[str, ...] = ()
    if job.config.model.loras.strip():
        from ..models.lora_files import open_loras  # imports diffusers, which a job without LoRAs need not
        from ..models.pipeline_folder import open_pipeline

        open_loras(job.config.model.loras, open_pipeline(folder))
        loras = lora_digests(job.config.model.loras)
    surface_model = model_fingerprint(resolve_model(job.config.surface.model)) if job.has_surface_model else ""
    return replace(job, model_digest=model_fingerprint(folder), loras=loras, surface_model=surface_model)
