# SPDX-License-Identifier: GPL-3.0-or-later
"""2D samples of figure 2: one result for each sampler, guidance weight and prompt, kept in a folder of its own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dreamwright.shared.numbers import number_text

from ..config.schema import GuidanceConfig
from ..errors import NonFiniteError, StoppedError
from ..guidance.interfaces import Denoiser
from ..guidance.sampling import ancestral_steps, to_images
from ..guidance.sds import distill_image
from ..io.output_files import write_output
from ..text.prompts import PromptEmbeddings
from .captions import slug
from .run_settings import make_folder

SAMPLERS: Mapping[str, str] = {
    "ancestral": "DDPM ancestral sampling (figure 7)",
    "sds": "score distillation of a plain image, x = theta",
    "sds-symmetric": "score distillation of the symmetric generator, x = (flip(theta), theta)",
}
RESULT, IMAGES = "result.json", "images.safetensors"


@dataclass(frozen=True)
class SampleSpec:
    """Images of seeds 0 to samples - 1 of a prompt, drawn together."""

    sampler: str
    omega: float
    prompt: str

    def folder(self, out: Path) -> Path:
        """Folder of the result."""
        return out / self.sampler / f"omega-{number_text(self.omega)}" / slug(self.prompt)


@dataclass(frozen=True)
class SamplerSettings:
    """Settings of all specs: number of images, steps of each sampler, and SDS as in `dreamwright sample`."""

    samples: int
    ancestral_steps: int
    sds_steps: int
    sds_learning_rate: float
    sds_t_max_end: float


@dataclass(frozen=True)
class SampleResult:
    """Seconds that a spec of that fingerprint took, and the error of one that diverged."""

    fingerprint: str
    seconds: float
    error: str = ""


def sample_specs(weights: Sequence[float], prompts: Sequence[str]) -> list[SampleSpec]:
    """All specs, prompt by prompt, so that an unfinished evaluation compares samplers and weights as well."""
    return [SampleSpec(sampler, omega, prompt) for prompt in prompts for omega in weights for sampler in SAMPLERS]


def spec_fingerprint(spec: SampleSpec, plan: Mapping[str, object]) -> str:
    """SHA-256 of all that a result depends on: the spec and the plan of the evaluation."""
    return hashlib.sha256(json.dumps([asdict(spec), plan], sort_keys=True).encode()).hexdigest()


def load_result(folder: Path, fingerprint: str) -> tuple[SampleResult, Tensor | None] | None:
    """A kept result of that fingerprint and its images (n, 3, h, w) in [0, 1]; None when there is none."""
    try:
        result = SampleResult(**json.loads((folder / RESULT).read_text(encoding="utf-8")))
        if result.fingerprint != fingerprint:
            return None
        return result, None if result.error else load_file(folder / IMAGES)["images"].float() / 255
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return None


def run_sampler(
    spec: SampleSpec,
    settings: SamplerSettings,
    denoiser: Denoiser,
    folder: Path,
    fingerprint: str,
    should_stop: Callable[[], bool] = lambda: False,
    watch: Callable[[int, int], None] = lambda step, steps: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[SampleResult, Tensor | None]:
    """Draw the images and keep them with 8 bits a channel; one that diverges is kept as failed.

    Raises StoppedError when `should_stop` is true between steps; a spec takes seconds, so half of one is not kept.
    """
    start, error = clock(), ""
    images: Tensor | None = None
    try:
        for step, (steps, latest) in enumerate(_states(spec, settings, denoiser), 1):
            images = latest
            watch(step, steps)
            if should_stop() and step < steps:
                raise StoppedError(f"stopped while drawing {spec.prompt!r}; the same command draws that one anew")
    except NonFiniteError as failure:
        error, images = str(failure), None
    make_folder(folder)
    if images is not None:
        eight_bits = (images.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().contiguous()
        write_output(folder / IMAGES, save({"images": eight_bits}))
        images = eight_bits.float() / 255
    result = SampleResult(fingerprint, clock() - start, error)
    write_output(folder / RESULT, (json.dumps(asdict(result), indent=2) + "\n").encode())
    return result, images


def _states(spec: SampleSpec, settings: SamplerSettings, denoiser: Denoiser) -> Iterator[tuple[int, Tensor | None]]:
    """(number of steps, images) after each step; ancestral sampling has images after the last step only.

    All specs start from the same noise.
    """
    config = GuidanceConfig(omega=spec.omega, t_max_end=settings.sds_t_max_end, view_dependent=False)
    level = [0.0] * settings.samples
    conditioning = PromptEmbeddings(denoiser, spec.prompt, config).for_cameras(level, level)
    generator = torch.Generator().manual_seed(0)
    if spec.sampler == "ancestral":
        steps = settings.ancestral_steps
        states = ancestral_steps(denoiser, conditioning.positive, conditioning.negative, spec.omega, steps, generator)
        for step, clean in enumerate(states, 1):
            yield steps, to_images(denoiser, clean) if step == steps else None
    else:
        kind: Literal["symmetric", "free"] = "symmetric" if spec.sampler == "sds-symmetric" else "free"
        steps, rate = settings.sds_steps, settings.sds_learning_rate
        for event in distill_image(denoiser, conditioning, config, kind, steps, rate, generator):
            yield steps, event.image
