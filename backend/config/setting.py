# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known about a setting: one `setting(...)` call beside its default, from which everything else is derived."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from dreamwright.shared.numbers import number_text

from ..errors import ConfigError

SceneKind = Literal["field", "mesh", "sphere"]
GuidanceKind = Literal["diffusion", "image-text"]
Rule = Literal["sds", "csd", "sdi", "vsd"]
FieldKind = Literal["mip-mlp", "voxels", "hash-grid"]
Kind = Literal["integer", "number", "switch", "choice", "text", "integers"]
SCENES: tuple[SceneKind, ...] = ("field", "mesh", "sphere")
GUIDANCE: tuple[GuidanceKind, ...] = ("diffusion", "image-text")
RULES: tuple[Rule, ...] = ("sds", "csd", "sdi", "vsd")
FIELD_KINDS: tuple[FieldKind, ...] = ("mip-mlp", "voxels", "hash-grid")
_KEY = "dreamwright.setting"
_KINDS: Mapping[Any, Kind] = {bool: "switch", int: "integer", float: "number", str: "text"}
T = TypeVar("T")


@dataclass(frozen=True)
class Section:
    """What the settings of one dataclass have in common unless a setting says otherwise; its ClassVar `SECTION`.

    identity: a resumed run must share the value. duration: the value may change how long a run takes.
    scenes, guidance: the kinds of run that read the value.
    """

    help: str = ""
    identity: bool = True
    duration: bool = True
    scenes: tuple[SceneKind, ...] = SCENES
    guidance: tuple[GuidanceKind, ...] = GUIDANCE


@dataclass(frozen=True)
class Setting:
    """One setting with its metadata.

    name: "section.key". type: the annotation, resolved. low, high: inclusive bounds of numbers, else None.
    zero: what 0 means where it is allowed beside the bounds. at_most: name of the setting that is never smaller.
    reduce_memory: values that lower the memory of a run, the mildest first, as text. panel: whether clients draw a
    control for it. initial_field: whether only runs that start from another run's field read it. rules, fields: the
    rules of distillation and the kinds of field that read it. The other fields: see `Section`.
    """

    name: str
    type: Any
    default: Any
    low: float | None
    high: float | None
    unit: str
    label: str
    help: str
    zero: str
    at_most: str
    identity: bool
    duration: bool
    reduce_memory: tuple[str, ...]
    scenes: tuple[SceneKind, ...]
    guidance: tuple[GuidanceKind, ...]
    panel: bool
    initial_field: bool
    rules: tuple[Rule, ...]
    fields: tuple[FieldKind, ...]

    @property
    def key(self) -> str:
        """The name inside its section."""
        return self.name.rpartition(".")[2]

    @property
    def kind(self) -> Kind:
        """The kind of value."""
        if typing.get_origin(self.type) is Literal:
            return "choice"
        if typing.get_origin(self.type) is tuple:
            return "integers"
        return _KINDS[self.type]

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words of a choice; empty for other kinds."""
        return typing.get_args(self.type) if self.kind == "choice" else ()

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Smallest and largest value; None for a setting that is no number."""
        if self.low is None or self.high is None:
            return None
        return (min(0, self.low) if self.zero else self.low), self.high

    def allowed(self) -> str:
        """The allowed values of a number in words."""
        if self.low is None or self.high is None:
            return ", ".join(self.choices) if self.choices else {"switch": "true, false"}.get(self.kind, "text")
        beside = f", or 0 for {self.zero}" if self.zero and self.low > 0 else ""
        return f"{number_text(self.low)} to {number_text(self.high)}{beside}"

    def applies_to(self, scene: SceneKind, guidance: GuidanceKind, rule: Rule, field: FieldKind) -> bool:
        """Whether a run of this kind reads the value."""
        return scene in self.scenes and guidance in self.guidance and rule in self.rules and field in self.fields

    def check(self, value: Any, change: str = "") -> None:
        """Raise ConfigError for a number outside of the bounds; `change`: how it is changed, such as --set name=..."""
        if self.low is None or self.high is None:
            return
        numbers = value if isinstance(value, tuple) else (value,)
        inside = [
            (self.zero != "" and number == 0) or (math.isfinite(number) and self.low <= number <= self.high)
            for number in numbers
        ]
        if not numbers or not all(inside):
            shown = ", ".join(map(number_text, numbers)) or "empty"
            change = change or f"--set {self.name}=..."
            raise ConfigError(f"{self.name} is {shown}; allowed is {self.allowed()}; change it with {change}")


