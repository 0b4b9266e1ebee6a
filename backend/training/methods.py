# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways to make a prop: which presets and which kind of model each takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ..config.presets import PRESETS, get_preset
from ..config.schema import Config
from ..errors import ConfigError, ModelError
from ..models.registry import MODELS, STARTER, STARTER_CLIP, Kind
from ..models.required_files import is_clip_folder


@dataclass(frozen=True)
class Method:
    """A name of `run.method`, what it is run with when nothing else is asked for, and the kind of model that guides it."""

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
# Of the settings, those that mean something to clip-mesh, which has no field, no diffusion and no grid; "*": a whole section.
# It leaves a negative prompt out and says so, as dream-fields does.
OF_CLIP_MESH: Mapping[str, Sequence[str]] = {
    "run": ("method", "steps", "views_per_step", "seed", "checkpoint_interval", "preview_interval", "threads", "views_at_once"),
    "camera": ("*",),
    "light": ("*",),
    "shading": ("*",),
    "render": ("resolution",),
    "guidance": ("view_dependent", "overhead_elevation", "view_words", "textureless_words", "negative_prompt"),
    "clip": ("*",),
    "model": ("dtype",),
    "mesh": ("height_m",),
    "refine": (
        "reach", "color_reach", "stiffness", "color_stiffness", "position_rate", "color_rate", "laplacian", "edges", "crease", "supersampling",
    ),
    "sphere": ("*",),
}  # fmt: skip
WHAT = {"diffusion": "a text-to-image pipeline", "image-text": "a CLIP model"}


def get_method(name: str) -> Method:
    """The method of that name. Raises ConfigError listing the known ones."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; allowed are {', '.join(METHODS)}; choose one with --method")
    return METHODS[name]


def preset_of(method: str | None, preset: str | None) -> str:
    """The preset to run: the one asked for, else the method's own. Raises ConfigError when the two do not fit."""
    if preset is None:
        return get_method(method or "dreamfusion").preset
    own = get_preset(preset).config.run.method
    if method is not None and get_method(method).name != own:
        fitting = ", ".join(p.name for p in PRESETS.values() if p.config.run.method == method)
        raise ConfigError(
            f"the preset {preset!r} is one of {own}; allowed with {method} are {fitting}; choose one with --preset"
        )
    return preset


def uses(method: str, name: str) -> bool:
    """Whether the setting "section.name" means something to the method, as far as methods are told apart by it."""
    section, _, key = name.partition(".")
    if method != "clip-mesh":
        return section != "sphere"
    known = OF_CLIP_MESH.get(section, ())
    return key in known or "*" in known


def check_used(config: Config) -> None:
    """Raise ConfigError for settings that differ from the method's own preset and mean nothing to it."""
    method = get_method(config.run.method)
    own = get_preset(method.preset).config
    for section in fields(Config):
        mine, theirs = getattr(config, section.name), getattr(own, section.name)
        for field in fields(mine):
            name = f"{section.name}.{field.name}"
            if getattr(mine, field.name) != getattr(theirs, field.name) and not uses(method.name, name):
                sections = ", ".join(
                    OF_CLIP_MESH
                    if method.name == "clip-mesh"
                    else (s.name for s in fields(Config) if s.name != "sphere")
                )
                raise ConfigError(
                    f"{name} means nothing to {method.name}; allowed are settings of {sections}, as docs/results/methods.md says; leave it out"
                )


def check_model(method: str, model: str, folder: Path) -> None:
    """Raise ModelError when the model of that name or path, in `folder`, is of a kind that cannot guide the method."""
    wanted = get_method(method).kind
    found: Kind = "image-text" if is_clip_folder(folder) else "diffusion"
    if found == wanted:
        return
    fitting = ", ".join(m.name for m in MODELS if m.kind == wanted)
    others = next(m.name for m in METHODS.values() if m.kind == found)
    raise ModelError(
        f"the model {model!r} is {WHAT[found]}, which cannot guide {method}; allowed are {fitting}, or a folder with "
        f"{WHAT[wanted]}; choose one with --model, or {others} with --method"
    )
