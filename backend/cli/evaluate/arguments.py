# SPDX-License-Identifier: GPL-3.0-or-later
"""What the suites of `dreamwright evaluate` that make things themselves are asked for, checked before anything is made."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from ...config.schema import Config
    from ...evaluation.retrieval import RetrievalModel

MAX_SEEDS = 100


def add_job_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """The arguments of suites whose experiments are jobs."""
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="K", help="props a prompt: seeds 0 to K - 1 (default 1)"
    )
    parser.add_argument("--preset", default="draft", help="the settings to begin from (default draft)")
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="steps of each run, in short for --set run.steps=N (default: the preset's)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of every job, for example run.threads=1",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="retrieval models: CLIP models by name or folder, or judge (default: the starter's two and its judge)",
    )
    add_common_arguments(parser, out)


def add_common_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """The arguments of all of them."""
    parser.add_argument("--model", default="starter", help="the model that guides (default starter)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        help=f"folder for what is made, the table and the picture; more is added to it (default {out})",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def build_config(options: argparse.Namespace, taken: Sequence[str] = ()) -> Config:
    """The preset with --set and --steps. Raises ConfigError, also for settings `taken` by the suite itself."""
    from ...config.parsing import apply_settings
    from ...config.presets import get_preset
    from ...errors import ConfigError

    for setting in options.set:
        name = setting.partition("=")[0].strip()
        if name in ("run.seed", *taken):
            raise ConfigError(
                f"--set {setting}: `evaluate {options.suite}` sets {name} itself; allowed are the other settings; leave it out"
            )
    steps = [] if options.steps is None else [f"run.steps={options.steps}"]
    config = apply_settings(get_preset(options.preset).config, [*options.set, *steps])
    if config.run.method != "dreamfusion":
        raise ConfigError(
            f"the preset {options.preset!r} is one of {config.run.method}; allowed are those of dreamfusion; choose another with --preset"
        )
    return config


def parse_prompts(text: str) -> tuple[str, ...]:
    """So many of the starter's test prompts, different props first, or those of a file. Raises ConfigError and PromptError."""
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
    """The guidance weights, in rising order. Raises ConfigError for one out of range or given twice."""
    from ...config.parsing import OMEGA, setting_bounds
    from ...errors import ConfigError

    low, high = setting_bounds()[OMEGA]
    for weight in weights:
        if not (math.isfinite(weight) and low <= weight <= high):
            raise ConfigError(
                f"--weights {weight:g}; allowed is {low:g} to {high:g} (omega; diffusers' guidance_scale is 1 + omega); change it"
            )
    names = [f"{weight:g}" for weight in weights]  # folders are named so
    if len(set(names)) < len(names):
        raise ConfigError(f"--weights {' '.join(names)}; allowed is each weight once; leave the second one out")
    return sorted(weights)


def load_retrievers(names: Sequence[str] | None, captions: Sequence[str], device: Any) -> dict[str, RetrievalModel]:
    """The retrieval models. Raises PromptError, before anything is made, where one does not know the captions."""
    import torch

    from ...evaluation.retrievers import DEFAULT_RETRIEVERS, load_retriever

    models = {name: load_retriever(name, device) for name in names or DEFAULT_RETRIEVERS}
    for model in models.values():
        model.scores(torch.full((1, 3, model.image_size, model.image_size), 0.5), captions)
    return models


def write_sheet(folder: Path, name: str, sheet: Image.Image) -> None:
    """Write the sheet beside its table, and say where. Raises ExportError."""
    import sys

    from ...evaluation.contact_sheet import png_of
    from ...io.output_files import write_output

    write_output(folder / f"{name}.png", png_of(sheet))
    print(f"{folder / name}.json, .md and .png are written", file=sys.stderr)


def weights_line(plan: Mapping[str, Any]) -> str:
    """One line beneath a table: which weights its figures are of."""
    weights = ", ".join(f"{file} {digest}" for file, digest in plan["weights"].items())
    return f"Model {plan['model']}: {weights}."
