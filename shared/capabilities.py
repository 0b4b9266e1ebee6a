# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server offers, as the panel draws it: models, presets, settings with their ranges, devices, limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import limits
from .limits import LARGEST
from .schema import boolean, enum, integer, list_of, number, scalar_map, text, text_list


@dataclass(frozen=True)
class ModelInfo:
    """A model as the panel shows it."""

    name: str = text(limits.NAME_CHARACTERS)
    summary: str = text(limits.MESSAGE_CHARACTERS)
    ready: bool = boolean()
    missing: str = text(limits.MESSAGE_CHARACTERS)  # what to do when it is not ready
    examples: tuple[str, ...] = text_list(20)
    vocabulary: tuple[str, ...] = text_list(500)  # all words that it knows; empty: it takes any prompt
    word_kinds: dict[str, Any] = scalar_map(500)  # "color" or "prop" by word of the vocabulary
    synonyms: dict[str, Any] = scalar_map(1000)  # word of the vocabulary by other word or phrase


@dataclass(frozen=True)
class PresetInfo:
    """A preset as the panel shows it."""

    name: str = text(limits.NAME_CHARACTERS)
    summary: str = text(limits.MESSAGE_CHARACTERS)
    steps: int = integer(1, LARGEST)


@dataclass(frozen=True)
class SettingInfo:
    """A setting that the panel offers as a control."""

    name: str = text(limits.NAME_CHARACTERS)  # section.name
    label: str = text(limits.NAME_CHARACTERS)
    tip: str = text(limits.MESSAGE_CHARACTERS)
    kind: str = enum("integer", "number", "switch", "choice")
    low: float = number(-1e12, 1e12)
    high: float = number(-1e12, 1e12)
    choices: tuple[str, ...] = text_list(50)
    defaults: dict[str, Any] = scalar_map(20)  # by preset


@dataclass(frozen=True)
class SettingRange:
    """The allowed range of a setting that is a number, bounds included."""

    name: str = text(limits.NAME_CHARACTERS)
    low: float = number(-1e12, 1e12)
    high: float = number(-1e12, 1e12)


@dataclass(frozen=True)
class Capabilities:
    """Models, presets and settings of this server, and its bounds."""

    models: tuple[ModelInfo, ...] = list_of(ModelInfo, 100)
    presets: tuple[PresetInfo, ...] = list_of(PresetInfo, 20)  # first the one to choose where none is chosen
    settings: tuple[SettingInfo, ...] = list_of(SettingInfo, limits.SETTINGS)
    devices: tuple[str, ...] = text_list(64)
    bounds: dict[str, Any] = scalar_map(100)  # limits of the wire, the queue and what is kept, by name
    setting_bounds: tuple[SettingRange, ...] = list_of(
        SettingRange, limits.SETTINGS, ()
    )  # of every setting, offered or not
