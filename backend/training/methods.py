# SPDX-License-Identifier: GPL-3.0-or-later
"""The methods of `run.method`: the presets and the kind of model that each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config.parsing import GUIDANCE_SCALE, OMEGA
from ..config.presets import QUALITIES, get_preset, method_of
from ..config.recipes.recipe import Family
from ..config.schema import Config
from ..config.setting import setting_fields
from ..config.usage import check_settings_used, run_kind
from ..errors import ConfigError, ModelError
from ..models.model_files import is_clip_folder
from ..models.registry import MODELS, STARTER, STARTER_CLIP, Kind


@dataclass(frozen=True)
class Method:
    """A name of `run.method`, its default preset and model, and the kind of model that guides it."""

    name: str
    summary: str
    preset: str
    model: str
    kind: Kind


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("dreamfusion", "a diffusion model's score guides", "draft", STARTER, "diffusion"),
        Method("dream-fields", "CLIP's cosine guides", "dream-fields", STARTER_CLIP, "image-text"),
        Method("clip-mesh", "CLIP's cosine guides a mesh instead of a field", "clip-mesh", STARTER_CLIP, "image-text"),
    )
}
KIND_TEXT: Mapping[Kind, str] = {"diffusion": "a text-to-image pipeline", "image-text": "a CLIP model"}


def get_method(name: str) -> Method:
    """The method of that name. Raises ConfigError listing the known ones."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; allowed are {', '.join(METHODS)}; choose one with --method")
    return METHODS[name]


def preset_of(method: str | None, preset: str | None) -> str:
    """The preset to run: the one asked for, else the method's own. Raises ConfigError when the two do not fit."""
    if preset is None:
        return get_method(method or "dreamfusion").preset
    own = method_of(preset)
    if method is not None and get_method(method).name != own:
        fitting = ", ".join(presets_of(method))
        raise ConfigError(
            f"the preset {preset!r} is one of {own}; allowed with {method} are {fitting}; choose one with --preset"
        )
    return preset


def presets_of(method: str) -> tuple[str, ...]:
    """The names of the presets of a method, in the order of the help."""
    return tuple(name for name in QUALITIES if method_of(name) == method)


def uses(method: str, name: str) -> bool:
    """Whether the setting "section.key" means something to the method. Raises ConfigError for an unknown method."""
    found = setting_fields(Config).get(OMEGA if name == GUIDANCE_SCALE else name)
    return found is not None and found.applies_to(*run_kind(get_preset(get_method(method).preset).config))


def check_used(config: Config, preset: str = "", family: Family | None = None) -> None:
    """Raise ConfigError for a preset of another method, and for settings that mean nothing to the method.

    The latter are those that differ from the preset of the model's `family`, or from the method's own preset.
    """
    method = get_method(config.run.method)
    if preset.rpartition("/")[2] in QUALITIES and method_of(preset) != method.name:
        raise ConfigError(
            f"run.method is {method.name!r} and the preset {preset!r} is one of {method_of(preset)}; "
            f"allowed with {method.name} are the presets {', '.join(presets_of(method.name))}; choose one of them"
        )
    own = get_preset(preset, family) if family else get_preset(method.preset)
    check_settings_used(config, own=own.config)


def check_model(method: str, model: str, folder: Path) -> None:
    """Raise ModelError when the model of that name or path, in `folder`, is of a kind that cannot guide the method."""
    wanted = get_method(method).kind
    found: Kind = "image-text" if is_clip_folder(folder) else "diffusion"
    if found == wanted:
        return
    fitting = ", ".join(m.name for m in MODELS if m.kind == wanted)
    others = next(m.name for m in METHODS.values() if m.kind == found)
    raise ModelError(
        f"the model {model!r} is {KIND_TEXT[found]}, which cannot guide {method}; allowed are {fitting}, or a folder "
        f"with {KIND_TEXT[wanted]}; choose one with --model, or {others} with --method"
    )
