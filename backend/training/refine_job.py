# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody asked to be refined, validated once and then frozen; and the numbers it starts from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..config.parsing import config_to_mapping, validate
from ..config.presets import DRAFT
from ..config.schema import Config
from ..errors import ConfigError
from ..text.prompts import clean_prompt

if TYPE_CHECKING:
    from ..geometry.input_mesh import InputMesh

PRESET = "refine"
SECTIONS = ("run", "camera", "light", "shading", "background", "render", "guidance", "model", "text", "refine")
IN_SECTION: Mapping[str, Sequence[str]] = {  # of sections of which a refinement uses a part
    "run": ("steps", "views_per_step", "seed", "checkpoint_interval", "preview_interval", "threads"),
    "render": ("resolution",),
    "background": ("random_probability", "random_kind", "random_min", "random_max", "random_any_share"),
}
OF_MEMORY = (
    "dtype",
    "offload",
    "attention_slicing",
    "vae_tiling",
    "vae_recompute",
)  # of `model`: they change roundings only
# Cameras, lights, backgrounds and guidance as where the starter makes props; a few hundred steps, since little has to change.
REFINE = replace(
    DRAFT,
    run=replace(DRAFT.run, steps=300, views_per_step=1, checkpoint_interval=50, preview_interval=20),
    shading=replace(DRAFT.shading, albedo_only_share=0.0),
)


@dataclass(frozen=True)
class RefineJob:
    """One mesh and one prompt with everything that decides the result; `mesh` is the mesh's SHA-256."""

    prompt: str
    model: str
    config: Config
    mesh: str
    preset: str = PRESET

    def fingerprint(self) -> str:
        """Hash of what a resumed refinement must share with the one that it continues."""
        settings = config_to_mapping(self.config)
        told = {name: settings[name] for name in SECTIONS if name != "text"}
        for name in ("checkpoint_interval", "preview_interval", "threads"):
            told["run"].pop(name)
        for name in OF_MEMORY:
            told["model"].pop(name)
        return hashlib.sha256(
            json.dumps([PRESET, self.prompt, self.model, self.mesh, told], sort_keys=True).encode()
        ).hexdigest()


def make_refine_job(prompt: str, model: str, config: Config, subject: InputMesh) -> RefineJob:
    """A valid job; see `refine_job`."""
    return refine_job(prompt, model, config, subject.digest())


def refine_job(prompt: str, model: str, config: Config, mesh: str) -> RefineJob:
    """A valid job on the mesh of this SHA-256. Raises PromptError, and ConfigError also for settings that a refinement has no use for."""
    asked, known = config_to_mapping(validate(config)), config_to_mapping(REFINE)
    for section, values in asked.items():
        used = IN_SECTION.get(section, tuple(values)) if section in SECTIONS else ()
        ignored = [
            f"{section}.{name}" for name, value in values.items() if name not in used and value != known[section][name]
        ]
        if ignored:
            raise ConfigError(
                f"{ignored[0]} means nothing when a mesh is refined; allowed are {', '.join(SECTIONS)} as docs/user/refine-mesh.md lists; leave it out"
            )
    return RefineJob(clean_prompt(prompt), model, config, mesh)
