# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's capabilities, from which the panel is drawn: models, presets, settings with ranges, devices, limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import limits
from .limits import LARGEST
from .schema import boolean, enum, integer, list_of, number, scalar_map, text, text_list


@dataclass(frozen=True)
class ModelInfo:
    """A model for the panel."""

    name: str = text(limits.NAME_CHARACTERS)
    family: str = text(limits.NAME_CHARACTERS)  # of its `RecipeInfo`s; "" while it is not here
    summary: str = text(limits.MESSAGE_CHARACTERS)
    ready: bool = boolean()
    missing: str = text(limits.MESSAGE_CHARACTERS)  # what to do when the model is not ready
    examples: tuple[str, ...] = text_list(20)
    vocabulary: tuple[str, ...] = text_list(500)  # all words that it knows; empty: it takes any prompt
    word_kinds: dict[str, Any] = scalar_map(500)  # "color" or "prop" by word of the vocabulary
    synonyms: dict[str, Any] = scalar_map(1000)  # word of the vocabulary by other word or phrase
    license: str = text(limits.MESSAGE_CHARACTERS, "")
    license_url: str = text(limits.VALUE_CHARACTERS, "")  # a page that states the license; "": none is known
    memory_gb: float = number(0, 1e6, 0.0)  # of device memory that guidance takes, 1e9 bytes, roughly; 0: unknown
    text_encoder_gb: float = number(0, 1e6, 0.0)  # of memory while prompts are encoded
    download_bytes: int = integer(0, LARGEST, 0)  # of a whole download, roughly; 0: there is none
    disk_bytes: int = integer(0, LARGEST, 0)  # on the server's disk, in part or whole
    gated: bool = boolean(False)  # its license has to be accepted on the hub first
    can_download: bool = boolean(False)  # whether this user may have the server download it now
    download_fault: str = text(limits.MESSAGE_CHARACTERS, "")  # why not, as a sentence


@dataclass(frozen=True)
class PresetInfo:
    """A preset for the panel."""

    name: str = text(limits.NAME_CHARACTERS)
    summary: str = text(limits.MESSAGE_CHARACTERS)
    steps: int = integer(1, LARGEST)


@dataclass(frozen=True)
class RecipeInfo:
    """What a preset, or the refinement of a mesh, means for one family of models."""

    family: str = text(limits.NAME_CHARACTERS)
    preset: str = text(limits.NAME_CHARACTERS)
    summary: str = text(limits.MESSAGE_CHARACTERS)
    notice: str = text(limits.MESSAGE_CHARACTERS)  # a line that says what its numbers are from
    steps: int = integer(1, LARGEST)
    defaults: dict[str, Any] = scalar_map(limits.SETTINGS)  # of the settings that have a control


@dataclass(frozen=True)
class SettingInfo:
    """A setting that the panel shows as a control."""

    name: str = text(limits.NAME_CHARACTERS)  # "section.name"
    label: str = text(limits.NAME_CHARACTERS)
    tip: str = text(limits.MESSAGE_CHARACTERS)
    kind: str = enum("integer", "number", "switch", "choice")
    low: float = number(-1e12, 1e12)
    high: float = number(-1e12, 1e12)
    choices: tuple[str, ...] = text_list(50)
    defaults: dict[str, Any] = scalar_map(20)  # by preset


@dataclass(frozen=True)
class SettingRange:
    """The allowed range of a numeric setting, bounds included."""

    name: str = text(limits.NAME_CHARACTERS)
    low: float = number(-1e12, 1e12)
    high: float = number(-1e12, 1e12)


@dataclass(frozen=True)
class Capabilities:
    """Everything that a server offers, and its limits."""

    models: tuple[ModelInfo, ...] = list_of(ModelInfo, limits.MODELS)
    presets: tuple[PresetInfo, ...] = list_of(PresetInfo, 20)  # the first is the default
    recipes: tuple[RecipeInfo, ...] = list_of(RecipeInfo, 100)
    settings: tuple[SettingInfo, ...] = list_of(SettingInfo, limits.SETTINGS)
    devices: tuple[str, ...] = text_list(64)
    bounds: dict[str, Any] = scalar_map(100)  # limits of the protocol, the queue and the storage, by name
    loras: tuple[str, ...] = text_list(200, ())  # names of LoRAs that a job may give in the setting model.loras
    setting_bounds: tuple[SettingRange, ...] = list_of(
        SettingRange, limits.SETTINGS, ()
    )  # of all settings, also hidden ones
    models_free_bytes: int = integer(0, LARGEST, 0)  # free where models are stored, for users who may download; else 0
