# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody asked for, validated once and then frozen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from dreamwright.backend.config import Config
from dreamwright.backend.prompts import clean_prompt
from dreamwright.backend.settings import config_to_mapping, validate


@dataclass(frozen=True)
class Job:
    """One prompt with everything that decides its result."""

    prompt: str
    model: str
    preset: str
    config: Config

    def fingerprint(self) -> str:
        """Hash of what a resumed run must share with the one that it continues.

        How long it takes to tell about a run (intervals, threads) and what is made of the field afterwards (mesh) may
        differ.
        """
        settings = config_to_mapping(self.config)
        settings.pop("mesh")
        for name in ("checkpoint_interval", "preview_interval", "threads", "max_restarts"):
            settings["run"].pop(name)
        text = json.dumps([self.prompt, self.model, settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def make_job(prompt: str, model: str, preset: str, config: Config) -> Job:
    """A valid job. Raises PromptError and ConfigError."""
    return Job(clean_prompt(prompt), model, preset, validate(config))
