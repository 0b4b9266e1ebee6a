# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody asked to be refined, validated once and then frozen; and the numbers it starts from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config.parsing import validate
from ..config.presets import REFINE, REFINE_PRESET
from ..config.schema import Config
from ..config.usage import check_settings_used, identity_settings
from ..text.prompts import clean_prompt

if TYPE_CHECKING:
    from ..geometry.input_mesh import InputMesh


@dataclass(frozen=True)
class RefineJob:
    """One mesh and one prompt with everything that decides the result; `mesh` is the mesh's SHA-256."""

    prompt: str
    model: str
    config: Config
    mesh: str
    preset: str = REFINE_PRESET

    def fingerprint(self) -> str:
        """Hash of what a resumed refinement must share with the one that it continues."""
        settings = identity_settings(self.config, "mesh")
        decided = [REFINE_PRESET, self.prompt, self.model, self.mesh, settings]
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def make_refine_job(prompt: str, model: str, config: Config, subject: InputMesh) -> RefineJob:
    """A valid job; see `refine_job`."""
    return refine_job(prompt, model, config, subject.digest())


def refine_job(prompt: str, model: str, config: Config, mesh: str) -> RefineJob:
    """A valid job on the mesh of this SHA-256.

    Raises PromptError, and ConfigError also for settings that the refinement of a mesh does not read.
    """
    check_settings_used(validate(config), "mesh", own=REFINE)
    return RefineJob(clean_prompt(prompt), model, config, mesh)
