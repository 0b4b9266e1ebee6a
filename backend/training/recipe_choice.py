# SPDX-License-Identifier: GPL-3.0-or-later
"""Which recipe a preset means: by the family of the model's folder, of which the index alone is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..config.parsing import apply_settings
from ..config.presets import check_mesh_preset, get_preset, method_of
from ..config.recipes.recipe import FAMILY_TEXT, Family, Recipe
from ..config.schema import Config
from ..errors import ConfigError, ModelError
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

SURFACE_MODEL = "surface.model"
SURFACE_FAMILIES: tuple[Family, ...] = ("pixel", "latent", "sdxl", "flow")  # that guide single views


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


def recipe_config(recipe: Recipe, settings: Sequence[str]) -> Config:
    """The configuration of a recipe with settings "name=value".

    A `surface.model` among them brings the surface stage and the size of the texture of its own family's `fine`, which
    the other settings then change. Raises ConfigError as `apply_settings` and `surface_recipe` do, and ModelError.
    """
    config = recipe.config
    pairs = (setting.partition("=") for setting in settings)
    named = [value.strip() for name, _, value in pairs if name.strip() == SURFACE_MODEL]
    if named and named[-1]:
        second = surface_recipe(named[-1]).config
        texture = replace(config.mesh, texture=second.mesh.texture)
        config = replace(config, surface=second.surface, mesh=texture)
    return apply_settings(config, settings)


def surface_recipe(model: str) -> Recipe:
    """The recipe whose surface stage fits a second model, a name or a folder.

    Raises ModelError for a model that is not there, and ConfigError for one that cannot guide single views.
    """
    folder = resolve_model(model)
    check_model("dreamfusion", model, folder)
    family = family_of_folder(folder)
    if family not in SURFACE_FAMILIES:
        allowed = ", ".join(FAMILY_TEXT[name] for name in SURFACE_FAMILIES)
        raise ConfigError(
            f"surface.model {model!r} is one of {FAMILY_TEXT[family]}; allowed are {allowed}; choose one of those, or "
            "leave it out for the field's own model"
        )
    return get_preset("fine", family)
