# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody asked for, validated once and then frozen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ..config.parsing import config_to_mapping, validate
from ..config.schema import Config, RefineConfig
from ..errors import ConfigError
from ..text.prompts import clean_prompt
from .methods import check_used

OF_A_MESH = "refine."  # how the settings begin that only a refinement has


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

        When a run tells about itself, how it fits into memory (views at once, precision, what is computed twice or
        elsewhere), and what is made of the field afterwards (mesh) may differ: they change roundings, never what is
        optimized. So a run that ran out of memory goes on with less.
        """
        settings = deciding(self.config)
        if not self.origin:
            settings["run"].pop("finetune_share")
        told = [self.prompt, self.model, settings, *([self.origin] if self.origin else [])]
        text = json.dumps(told, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def deciding(config: Config) -> dict[str, dict[str, Any]]:
    """The settings that decide what is optimized; see `Job.fingerprint` for those that do not."""
    settings = config_to_mapping(config)
    for section in ("mesh", "text", *(() if config.run.method == "clip-mesh" else ("refine", "sphere"))):
        settings.pop(section)
    for name in (
        "checkpoint_interval",
        "preview_interval",
        "threads",
        "max_restarts",
        "views_at_once",
        "ignore_memory",
    ):
        settings["run"].pop(name)
    for name in ("dtype", "offload", "attention_slicing", "vae_tiling", "vae_recompute"):
        settings["model"].pop(name)
    return settings


def make_job(prompt: str, model: str, preset: str, config: Config) -> Job:
    """A valid job. Raises PromptError and ConfigError, also for settings that mean nothing to its method."""
    if config.run.method != "clip-mesh" and config.refine != RefineConfig():
        raise ConfigError(
            f"{OF_A_MESH}* means nothing without a mesh; allowed are the other settings; use `dreamwright refine`, or leave it out"
        )
    check_used(config)
    return Job(clean_prompt(prompt), model, preset, validate(config))
