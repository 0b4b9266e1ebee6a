# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments that several suites of `dreamwright evaluate` share, and their checks before anything is made."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamwright.shared.numbers import number_text

if TYPE_CHECKING:
    from ...config.schema import Config
    from ...evaluation.retrieval import RetrievalModel

MAX_SEEDS = 100
DEFAULT_ELEVATION = 45.0  # evaluation.samples.HELD_OUT_ELEVATION, which is not imported to draw --help


def add_job_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Define the arguments of suites that generate meshes."""
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="K", help="props of each prompt: seeds 0 to K - 1 (default 1)"
    )
    parser.add_argument("--preset", default="draft", help="the settings to begin from (default draft)")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps of each run, as --set run.steps=N (default: the preset's)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of every job, for example run.threads=1",
    )
    add_retrieval_arguments(parser)
    add_common_arguments(parser, out)


def add_retrieval_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments of suites that measure R-Precision."""
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="retrieval models: CLIP models by name or folder, or classifier "
        "(default: the starter's two and its classifier)",
    )
    parser.add_argument(
        "--elevation",
        type=float,
        default=DEFAULT_ELEVATION,
        metavar="DEGREES",
        help="of the views that are retrieved from, above the horizon (default 45, the paper's held-out elevation)",
    )


def add_common_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Define the arguments of all suites that make something."""
    parser.add_argument("--model", default="starter", help="the model that guides (default starter)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        help=f"folder of results, table and contact sheet; the same command continues or adds to it (default {out})",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def build_config(options: argparse.Namespace, reserved: Sequence[str] = ()) -> Config:
    """The preset with --set and --steps. Raises ConfigError, also for settings that the suite itself sets."""
    from ...config.parsing import apply_settings
    from ...config.presets import method_of
    from ...errors import ConfigError
    from ...training.recipe_choice import choose_recipe

    for setting in options.set:
        name = setting.partition("=")[0].strip()
        if name in ("run.seed", *reserved):
            raise ConfigError(
                f"--set {setting}: `evaluate {options.suite}` sets {name} itself; allowed are the other settings; "
                "leave it out"
            )
    steps = [] if options.steps is None else [f"run.steps={options.steps}"]
    if method_of(options.preset) != "dreamfusion":
        raise ConfigError(
            f"the preset {options.preset!r} is one of {method_of(options.preset)}; allowed are those of dreamfusion; "
            "choose another with --preset"
        )
    config = apply_settings(choose_recipe(options.preset, options.model).config, [*options.set, *steps])
    if config.run.method != "dreamfusion":
        raise ConfigError(f"--set run.method={config.run.method}; allowed here is dreamfusion; leave it out")
    return config


def parse_prompts(text: str) -> tuple[str, ...]:
    """The first N of the starter's test prompts, or the prompts of a file. Raises ConfigError and PromptError."""
    from ...errors import ConfigError
    from ...evaluation.baselines import PROMPT_ORDER
    from ...evaluation.captions import read_prompts

    try:
        count = int(text)
    except ValueError:
        return read_prompts(Path(text))
    if not 1 <= count <= len(PROMPT_ORDER):
        raise ConfigError(
            f"--prompts {count}; allowed is 1 to {len(PROMPT_ORDER)}, or a file with one prompt a line; change it"
        )
    return PROMPT_ORDER[:count]


def check_count(name: str, value: int, most: int, least: int = 1) -> None:
    """Raise ConfigError for a number outside of its range."""
    from ...errors import ConfigError

    if not least <= value <= most:
        raise ConfigError(f"{name} {value}; allowed is {least} to {most}; change it")


def parse_weights(weights: Sequence[float]) -> list[float]:
    """The guidance weights in rising order. Raises ConfigError for one out of range or given twice."""
    from ...config.parsing import OMEGA, setting_bounds
    from ...errors import ConfigError

    low, high = setting_bounds()[OMEGA]
    for weight in weights:
        if not (math.isfinite(weight) and low <= weight <= high):
            raise ConfigError(
                f"--weights {number_text(weight)}; allowed is {number_text(low)} to {number_text(high)} "
                "(omega; diffusers' guidance_scale is 1 + omega); change it"
            )
    names = [number_text(weight) for weight in weights]  # result folders have these names
    if len(set(names)) < len(names):
        raise ConfigError(f"--weights {' '.join(names)}; allowed is each weight once; leave the second one out")
    return sorted(weights)


def load_retrievers(names: Sequence[str] | None, captions: Sequence[str], device: Any) -> dict[str, RetrievalModel]:
    """The retrieval models. Raises ModelError, and PromptError when one does not know the captions."""
    import torch

    from ...evaluation.retrievers import DEFAULT_RETRIEVERS, load_retriever

    models = {name: load_retriever(name, device) for name in names or DEFAULT_RETRIEVERS}
    for model in models.values():
        model.scores(torch.full((1, 3, model.image_size, model.image_size), 0.5), captions)
    return models
