# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody asked for, validated once and then frozen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ..config.parsing import validate
from ..config.schema import Config
from ..config.usage import identity_settings
from ..text.prompts import clean_prompt
from .methods import check_used


@dataclass(frozen=True)
class Job:
    """One prompt with everything that decides its result."""

    prompt: str
    model: str
    preset: str
    config: Config
    origin: str = ""  # SHA-256 of the field that the run begins from; "": a fresh one

    def fingerprint(self) -> str:
        """Hash of what a resumed run must share with the one that it continues.

        `identity_settings` leaves out what changes reports, memory and rounding only, so a run that ran out of memory
        can be resumed with settings that take less.
        """
        settings = identity_settings(self.config, initial_field=bool(self.origin))
        told = [self.prompt, self.model, settings, *([self.origin] if self.origin else [])]
        text = json.dumps(told, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def make_job(prompt: str, model: str, preset: str, config: Config) -> Job:
    """A valid job. Raises PromptError and ConfigError, also for settings that mean nothing to its method."""
    check_used(config, preset)
    return Job(clean_prompt(prompt), model, preset, validate(config))
