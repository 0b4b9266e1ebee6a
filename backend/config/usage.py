# SPDX-License-Identifier: GPL-3.0-or-later
"""What settings belong to: the identity of a run, its memory, its duration, and the kinds of run that read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError
from .schema import METHOD_GUIDANCE, METHOD_SCENE, Config
from .setting import FieldKind, GuidanceKind, Rule, SceneKind, Setting, setting_fields


def run_kind(config: Config, scene: SceneKind | None = None) -> tuple[SceneKind, GuidanceKind, Rule, FieldKind]:
    """What is optimized, what guides it and by which rule, and the kind of field that a field would be.

    `scene` "mesh" is a refinement; None is the scene of `run.method`.
    """
    how = config.guidance.rule, config.field.kind
    if scene == "mesh":
        return "mesh", "diffusion", *how
    return scene or METHOD_SCENE[config.run.method], METHOD_GUIDANCE[config.run.method], *how


def used_settings(config: Config, scene: SceneKind | None = None) -> Iterator[tuple[Setting, Any]]:
    """The settings that a run of this kind reads, each with its value; tuples become lists, as in JSON."""
    kind = run_kind(config, scene)
    for found in setting_fields(type(config)).values():
        if found.applies_to(*kind):
            yield found, _plain(setting_value(config, found.name))


def identity_settings(
    config: Config, scene: SceneKind | None = None, initial_field: bool = False
) -> dict[str, dict[str, Any]]:
    """The settings that decide what is optimized, by section: what a resumed run shares with the one it continues.

    Left out are settings that the run does not read, those that change reports, memory or rounding only, and those of
    the mesh that is made afterwards. `initial_field`: whether the run starts from another run's field.
    """
    decided: dict[str, dict[str, Any]] = {}
    for found, value in used_settings(config, scene):
        if found.identity and (initial_field or not found.initial_field):
            decided.setdefault(found.name.partition(".")[0], {})[found.key] = value
    return decided


def duration_settings(config: Config, scene: SceneKind | None = None) -> dict[str, Any]:
    """The settings that change the time of a step, of loading or of making the mesh, by "section.key"."""
    return {found.name: value for found, value in used_settings(config, scene) if found.duration}


def resumable_memory_settings(schema: type[Config] = Config) -> tuple[str, ...]:
    """Settings as --set takes them that lower memory and that a resumed run may change: they change rounding only."""
    return tuple(f"{found.name}={value}" for found, value in _memory_values(schema) if not found.identity)


def memory_settings(schema: type[Config] = Config) -> tuple[str, ...]:
    """Settings as --set takes them that lower memory, the resumable ones first."""
    others = tuple(f"{found.name}={value}" for found, value in _memory_values(schema) if found.identity)
    return (*resumable_memory_settings(schema), *others)


def check_settings_used(config: Config, scene: SceneKind | None = None, own: Config | None = None) -> None:
    """Raise ConfigError for a setting that a run of this kind does not read and that differs from `own`.

    `own`: the defaults of this kind of run, such as its preset; None: the defaults of the configuration.
    """
    kind = run_kind(config, scene)
    own = type(config)() if own is None else own
    for name, found in setting_fields(type(config)).items():
        value = setting_value(config, name)
        if found.applies_to(*kind) or value == setting_value(own, name):
            continue
        what: str = "the refinement of a mesh" if kind[0] == "mesh" else config.run.method
        if found.applies_to(kind[0], kind[1], kind[2], found.fields[0]):
            if value == found.default:
                continue  # not given: `own` has another kind of field than the configuration
            what = f"field.kind={kind[3]}, but to {' and '.join(found.fields)}"
        elif found.applies_to(kind[0], kind[1], found.rules[0], found.fields[0]):
            what = f"guidance.rule={kind[2]}, but to {' and '.join(found.rules)}"
        raise ConfigError(
            f"{name} means nothing to {what}; allowed are the settings that docs/user/settings.md lists for it; "
            "leave it out"
        )


def setting_value(config: Any, name: str) -> Any:
    """The value of the setting "section.key"."""
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


def _memory_values(schema: type[Config]) -> Iterator[tuple[Setting, str]]:
    for found in setting_fields(schema).values():
        for value in found.reduce_memory:
            yield found, value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
