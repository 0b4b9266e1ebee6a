# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user asked for, validated once and then frozen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from ..config.parsing import validate
from ..config.presets import preset_config
from ..config.recipes.starter import REFINE
from ..config.schema import METHOD_SCENE, Config
from ..config.setting import SceneKind
from ..config.usage import check_settings_used, identity_settings
from ..models.fingerprint import model_fingerprint
from ..models.local import resolve_model
from ..text.prompts import clean_prompt
from .methods import check_model, check_used


@dataclass(frozen=True)
class Job:
    """One prompt with everything that decides its result.

    model: a name or a folder, as given. model_digest: of the model's files (`identify_model`), "" before they are
    looked at. initial_field, input_mesh: SHA-256 of the field or the mesh that the run starts from, "" without one.
    """

    prompt: str
    model: str
    preset: str
    config: Config
    model_digest: str = ""
    initial_field: str = ""
    input_mesh: str = ""

    @property
    def scene(self) -> SceneKind:
        """What is optimized."""
        return "mesh" if self.input_mesh else METHOD_SCENE[self.config.run.method]

    def fingerprint(self) -> str:
        """SHA-256 of what a resumed run must share with the one that it continues.

        `identity_settings` leaves out what changes reports, memory and rounding only, so a run that ran out of memory
        can be resumed with settings that take less. A model counts by the contents of its files, not by its name.
        """
        decided = {
            "prompt": self.prompt,
            "model": self.model_digest or self.model,
            "scene": self.scene,
            "settings": identity_settings(self.config, self.scene, initial_field=bool(self.initial_field)),
            "initial_field": self.initial_field,
            "input_mesh": self.input_mesh,
        }
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def make_job(prompt: str, model: str, preset: str, config: Config, input_mesh: str = "") -> Job:
    """A valid job. Raises PromptError, and ConfigError also for settings that this kind of run does not read."""
    if input_mesh:
        preset_config(preset, has_mesh=True)
        check_settings_used(config, "mesh", own=REFINE)
    else:
        check_used(config, preset)
    return Job(clean_prompt(prompt), model, preset, validate(config), input_mesh=input_mesh)


def identify_model(job: Job) -> Job:
    """The job with the digest of its model's files, of which weights are read once and then remembered.

    Raises ModelError for a model that is not there, incomplete, or of a kind that cannot guide the job's method.
    """
    folder = resolve_model(job.model)
    check_model(job.config.run.method, job.model, folder)
    return replace(job, model_digest=model_fingerprint(folder))
