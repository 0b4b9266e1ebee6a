# SPDX-License-Identifier: GPL-3.0-or-later
"""Which recipe a preset means: by the family of the model's folder, of which the index alone is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..config.presets import check_mesh_preset, get_preset, method_of
from ..config.recipes.recipe import Family, Recipe
from ..errors import ModelError
from ..models.families import FamilyName
from ..models.json_files import read_object
from ..models.local import resolve_model
from ..models.model_files import INDEX, family_of, is_clip_folder
from ..models.vocabulary_file import VOCABULARY_FILE
from .methods import check_model

# Models of several views on pixels are the starter's kind; diffusers has no class for them.
OF_PIPELINE: Mapping[FamilyName, Family] = {
    "pixel": "pixel",
    "multi-view": "starter",
    "multi-view-latent": "multi-view",
    "latent": "latent",
    "sdxl": "sdxl",
    "flow": "flow",
}


def family_of_folder(folder: Path) -> Family:
    """The family whose recipes fit the model in a folder. A pixel model that states its words is the starter's kind.

    Raises ModelError for a folder without a model_index.json, and for a pipeline that is not supported.
    """
    if is_clip_folder(folder):
        return "clip"
    if not (folder / INDEX).is_file():
        raise ModelError(
            f"{folder} has no {INDEX}, so it is no diffusers pipeline; give the folder that holds that file"
        )
    pipeline = family_of(read_object(folder / INDEX), str(folder))
    if pipeline.works_on_pixels and (folder / VOCABULARY_FILE).is_file():
        return "starter"
    return OF_PIPELINE[pipeline.name]


def choose_recipe(preset: str, model: str, has_mesh: bool = False) -> Recipe:
    """The recipe that `preset` means for a model, a name or a folder. `has_mesh`: whether a mesh is refined.

    Raises ConfigError as `preset_config` does, and ModelError for a model that is not there or cannot guide the method.
    """
    method = "dreamfusion" if has_mesh else method_of(preset)
    folder = resolve_model(model)
    check_model(method, model, folder)
    family = family_of_folder(folder)
    check_mesh_preset(preset, has_mesh)
    return get_preset(preset, family)
