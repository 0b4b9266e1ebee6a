# SPDX-License-Identifier: GPL-3.0-or-later
"""From the rows of a list to validated jobs, each with a ticket that names its prop for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamwright.shared.limits import NAME_CHARACTERS
from dreamwright.shared.messages import SubmitJob
from dreamwright.shared.prompt_list import PromptListError, PromptRow

from ..config.presets import method_of
from ..errors import ConfigError, DreamwrightError
from ..models.local import registered_model
from ..server.requests import check_submission
from ..training.methods import get_method

ROW_SETTINGS = ("run.seed",)  # that each row states itself


@dataclass(frozen=True)
class PlannedProp:
    """One prop of the list: its row, the job that makes it, and how many steps that takes."""

    row: PromptRow
    request: SubmitJob
    steps: int

    @property
    def ticket(self) -> str:
        """SHA-256 of all that decides the prop."""
        return self.request.ticket


def parse_settings(given: Sequence[str]) -> dict[str, str]:
    """Settings written as section.name=value. Raises ConfigError for what is no setting, or one that the rows state."""
    settings = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"setting {text!r} has no '='; allowed is section.name=value, for example run.steps=400")
        if name.strip() in ROW_SETTINGS:
            raise ConfigError(f"--set {text}: each row states its seed; give it in the list, or --seed for all others")
        settings[name.strip()] = value.strip()
    return settings


def plan_props(
    rows: Sequence[PromptRow], preset: str, model: str | None, settings: Mapping[str, str]
) -> list[PlannedProp]:
    """The jobs of all rows; rows whose prompts mean the same to the model are one. Raises PromptListError."""
    planned: dict[str, PlannedProp] = {}
    errors = []
    for row in rows:
        try:
            found = _plan(row, row.preset or preset, model, settings)
            planned.setdefault(found.ticket, found)
        except DreamwrightError as error:
            errors.append(f"row {row.row}: {error}")
    if errors:
        raise PromptListError(errors)
    return list(planned.values())


def _plan(row: PromptRow, preset: str, model: str | None, settings: Mapping[str, str]) -> PlannedProp:
    model = _absolute(model) if model else get_method(method_of(preset)).model
    if len(model) > NAME_CHARACTERS:
        raise ConfigError(f"the model's path has {len(model)} characters; allowed are {NAME_CHARACTERS}; move it")
    request = SubmitJob("", row.prompt, "", model, preset, row.seed, dict(settings))
    job = check_submission(request)
    decisive = [job.prompt, model, preset, row.seed, sorted(settings.items())]
    ticket = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
    request = SubmitJob(ticket, job.prompt, "", model, preset, row.seed, dict(settings))
    return PlannedProp(row, request, job.config.total_steps)


def _absolute(model: str) -> str:
    """The model's name, or the absolute path of its folder: a library is continued from any working directory."""
    if registered_model(model) is None and Path(model).is_dir():
        return str(Path(model).resolve())
    return model
