# SPDX-License-Identifier: GPL-3.0-or-later
"""From text and JSON to a valid `Config`: typed, bounded, unknown keys refused."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dreamwright.shared.limits import TEXTURE_LARGEST, TEXTURE_SMALLEST

from ..errors import ConfigError
from .schema import Config

# Allowed range of every number, inclusive, by "section.name"; pairs that must be in order follow below.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "run.steps": (1, 1_000_000),
    "run.views_per_step": (1, 64),
    "run.seed": (0, 2**31 - 1),
    "run.checkpoint_interval": (1, 1_000_000),
    "run.preview_interval": (1, 1_000_000),
    "run.max_restarts": (0, 10),
    "run.threads": (0, 1024),
    "run.views_at_once": (0, 64),
    "run.refine_share": (0, 0.99),
    "camera.elevation_min": (-90, 90),
    "camera.elevation_max": (-90, 90),
    "camera.uniform_angle_share": (0, 1),
    "camera.distance_min": (0.1, 100),
    "camera.distance_max": (0.1, 100),
    "camera.focal_min": (0.1, 100),
    "camera.focal_max": (0.1, 100),
    "camera.fill_min": (0.05, 5),
    "camera.fill_max": (0.05, 5),
    "camera.look_at_std": (0, 10),
    "camera.up_std": (0, 10),
    "camera.position_offset": (0, 10),
    "light.direction_std": (0, 100),
    "light.distance_min": (0.01, 100),
    "light.distance_max": (0.01, 100),
    "shading.albedo_only_share": (0, 1),
    "shading.shaded_probability": (0, 1),
    "shading.textureless_probability": (0, 1),
    "shading.ambient": (0, 1),
    "shading.ambient_max": (0, 1),
    "shading.diffuse": (0, 10),
    "field.bounding_radius": (0.05, 100),
    "field.density_bias_scale": (-1000, 1000),
    "field.density_bias_width": (1e-3, 100),
    "field.density_bias_fade_share": (0, 1),
    "field.encoding_levels": (1, 16),
    "field.covariance_start": (0, 10),
    "field.covariance_end": (0, 10),
    "field.covariance_share": (0, 1),
    "field.hidden_width": (4, 1024),
    "field.hidden_blocks": (1, 32),
    "field.voxel_resolutions": (4, 256),
    "field.density_scale": (1e-3, 1e4),
    "background.encoding_levels": (0, 16),
    "background.hidden_width": (4, 1024),
    "background.random_probability": (0, 1),
    "background.random_min": (0, 1),
    "background.random_max": (0, 1),
    "background.random_any_share": (0, 1),
    "render.resolution": (8, 512),
    "render.coarse_resolution": (0, 512),
    "render.coarse_share": (0, 1),
    "render.samples": (4, 2048),
    "render.occupancy_resolution": (0, 256),
    "render.occupancy_threshold": (0, 1),
    "render.occupancy_interval": (1, 1_000_000),
    "render.early_stop_transmittance": (0, 1),
    "guidance.omega": (0, 1000),
    "guidance.t_min": (0, 1),
    "guidance.t_max": (0, 1),
    "guidance.t_max_end": (0, 1),
    "guidance.overhead_elevation": (-90, 90),
    "guidance.gradient_clip": (0, 1e9),
    "guidance.opposite_weight": (0, 100),
    "clip.crops": (1, 64),
    "clip.crop_share": (0.1, 1),
    "model.image_size": (0, 4096),
    "regularizers.orientation_start": (0, 1e6),
    "regularizers.orientation_end": (0, 1e6),
    "regularizers.orientation_share": (0, 1),
    "regularizers.opacity_start": (0, 1e6),
    "regularizers.opacity_end": (0, 1e6),
    "regularizers.opacity_share": (0, 1),
    "regularizers.entropy_end": (0, 1e6),
    "regularizers.smoothness": (0, 1e9),
    "regularizers.transmittance": (0, 1e6),
    "regularizers.target_opacity_start": (1e-3, 1),
    "regularizers.target_opacity_end": (1e-3, 1),
    "regularizers.target_opacity_share": (0, 1),
    "optimizer.learning_rate": (0, 10),
    "optimizer.color_rate_multiplier": (0, 1000),
    "optimizer.background_rate_multiplier": (0, 1000),
    "optimizer.warmup_start": (0, 10),
    "optimizer.warmup_share": (0, 1),
    "optimizer.final_rate": (0, 10),
    "optimizer.beta1": (0, 0.99999),
    "optimizer.beta2": (0, 0.99999),
    "optimizer.epsilon": (1e-20, 1),
    "optimizer.block_size": (8, 4096),
    "optimizer.exponent_override": (1, 16),
    "mesh.resolution": (16, 512),
    "mesh.triangles": (16, 5_000_000),
    "mesh.threshold": (0, 1e6),
    "mesh.closing": (0, 0.5),
    "mesh.smoothing": (0, 200),
    "mesh.height_m": (1e-3, 1e4),
    "mesh.texture": (0, TEXTURE_LARGEST),
    "refine.strength": (0, 1),
    "refine.reach": (1e-3, 1),
    "refine.color_reach": (1e-3, 1),
    "refine.stiffness": (0, 1e4),
    "refine.color_stiffness": (0, 1e4),
    "refine.position_rate": (0, 1),
    "refine.color_rate": (0, 1),
    "refine.laplacian": (0, 1e9),
    "refine.edges": (0, 1e9),
    "refine.crease": (0, 180),
    "refine.supersampling": (1, 8),
    "sphere.subdivisions": (1, 6),
    "sphere.radius": (0.05, 0.5),
    "sphere.patchiness": (0, 1),
    "sphere.patch_stiffness": (0, 1e4),
    "sphere.clay_share": (0, 1),
    "sphere.laplacian_end": (0, 1e9),
    "sphere.laplacian_share": (0, 1),
    "sphere.normals": (0, 1e9),
    "sphere.outside": (0, 1e9),
}
# diffusers' name for the weight of classifier-free guidance; 1 + omega.
OMEGA, GUIDANCE_SCALE = "guidance.omega", "guidance.guidance_scale"
ORDERED: tuple[tuple[str, str], ...] = (
    ("camera.elevation_min", "camera.elevation_max"),
    ("camera.distance_min", "camera.distance_max"),
    ("camera.focal_min", "camera.focal_max"),
    ("camera.fill_min", "camera.fill_max"),
    ("light.distance_min", "light.distance_max"),
    ("background.random_min", "background.random_max"),
    ("guidance.t_min", "guidance.t_max"),
    ("guidance.t_min", "guidance.t_max_end"),
)


def setting_names() -> list[str]:
    """Every "section.name" that can be set."""
    sections = dataclasses.fields(Config)
    return [f"{s.name}.{f.name}" for s in sections for f in dataclasses.fields(getattr(Config(), s.name))]


def config_to_mapping(config: Config) -> dict[str, dict[str, Any]]:
    """Nested plain values, ready for JSON."""
    return {
        name: {key: list(value) if isinstance(value, tuple) else value for key, value in section.items()}
        for name, section in dataclasses.asdict(config).items()
    }


def config_from_mapping(mapping: Mapping[str, Mapping[str, Any]], base: Config = Config()) -> Config:
    """`base` with the values of a nested mapping. Raises ConfigError for unknown keys, wrong types and bounds."""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"the settings are {mapping!r}; allowed are groups of settings by name; write section.name")
    given: list[tuple[str, Any]] = []
    for section, values in mapping.items():
        if not isinstance(values, Mapping):
            raise ConfigError(f"setting {section!r} is {values!r}; allowed is a group of settings; write section.name")
        given += [(f"{section}.{name}", value) for name, value in values.items()]
    return _with_all(base, given)


def apply_settings(config: Config, settings: Iterable[str]) -> Config:
    """`config` with settings written as section.name=value. Raises ConfigError as `config_from_mapping` does."""
    given: list[tuple[str, Any]] = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(
                f"setting {setting!r} has no '='; allowed is section.name=value, for example run.steps=400"
            )
        given.append((name.strip(), text.strip()))
    return _with_all(config, given)


def _with_all(config: Config, given: Sequence[tuple[str, Any]]) -> Config:
    """`config` with all values, later ones over earlier ones, validated."""
    for name, value in _omega_for_scale(given):
        config = _replaced(config, name, value)
    return validate(config)


def _omega_for_scale(given: Sequence[tuple[str, Any]]) -> Sequence[tuple[str, Any]]:
    """The same values with omega = guidance_scale - 1 for diffusers' name of it. Raises ConfigError for a contradiction."""
    if not any(name == GUIDANCE_SCALE for name, _ in given):
        return given
    low, high = (1 + bound for bound in BOUNDS[OMEGA])
    said: list[tuple[str, float]] = []  # omega, and the name that it was given by
    changed: list[tuple[str, Any]] = []
    for name, value in given:
        if name == GUIDANCE_SCALE:
            scale = _typed(name, float, value)
            if not low <= scale <= high:
                raise ConfigError(
                    f"{name} is {scale:g}; allowed is {low:g} to {high:g}, it is 1 + omega; change it with --set {name}=..."
                )
            said.append((name, scale - 1))
            changed.append((OMEGA, scale - 1))
        else:
            changed.append((name, value))
            if name == OMEGA:
                said.append((name, _typed(name, float, value)))
    last = dict(said)
    if len(last) == 2 and not math.isclose(last[OMEGA], last[GUIDANCE_SCALE], abs_tol=1e-9):
        raise ConfigError(
            f"{OMEGA} is {last[OMEGA]:g} and {GUIDANCE_SCALE} {last[GUIDANCE_SCALE] + 1:g}; the second is 1 + the first, so "
            f"allowed with it is {OMEGA}={last[GUIDANCE_SCALE]:g}; give one of them"
        )
    return changed


