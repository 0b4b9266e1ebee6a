# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets: a quality (`draft`, `standard`, `fine`, `paper`, or one of CLIP's), whose recipe is the model's family's.

A preset is named by its quality alone, or as family/quality, which is refused with a model of another family.
docs/method.md lists where the starter's `paper` differs from the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..errors import ConfigError
from .recipes import clip, flow, latent, multi_view, pixel, sdxl, starter
from .recipes.pixel import PAPER
from .recipes.recipe import FAMILY_TEXT, Family, Recipe
from .recipes.starter import REFINE_PRESET
from .schema import Config

__all__ = [
    "PAPER",
    "PRESETS",
    "QUALITIES",
    "RECIPES",
    "REFINE_PRESET",
    "check_mesh_preset",
    "get_preset",
    "method_of",
    "preset_config",
]


def _by_name(recipes: tuple[Recipe, ...]) -> Mapping[str, Recipe]:
    return MappingProxyType({recipe.name: recipe for recipe in recipes})


RECIPES: Mapping[Family, Mapping[str, Recipe]] = MappingProxyType({
    "starter": _by_name(starter.RECIPES),
    "pixel": _by_name(pixel.RECIPES),
    "latent": _by_name(latent.RECIPES),
    "sdxl": _by_name(sdxl.RECIPES),
    "flow": _by_name(flow.RECIPES),
    "multi-view": _by_name(multi_view.RECIPES),
    "clip": _by_name(clip.RECIPES),
})  # fmt: skip

# What the packaged models' presets mean, without the refinement of a mesh.
PRESETS: Mapping[str, Recipe] = MappingProxyType({
    name: recipe
    for family in (RECIPES["starter"], RECIPES["clip"])
    for name, recipe in family.items()
    if name != REFINE_PRESET
})  # fmt: skip

# Every name of a quality that makes a prop.
QUALITIES: tuple[str, ...] = tuple(
    dict.fromkeys(name for family in RECIPES.values() for name in family if name != REFINE_PRESET)
)


def get_preset(name: str, family: Family = "starter") -> Recipe:
    """The recipe of the preset `name` for models of `family`; presets of CLIP's methods are the same for all.

    Raises ConfigError for an unknown preset, for one that the family does not have, and for another family's.
    """
    given, quality = _split(name)
    own = RECIPES["clip"] if quality in RECIPES["clip"] else RECIPES[family]
    here = ", ".join(other for other in own if other != REFINE_PRESET)
    if given and (given not in RECIPES or quality not in RECIPES[given]):
        example = next(iter(own.values())).path
        raise ConfigError(f"unknown preset {name!r}; allowed are {here}, or with its family {example}; choose one")
    if quality not in own:
        if quality not in (*QUALITIES, REFINE_PRESET):
            raise ConfigError(f"unknown preset {name!r}; allowed are {here}; choose one with --preset")
        raise ConfigError(f"there is no preset {quality!r} for {FAMILY_TEXT[family]}; allowed are {here}; choose one")
    recipe = own[quality]
    if given and given != recipe.family:
        raise ConfigError(
            f"the preset {name!r} is for {FAMILY_TEXT[given]}, and the model is one of {FAMILY_TEXT[recipe.family]}; "
            f"allowed are {here}; choose {recipe.path}, which is {quality} for this model"
        )
    return recipe


def preset_config(name: str, has_mesh: bool = False, family: Family = "starter") -> Config:
    """The configuration of a preset for models of `family`. Raises ConfigError as `get_preset` and below."""
    check_mesh_preset(name, has_mesh)
    return get_preset(name, family).config


def check_mesh_preset(name: str, has_mesh: bool) -> None:
    """Raise ConfigError for a preset that cannot refine the mesh that there is, or that does nothing else."""
    is_refinement = _split(name)[1] == REFINE_PRESET
    if has_mesh and not is_refinement:
        raise ConfigError(
            f"the preset {name!r} makes props without a mesh; allowed for a mesh is {REFINE_PRESET!r}; choose that, or "
            "leave the mesh out"
        )
    if is_refinement and not has_mesh:
        raise ConfigError(f"unknown preset {name!r} without a mesh; allowed are {', '.join(QUALITIES)}; choose one")


def method_of(name: str) -> str:
    """The method that the preset is one of. Raises ConfigError for an unknown preset."""
    quality = _split(name)[1]
    if quality not in QUALITIES:
        raise ConfigError(f"unknown preset {name!r}; allowed are {', '.join(QUALITIES)}; choose one with --preset")
    return next(family[quality].config.run.method for family in RECIPES.values() if quality in family)


def _split(name: str) -> tuple[Family | None, str]:
    """The family that the name of a preset gives, None without one, and its quality."""
    family, slash, quality = name.rpartition("/")
    return (family if slash else None), quality  # type: ignore[return-value]
