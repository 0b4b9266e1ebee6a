# SPDX-License-Identifier: GPL-3.0-or-later
"""Figure 2's three ways to a picture, as cells: one sampler, weight and prompt each, kept so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..config.schema import GuidanceConfig
from ..errors import NotANumber, Stopped
from ..guidance.interfaces import Denoiser
from ..guidance.sds import ancestral_steps, distill_image, pictures
from ..io.output_files import write_atomically
from ..text.prompts import PromptBank
from .captions import slug

SAMPLERS: Mapping[str, str] = {
    "ancestral": "DDPM ancestral sampling (figure 7)",
    "sds": "score distillation of a plain image, x = theta",
    "sds-symmetric": "score distillation of the symmetric generator, x = (flip(theta), theta)",
}


@dataclass(frozen=True)
class Drawing:
    """One cell: pictures of seeds 0 .. samples - 1 of a prompt, drawn together."""

    sampler: str
    omega: float
    prompt: str

    def folder(self, out: Path) -> Path:
        """Where it is kept."""
        return out / self.sampler / f"omega-{self.omega:g}" / slug(self.prompt)


@dataclass(frozen=True)
class Recipe:
    """What all cells share. Steps of each way; SDS is that of `dreamwright sample`."""

    samples: int
    ancestral_steps: int
    sds_steps: int
    sds_learning_rate: float
    sds_t_max_end: float


@dataclass(frozen=True)
class Drawn:
    """A cell that was drawn, by a plan of that fingerprint, or its error."""

    fingerprint: str
    seconds: float
    error: str = ""


def drawings(weights: Sequence[float], prompts: Sequence[str]) -> list[Drawing]:
    """All cells, every sampler and weight of one prompt before the next, so that a short run can be compared as well."""
    return [Drawing(sampler, omega, prompt) for prompt in prompts for omega in weights for sampler in SAMPLERS]


def fingerprint(drawing: Drawing, plan: Mapping[str, object]) -> str:
    """What kept pictures must share: the cell and everything that the plan says."""
    return hashlib.sha256(json.dumps([asdict(drawing), plan], sort_keys=True).encode()).hexdigest()


def kept(folder: Path, wanted: str) -> tuple[Drawn, Tensor | None] | None:
    """A finished cell with that fingerprint and its pictures (n, 3, h, w) in [0, 1]; None where there is none."""
    try:
        drawn = Drawn(**json.loads((folder / "cell.json").read_text(encoding="utf-8")))
        if drawn.fingerprint != wanted:
            return None
        return drawn, None if drawn.error else load_file(folder / "pictures.safetensors")["pictures"].float() / 255
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return None


def draw(
    drawing: Drawing,
    recipe: Recipe,
    denoiser: Denoiser,
    folder: Path,
    wanted: str,
    should_stop: Callable[[], bool] = lambda: False,
    watch: Callable[[int, int], None] = lambda step, steps: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Drawn, Tensor | None]:
    """Draw the cell and keep it with 8 bits a channel; one that diverges is kept as failed.

    Raises Stopped when `should_stop` said so; a cell takes seconds, so that half of one is not kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun, error, image = clock(), "", None
    try:
        for step, (steps, image) in enumerate(_states(drawing, recipe, denoiser), 1):
            watch(step, steps)
            if should_stop() and step < steps:
                raise Stopped(
                    f"stopped while drawing {drawing.prompt!r}; the same command draws that one anew and goes on"
                )
    except NotANumber as failure:
        error, image = str(failure), None
    if image is not None:
        eight_bits = (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().contiguous()
        write_atomically(folder / "pictures.safetensors", save({"pictures": eight_bits}))
        image = eight_bits.float() / 255
    drawn = Drawn(wanted, clock() - begun, error)
    write_atomically(folder / "cell.json", (json.dumps(asdict(drawn), indent=2) + "\n").encode())
    return drawn, image


def _states(drawing: Drawing, recipe: Recipe, denoiser: Denoiser) -> Iterator[tuple[int, Tensor | None]]:
    """(steps in all, pictures, which sampling has at its end only) after each step. All weights and prompts begin from the same noise."""
    config = GuidanceConfig(omega=drawing.omega, t_max_end=recipe.sds_t_max_end, view_dependent=False)
    conditioning = PromptBank(denoiser, drawing.prompt, config).for_views(
        [0.0] * recipe.samples, [0.0] * recipe.samples
    )
    generator = torch.Generator().manual_seed(0)
    if drawing.sampler == "ancestral":
        steps = recipe.ancestral_steps
        states = ancestral_steps(
            denoiser, conditioning.positive, conditioning.negative, drawing.omega, steps, generator
        )
        for step, clean in enumerate(states, 1):
            yield steps, pictures(denoiser, clean) if step == steps else None
    else:
        kind = "symmetric" if drawing.sampler == "sds-symmetric" else "free"
        for event in distill_image(
            denoiser, conditioning, config, kind, recipe.sds_steps, recipe.sds_learning_rate, generator
        ):
            yield recipe.sds_steps, event.image
