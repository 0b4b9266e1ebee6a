# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server offers, as the panel draws it: models, presets, settings with their ranges, devices, limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import limits
from .limits import LARGEST
from .schema import flag, one_of, real, scalars, several, text, whole, words


@dataclass(frozen=True)
class ModelCard:
    """A model as the panel shows it."""

    name: str = text(limits.NAME_CHARACTERS)
    summary: str = text(limits.MESSAGE_CHARACTERS)
    ready: bool = flag()
    missing: str = text(limits.MESSAGE_CHARACTERS)  # what to do when it is not ready
    examples: tuple[str, ...] = words(20)
    vocabulary: tuple[str, ...] = words(500)  # all it knows; empty: any words


@dataclass(frozen=True)
class PresetCard:
    """A preset as the panel shows it."""

    name: str = text(limits.NAME_CHARACTERS)
    summary: str = text(limits.MESSAGE_CHARACTERS)
    steps: int = whole(1, LARGEST)


@dataclass(frozen=True)
class SettingCard:
    """A setting that the panel offers as a control."""

    name: str = text(limits.NAME_CHARACTERS)  # section.name
    label: str = text(limits.NAME_CHARACTERS)
    tip: str = text(limits.MESSAGE_CHARACTERS)
    kind: str = one_of("whole", "number", "switch", "choice")
    low: float = real(-1e12, 1e12)
    high: float = real(-1e12, 1e12)
    choices: tuple[str, ...] = words(50)
    defaults: dict[str, Any] = scalars(20)  # by preset


@dataclass(frozen=True)
class SettingBound:
    """The allowed range of a setting that is a number, bounds included."""

    name: str = text(limits.NAME_CHARACTERS)
    low: float = real(-1e12, 1e12)
    high: float = real(-1e12, 1e12)


@dataclass(frozen=True)
class Capabilities:
    """Models, presets and settings of this server, and its bounds."""

    models: tuple[ModelCard, ...] = several(ModelCard, 100)
    presets: tuple[PresetCard, ...] = several(PresetCard, 20)  # first the one to choose where none is chosen
    settings: tuple[SettingCard, ...] = several(SettingCard, limits.SETTINGS)
    devices: tuple[str, ...] = words(64)
    bounds: dict[str, Any] = scalars(100)  # limits of the wire, the queue and what is kept, by name
    setting_bounds: tuple[SettingBound, ...] = several(
        SettingBound, limits.SETTINGS, ()
    )  # of every setting, offered or not
