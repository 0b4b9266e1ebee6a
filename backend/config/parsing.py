# SPDX-License-Identifier: GPL-3.0-or-later
"""From text and JSON to a valid `Config`: typed, bounded, unknown keys refused."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from dreamwright.shared.numbers import number_text

from ..errors import ConfigError
from .schema import Config, GuidanceConfig, OptimizerConfig
from .setting import Setting, setting_fields
from .usage import setting_value

C = TypeVar("C", bound=Config)

# diffusers' name for the weight of classifier-free guidance; 1 + omega.
OMEGA, GUIDANCE_SCALE = "guidance.omega", "guidance.guidance_scale"
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def setting_names(schema: type[Config] = Config) -> list[str]:
    """Every "section.key" that can be set."""
    return list(setting_fields(schema))


def setting_bounds(schema: type[Config] = Config) -> dict[str, tuple[float, float]]:
    """Smallest and largest allowed value of every number, by "section.key"."""
    return {name: found.bounds for name, found in setting_fields(schema).items() if found.bounds is not None}


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


def apply_settings(config: C, settings: Iterable[str]) -> C:
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


def validate(config: C) -> C:
    """The configuration itself.

    Raises ConfigError naming the first number outside of its bounds or order, and for views that fill no whole sets.
    """
    fields = setting_fields(type(config))
    for name, found in fields.items():
        found.check(setting_value(config, name))
    for name, found in fields.items():
        if not found.at_most:
            continue
        value, limit = setting_value(config, name), setting_value(config, found.at_most)
        if value > limit:
            raise ConfigError(
                f"{name} is {number_text(value)} and {found.at_most} is {number_text(limit)}; "
                f"allowed is {name} <= {found.at_most}; change one of them"
            )
    in_set = config.camera.views_per_set
    for name in ("run.views_per_step", "render.coarse_views"):
        views = setting_value(config, name)
        if views % in_set:
            raise ConfigError(
                f"{name} is {views} and camera.views_per_set is {in_set}; allowed are multiples of it; set "
                f"{name}={in_set * (views // in_set + 1)} or camera.views_per_set=1"
            )
    _check_perp_neg(config.guidance)
    _check_rule(config)
    _check_optimizer(config.optimizer)
    return config


def _check_perp_neg(guidance: GuidanceConfig) -> None:
    """Raise ConfigError for view words that Perp-Neg by azimuth has no weights for."""
    if guidance.perp_neg != "azimuth" or guidance.opposite_weight == 0:
        return
    for name, allowed in (("view_dependent", True), ("view_words", "four")):
        value = getattr(guidance, name)
        if value != allowed:
            given, needed = (str(word).lower() for word in (value, allowed))
            raise ConfigError(
                f"guidance.perp_neg is azimuth and guidance.{name} is {given}; allowed with azimuth is {needed}; set "
                f"guidance.{name}={needed}, or guidance.perp_neg=opposite"
            )


def _check_rule(config: Config) -> None:
    """Raise ConfigError for settings that contradict the rule of distillation."""
    guidance, model = config.guidance, config.model
    if guidance.rule == "csd" and guidance.omega == 0:
        raise ConfigError(
            "guidance.rule is csd and guidance.omega is 0, which leaves no gradient; allowed is an omega above 0; set "
            "guidance.omega, or guidance.rule=sds"
        )
    if guidance.rule == "vsd" and config.surface.steps and config.surface.model:
        raise ConfigError(
            f"guidance.rule is vsd and surface.model is {config.surface.model!r}; allowed with vsd is no second model, "
            "as its LoRA is of the first; leave surface.model out, or set guidance.rule=sds"
        )
    for name, value in (("model.compile", model.compile), ("model.offload", model.offload)):
        if guidance.rule == "vsd" and value != "off":
            raise ConfigError(
                f"guidance.rule is vsd and {name} is {value}; allowed with vsd is off, as its LoRA is switched on and "
                f"off within a step; set {name}=off, or guidance.rule=sds"
            )


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    """Raise ConfigError for a weight decay that Shampoo does not have."""
    if optimizer.kind == "shampoo" and optimizer.weight_decay:
        raise ConfigError(
            f"optimizer.weight_decay is {number_text(optimizer.weight_decay)} and optimizer.kind is shampoo; allowed "
            "with shampoo is 0; set optimizer.kind=adam, or optimizer.weight_decay=0"
        )


def _with_all(config: C, given: Sequence[tuple[str, Any]]) -> C:
    """`config` with all values, later ones over earlier ones, validated."""
    changed: dict[str, dict[str, Any]] = {}
    for name, value in _omega_for_scale(given):
        found = _find(type(config), name)
        changed.setdefault(name.partition(".")[0], {})[found.key] = parse_value(found, value)
    sections = {name: dataclasses.replace(getattr(config, name), **values) for name, values in changed.items()}
    return validate(dataclasses.replace(config, **sections))


def _omega_for_scale(given: Sequence[tuple[str, Any]]) -> Sequence[tuple[str, Any]]:
    """The same values with omega = guidance_scale - 1 for diffusers' name. Raises ConfigError for a contradiction."""
    if not any(name == GUIDANCE_SCALE for name, _ in given):
        return given
    omega = setting_fields(Config)[OMEGA]
    low, high = setting_bounds()[OMEGA]
    scale = dataclasses.replace(omega, name=GUIDANCE_SCALE, low=1 + low, high=1 + high)
    by_name: dict[str, float] = {}  # omega by the name that it was given by
    changed: list[tuple[str, Any]] = []
    for name, value in given:
        if name == GUIDANCE_SCALE:
            number = parse_value(scale, value)
            scale.check(number, f"--set {GUIDANCE_SCALE}=..., which is 1 + omega")
            by_name[name] = number - 1
            changed.append((OMEGA, number - 1))
        else:
            changed.append((name, value))
            if name == OMEGA:
                by_name[name] = parse_value(omega, value)
    if len(by_name) == 2 and not math.isclose(by_name[OMEGA], by_name[GUIDANCE_SCALE], abs_tol=1e-9):
        raise ConfigError(
            f"{OMEGA} is {number_text(by_name[OMEGA])} and {GUIDANCE_SCALE} is "
            f"{number_text(by_name[GUIDANCE_SCALE] + 1)}; the second is 1 + the first, so allowed with it is "
            f"{OMEGA}={number_text(by_name[GUIDANCE_SCALE])}; give one of them"
        )
    return changed


