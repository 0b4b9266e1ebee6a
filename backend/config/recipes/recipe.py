# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recipe is: a configuration for one family of models, each of its numbers with the place that it is from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..parsing import config_from_mapping
from ..schema import Config

Family = Literal["starter", "pixel", "latent", "sdxl", "flow", "multi-view", "clip"]

FAMILY_TEXT: Mapping[Family, str] = {
    "starter": "the starter",
    "pixel": "pixel models (IFPipeline)",
    "latent": "latent models (StableDiffusionPipeline)",
    "sdxl": "SDXL models (StableDiffusionXLPipeline)",
    "flow": "flow models (StableDiffusion3Pipeline)",
    "multi-view": "multi-view models (MVDreamPipeline)",
    "clip": "image-text models (CLIP)",
}


@dataclass(frozen=True)
class Source:
    """A published configuration: its short name, as notices give it, and its address at one commit."""

    name: str
    url: str


@dataclass(frozen=True)
class Sourced:
    """A setting "section.key" of a recipe, its value in our units, and what is published in that place."""

    setting: str
    value: Any
    published: str
    source: Source


@dataclass(frozen=True)
class Recipe:
    """A quality of one family.

    basis: what the numbers are from, in a few words. numbers: what differs from the base that the recipe starts from,
    which is the paper's configuration, or the starter's for the refinement of a mesh. left_out: published numbers that
    have no counterpart here.
    """

    family: Family
    name: str
    summary: str
    config: Config
    basis: str
    numbers: tuple[Sourced, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The name that no other family's recipe has."""
        return f"{self.family}/{self.name}"

    @property
    def notice(self) -> str:
        """One line for the user: which recipe runs."""
        return f"recipe: {self.name} for {FAMILY_TEXT[self.family]}: {self.basis}"


def published_recipe(
    family: Family,
    name: str,
    summary: str,
    numbers: tuple[Sourced, ...],
    left_out: tuple[str, ...] = (),
    base: Config = Config(),
) -> Recipe:
    """The recipe of `base` with these numbers; its basis names their sources.

    Raises ConfigError for an unknown setting, and ValueError for one that is given twice.
    """
    sections: dict[str, dict[str, Any]] = {}
    for number in numbers:
        section, _, key = number.setting.partition(".")
        values = sections.setdefault(section, {})
        if key in values:
            raise ValueError(f"{family}/{name} has {number.setting} twice")
        values[key] = number.value
    basis = " and ".join(dict.fromkeys(number.source.name for number in numbers))
    return Recipe(family, name, summary, config_from_mapping(sections, base), basis, numbers, left_out)


def changed(numbers: tuple[Sourced, ...], *others: Sourced) -> tuple[Sourced, ...]:
    """`numbers` with `others` in place of those of the same settings, or added."""
    replaced = {other.setting for other in others}
    return (*(number for number in numbers if number.setting not in replaced), *others)