def validate(config: Config) -> Config:
    """The configuration itself, when every number is inside its bounds. Raises ConfigError naming the first that is not."""
    for name, (low, high) in BOUNDS.items():
        value = _value(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or any(not math.isfinite(n) or not low <= n <= high for n in numbers):
            raise ConfigError(f"{name} is {value}; allowed is {low:g} to {high:g}; change it with --set {name}=...")
    if 0 < config.mesh.texture < TEXTURE_SMALLEST:
        raise ConfigError(
            f"mesh.texture is {config.mesh.texture}; allowed are {TEXTURE_SMALLEST} to {TEXTURE_LARGEST} texels a side, or 0 for "
            "vertex colors; change it with --texture or --set mesh.texture=..."
        )
    for lower, upper in ORDERED:
        if _value(config, lower) > _value(config, upper):
            raise ConfigError(
                f"{lower} is {_value(config, lower):g} and {upper} is {_value(config, upper):g}; "
                f"allowed is {lower} <= {upper}; change one of them"
            )
    return config


def _value(config: Config, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


def _replaced(config: Config, name: str, value: Any) -> Config:
    section, _, key = name.partition(".")
    holder = getattr(config, section, None) if section in {f.name for f in dataclasses.fields(Config)} else None
    hints = typing.get_type_hints(type(holder)) if holder is not None else {}
    if key not in hints:
        known = [*setting_names(), GUIDANCE_SCALE]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = (
            f"did you mean {', '.join(close)}?"
            if close
            else f"the sections are {', '.join(f.name for f in dataclasses.fields(Config))}"
        )
        raise ConfigError(f"unknown setting {name!r}; {hint}")
    return dataclasses.replace(
        config, **{section: dataclasses.replace(holder, **{key: _typed(name, hints[key], value)})}
    )


def _typed(name: str, hint: Any, value: Any) -> Any:
    """`value` (text or JSON) as the field's type. Raises ConfigError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{name} is {value!r}; allowed are {', '.join(map(str, arguments))}; choose one")
    if origin is tuple:
        if not isinstance(value, (str, list, tuple)):
            raise ConfigError(f"{name} is {value!r}; allowed are whole numbers; write for example --set {name}=16,32")
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_typed(name, arguments[0], item) for item in items)
    if isinstance(hint, types.UnionType):
        hint = arguments[0]
    if hint is str:
        if not isinstance(value, str):
            raise ConfigError(f"{name} is {value!r}; allowed is text; write it in quotes")
        return value
    if hint is bool:
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool) or str(value).lower() in truth:
            return value if isinstance(value, bool) else truth[str(value).lower()]
        raise ConfigError(f"{name} is {value!r}; allowed are true and false; choose one")
    try:
        if isinstance(value, bool):  # Python's True is a number, but nobody who writes it means one
            raise TypeError
        number = float(value)
        if hint is int and not number.is_integer():
            raise ValueError
        return int(number) if hint is int else number
    except (TypeError, ValueError, OverflowError) as error:
        kind = "a whole number" if hint is int else "a number"
        raise ConfigError(f"{name} is {value!r}; allowed is {kind}; write for example --set {name}=1") from error
