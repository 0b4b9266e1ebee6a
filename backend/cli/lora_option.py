# SPDX-License-Identifier: GPL-3.0-or-later
"""The option --lora of the commands that load a diffusion model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config.schema import ModelConfig


def add_lora_argument(parser: argparse.ArgumentParser) -> None:
    """Define the option."""
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:WEIGHT]",
        help="a LoRA of the model's base, a .safetensors file or a name in the folder loras beside the models; may be "
        "given several times; weight 1 by default",
    )


def with_loras(model: ModelConfig, given: Sequence[str]) -> ModelConfig:
    """The settings of the model with these LoRAs, as they are without any. Raises ConfigError as `join_loras`."""
    from ..models.lora_choice import join_loras

    return replace(model, loras=join_loras(given)) if given else model
