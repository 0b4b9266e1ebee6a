# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright sample`: images from a prompt by ancestral sampling, or by SDS of an image (figures 2 and 7)."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from dreamwright.shared.numbers import number_text

from ..errors import ConfigError
from .lora_option import add_lora_argument, with_loras

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..config.schema import GuidanceConfig
    from ..guidance.interfaces import Denoiser
    from ..text.conditioning import PromptConditioning

METHODS = ("ancestral", "sds")
VIEWS = {"front": (0.0, 0.0), "side": (90.0, 0.0), "back": (180.0, 0.0), "overhead": (0.0, 90.0)}  # azimuth, elevation
DEFAULT_STEPS = {"ancestral": 64, "sds": 400}
DEFAULT_OMEGA = {"ancestral": 3.0, "sds": 20.0}
SDS_LEARNING_RATE = 0.1  # of Adam, on the logits of the pixels
SDS_T_MAX_END = 0.5  # late steps see little noise and add detail
MAX_COUNT = 256


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to an argparse subparsers object."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "sample", help="make images from a prompt", description="Make images from a prompt with a model's prior."
    )
    parser.add_argument("prompt", metavar="PROMPT", help="what to show, for example 'a red mushroom'")
    parser.add_argument(
        "--out", required=True, metavar="FILE.png", help="PNG file to write; several images make a grid"
    )
    parser.add_argument(
        "--model", default="starter", help="a name that `dreamwright models` lists, or a pipeline folder"
    )
    add_lora_argument(parser)
    parser.add_argument("--method", choices=METHODS, default="ancestral", help="ancestral sampling, or SDS on pixels")
    parser.add_argument("--symmetric", action="store_true", help="mirror-symmetric images (with --method sds)")
    parser.add_argument("--steps", type=int, help=f"denoiser steps (default {_defaults(DEFAULT_STEPS)})")
    parser.add_argument(
        "--omega",
        type=float,
        help=f"guidance weight; diffusers' guidance_scale is 1 + omega (default {_defaults(DEFAULT_OMEGA)})",
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same images (default 0)")
    parser.add_argument("--count", type=int, default=1, help="number of images (default 1)")
    parser.add_argument("--view", choices=tuple(VIEWS), help="append view words to the prompt")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Sample and write the images; bad arguments are refused before a model is loaded. Raises DreamwrightError."""
    import torch
    from tqdm import tqdm

    from ..config.schema import GuidanceConfig, ModelConfig
    from ..guidance.denoisers.loading import chosen_dtype, load_denoiser
    from ..guidance.sampling import to_images
    from ..io.images import check_image_path, image_grid, png_bytes
    from ..io.output_files import write_output
    from ..models import local
    from ..models.lora_choice import lora_digests
    from ..models.lora_files import open_loras
    from ..models.pipeline_folder import open_pipeline
    from ..text.encoder_process import PipelinePromptEncoder, make_text_encoder
    from ..text.prompts import PromptEmbeddings, clean_prompt
    from .run_display import print_warning

    out = check_image_path(options.out)
    steps = DEFAULT_STEPS[options.method] if options.steps is None else options.steps
    omega = DEFAULT_OMEGA[options.method] if options.omega is None else options.omega
    _check_arguments(options, steps, omega)
    clean_prompt(options.prompt)
    config = GuidanceConfig(omega=omega, t_max_end=SDS_T_MAX_END, view_dependent=options.view is not None)
    model = with_loras(ModelConfig(), options.lora)
    device = choose_device(options.device)
    folder = open_pipeline(local.resolve_model(options.model))
    loras = open_loras(model.loras, folder)
    dtype = chosen_dtype(model, device)
    text = make_text_encoder(folder, device, dtype, loras=loras)
    embeddings = PromptEmbeddings(PipelinePromptEncoder(text, device), options.prompt, config)
    text.free()  # before the network is loaded: the text encoders of large models are as large
    denoiser = load_denoiser(folder.path, device, dtype, config=model, text=text)
    for warning in embeddings.warnings:
        print_warning(warning)
    azimuth, elevation = VIEWS[options.view or "front"]
    conditioning = embeddings.for_cameras([azimuth] * options.count, [elevation] * options.count)
    generator = torch.Generator().manual_seed(options.seed)
    states = _states(denoiser, conditioning, config, options.method, options.symmetric, steps, generator)
    state = torch.empty(0)
    for latest in tqdm(states, total=steps, desc=options.method, unit="step", dynamic_ncols=True):
        state = latest
    images = state if options.method == "sds" else to_images(denoiser, state)
    provenance = {
        "prompt": conditioning.words[0],
        "model": str(options.model),
        **({"loras": "; ".join(lora_digests(model.loras))} if model.loras else {}),
        "method": options.method,
        "symmetric": str(options.symmetric),
        "steps": str(steps),
        "omega": str(omega),
        "guidance_scale": str(1 + omega),
        "seed": str(options.seed),
    }
    write_output(out, png_bytes(image_grid(images), provenance))
    print(f"wrote {out}")
    return 0


def _check_arguments(options: argparse.Namespace, steps: int, omega: float) -> None:
    """Raise ConfigError for numbers out of range, and for options that exclude each other."""
    from ..config.parsing import setting_bounds

    if not 1 <= options.count <= MAX_COUNT:
        raise ConfigError(f"--count {options.count}; allowed are 1 to {MAX_COUNT}; choose another number")
    if steps < 1:
        raise ConfigError(f"--steps {steps}; allowed are 1 or more; choose another number")
    if not (math.isfinite(omega) and omega >= 0):
        raise ConfigError(f"--omega {omega}; allowed are 0 (no guidance) or more; choose another number")
    if options.symmetric and options.method != "sds":
        raise ConfigError("--symmetric needs an image generator; allowed is --method sds; add it or drop --symmetric")
    low, high = setting_bounds()["run.seed"]
    if not low <= options.seed <= high:
        raise ConfigError(
            f"--seed {options.seed}; allowed are {number_text(low)} to {number_text(high)}; choose another number"
        )


def _states(
    denoiser: Denoiser,
    conditioning: PromptConditioning,
    config: GuidanceConfig,
    method: str,
    symmetric: bool,
    steps: int,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """After each step: SDS yields images (n, 3, h, w) in [0, 1], ancestral sampling x0_hat in the model's space."""
    from ..guidance.sampling import ancestral_steps
    from ..guidance.sds import distill_image

    if method == "sds":
        kind: Literal["symmetric", "free"] = "symmetric" if symmetric else "free"
        for event in distill_image(denoiser, conditioning, config, kind, steps, SDS_LEARNING_RATE, generator):
            yield event.image
    else:
        positive, negative = conditioning.positive, conditioning.negative
        yield from ancestral_steps(denoiser, positive, negative, config.omega, steps, generator)


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one. Raises ConfigError."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu" or (name.startswith("cuda") and torch.cuda.is_available()):
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"--device {name!r}; allowed are auto, cpu and cuda; choose one") from error
        if device.type == "cpu" or (device.index or 0) < torch.cuda.device_count():
            return device
    allowed = "auto, cpu and cuda" if torch.cuda.is_available() else "auto and cpu (torch sees no CUDA device)"
    raise ConfigError(f"--device {name!r}; allowed are {allowed}; choose one")


def _defaults(values: dict[str, float] | dict[str, int]) -> str:
    return ", ".join(f"{value} for {method}" for method, value in values.items())