_SECTIONS: dict[tuple[type, str], tuple[Setting, ...]] = {}  # each read once
_SCHEMAS: dict[type, Mapping[str, Setting]] = {}


def setting(
    default: T,
    bounds: tuple[float, float] | None = None,
    *,
    help: str = "",
    unit: str = "",
    label: str = "",
    zero: str = "",
    at_most: str = "",
    identity: bool | None = None,
    duration: bool | None = None,
    reduce_memory: Sequence[Any] = (),
    scenes: Sequence[SceneKind] | None = None,
    guidance: Sequence[GuidanceKind] | None = None,
    panel: bool = False,
    initial_field: bool = False,
    rules: Sequence[Rule] = RULES,
    fields: Sequence[FieldKind] = FIELD_KINDS,
) -> T:
    """A dataclass field with everything that is known about the setting; see `Setting` for the arguments.

    A number needs `bounds`. None takes what the section's `SECTION` says; an empty label is made from the name.
    """
    if isinstance(default, (int, float, tuple)) and not isinstance(default, bool) and bounds is None:
        raise TypeError(f"a setting of default {default!r} has no bounds; write setting({default!r}, (low, high))")
    declared = {
        "low": bounds[0] if bounds else None,
        "high": bounds[1] if bounds else None,
        "unit": unit,
        "label": label,
        "help": help,
        "zero": zero,
        "at_most": at_most,
        "identity": identity,
        "duration": duration,
        "reduce_memory": tuple(_as_text(value) for value in reduce_memory),
        "scenes": None if scenes is None else tuple(scenes),
        "guidance": None if guidance is None else tuple(guidance),
        "panel": panel,
        "initial_field": initial_field,
        "rules": tuple(rules),
        "fields": tuple(fields),
    }
    return dataclasses.field(default=default, metadata={_KEY: declared})


def section_settings(section: type, name: str = "") -> tuple[Setting, ...]:
    """The settings of one dataclass, in its order, named "name.key", or "key" without a name.

    Raises TypeError for a field that was not made by `setting`.
    """
    if (section, name) not in _SECTIONS:
        _SECTIONS[section, name] = tuple(_read_section(section, name))
    return _SECTIONS[section, name]


def setting_fields(schema: type) -> Mapping[str, Setting]:
    """Every setting of a configuration (a dataclass of sections) by "section.key", in order."""
    if schema not in _SCHEMAS:
        defaults = schema()
        sections = [(field.name, type(getattr(defaults, field.name))) for field in dataclasses.fields(schema)]
        settings = [found for name, section in sections for found in section_settings(section, name)]
        _SCHEMAS[schema] = types.MappingProxyType({found.name: found for found in settings})
    return _SCHEMAS[schema]


def check_section(values: Any, name: str) -> None:
    """Raise ConfigError for the first number of one section's dataclass that is outside of its bounds."""
    for found in section_settings(type(values), name):
        found.check(getattr(values, found.key))


def _read_section(section: type, name: str) -> Iterator[Setting]:
    common: Section = getattr(section, "SECTION", Section())
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        if _KEY not in field.metadata:
            raise TypeError(f"{section.__name__}.{field.name} has no metadata; declare it with setting(default, ...)")
        declared = dict(field.metadata[_KEY])
        for inherited in ("identity", "duration", "scenes", "guidance"):
            if declared[inherited] is None:
                declared[inherited] = getattr(common, inherited)
        declared["label"] = declared["label"] or field.name.replace("_", " ").title()
        if declared["at_most"] and name:
            declared["at_most"] = f"{name}.{declared['at_most']}"
        hint = hints[field.name]
        if hint not in _KINDS and typing.get_origin(hint) not in (Literal, tuple):
            raise TypeError(
                f"{section.__name__}.{field.name} is of type {hint}; allowed are bool, int, float, str, Literal and "
                "tuples of int"
            )
        full = f"{name}.{field.name}" if name else field.name
        yield Setting(name=full, type=hint, default=field.default, **declared)


def _as_text(value: Any) -> str:
    """A value as --set takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