def _find(schema: type[Config], name: str) -> Setting:
    """The setting of that name. Raises ConfigError with names that are close."""
    fields = setting_fields(schema)
    if name in fields:
        return fields[name]
    close = difflib.get_close_matches(name, [*fields, GUIDANCE_SCALE], n=3, cutoff=0.5)
    sections = ", ".join(field.name for field in dataclasses.fields(schema))
    hint = f"did you mean {', '.join(close)}?" if close else f"the sections are {sections}"
    raise ConfigError(f"unknown setting {name!r}; {hint}")


def parse_value(found: Setting, value: Any) -> Any:
    """`value` (text or JSON) as the setting's type. Raises ConfigError."""
    name = found.name
    if found.kind == "choice":
        if value in found.choices:
            return value
        raise ConfigError(f"{name} is {value!r}; allowed are {', '.join(found.choices)}; choose one")
    if found.kind == "integers":
        if not isinstance(value, (str, list, tuple)):
            raise ConfigError(f"{name} is {value!r}; allowed are whole numbers; write for example --set {name}=16,32")
        return tuple(_number(name, item, True) for item in (value.split(",") if isinstance(value, str) else value))
    if found.kind == "text":
        if not isinstance(value, str):
            raise ConfigError(f"{name} is {value!r}; allowed is text; write it in quotes")
        return value
    if found.kind == "switch":
        if isinstance(value, bool):
            return value
        if str(value).lower() in _TRUTH:
            return _TRUTH[str(value).lower()]
        raise ConfigError(f"{name} is {value!r}; allowed are true and false; choose one")
    return _number(name, value, found.kind == "integer")


def _number(name: str, value: Any, integer: bool) -> float:
    try:
        if isinstance(value, bool):  # Python's True is a number, but nobody who writes it means one
            raise TypeError
        number = float(value)
        if not integer:
            return number
        if not number.is_integer():
            raise ValueError
        if isinstance(value, int):
            return value
        try:
            return int(value)  # of text: a float would round a number of more than 15 digits
        except (TypeError, ValueError):
            return int(number)  # of 3.0 or "3e2"
    except (TypeError, ValueError, OverflowError) as error:
        kind = "a whole number" if integer else "a number"
        raise ConfigError(f"{name} is {value!r}; allowed is {kind}; write for example --set {name}=1") from error
