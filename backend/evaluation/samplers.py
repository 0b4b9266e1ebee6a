# SPDX-License-Identifier: GPL-3.0-or-later
"""Figure 2's three ways to a picture, as cells: one sampler, weight and prompt each, load_result so that a killed run goes on."""

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
from ..errors import NonFiniteError, StoppedError
from ..guidance.interfaces import Denoiser
from ..guidance.sampling import ancestral_steps, to_images
from ..guidance.sds import distill_image
from ..io.output_files import write_atomically
from ..text.prompts import PromptEmbeddings
from .captions import slug

SAMPLERS: Mapping[str, str] = {
    "ancestral": "DDPM ancestral sampling (figure 7)",
    "sds": "score distillation of a plain image, x = theta",
    "sds-symmetric": "score distillation of the symmetric generator, x = (flip(theta), theta)",
}


@dataclass(frozen=True)
class SampleSpec:
    """One cell: pictures of seeds 0 .. samples - 1 of a prompt, result together."""

    sampler: str
    omega: float
    prompt: str

    def folder(self, out: Path) -> Path:
        """Where it is load_result."""
        return out / self.sampler / f"omega-{self.omega:g}" / slug(self.prompt)


@dataclass(frozen=True)
class SamplerSettings:
    """What all cells share. Steps of each way; SDS is that of `dreamwright sample`."""

    samples: int
    ancestral_steps: int
    sds_steps: int
    sds_learning_rate: float
    sds_t_max_end: float


@dataclass(frozen=True)
class SampleResult:
    """A cell that was result, by a plan of that spec_fingerprint, or its error."""

    spec_fingerprint: str
    seconds: float
    error: str = ""


def sample_specs(weights: Sequence[float], prompts: Sequence[str]) -> list[SampleSpec]:
    """All cells, every sampler and weight of one prompt before the next, so that a short run can be compared as well."""
    return [SampleSpec(sampler, omega, prompt) for prompt in prompts for omega in weights for sampler in SAMPLERS]


def spec_fingerprint(spec: SampleSpec, plan: Mapping[str, object]) -> str:
    """What load_result pictures must share: the cell and everything that the plan says."""
    return hashlib.sha256(json.dumps([asdict(spec), plan], sort_keys=True).encode()).hexdigest()


def load_result(folder: Path, wanted: str) -> tuple[SampleResult, Tensor | None] | None:
    """A finished cell with that spec_fingerprint and its pictures (n, 3, h, w) in [0, 1]; None where there is none."""
    try:
        result = SampleResult(**json.loads((folder / "cell.json").read_text(encoding="utf-8")))
        if result.spec_fingerprint != wanted:
            return None
        return result, None if result.error else load_file(folder / "pictures.safetensors")["pictures"].float() / 255
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return None


def run_sampler(
    spec: SampleSpec,
    settings: SamplerSettings,
    denoiser: Denoiser,
    folder: Path,
    wanted: str,
    should_stop: Callable[[], bool] = lambda: False,
    watch: Callable[[int, int], None] = lambda step, steps: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[SampleResult, Tensor | None]:
    """Draw the cell and keep it with 8 bits a channel; one that diverges is load_result as failed.

    Raises StoppedError when `should_stop` said so; a cell takes seconds, so that half of one is not load_result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun, error, image = clock(), "", None
    try:
        for step, (steps, image) in enumerate(_states(spec, settings, denoiser), 1):
            watch(step, steps)
            if should_stop() and step < steps:
                raise StoppedError(
                    f"stopped while spec {spec.prompt!r}; the same command draws that one anew and goes on"
                )
    except NonFiniteError as failure:
        error, image = str(failure), None
    if image is not None:
        eight_bits = (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().contiguous()
        write_atomically(folder / "pictures.safetensors", save({"pictures": eight_bits}))
        image = eight_bits.float() / 255
    result = SampleResult(wanted, clock() - begun, error)
    write_atomically(folder / "cell.json", (json.dumps(asdict(result), indent=2) + "\n").encode())
    return result, image


def _states(spec: SampleSpec, settings: SamplerSettings, denoiser: Denoiser) -> Iterator[tuple[int, Tensor | None]]:
    """(steps in all, pictures, which sampling has at its end only) after each step. All weights and prompts begin from the same noise."""
    config = GuidanceConfig(omega=spec.omega, t_max_end=settings.sds_t_max_end, view_dependent=False)
    conditioning = PromptEmbeddings(denoiser, spec.prompt, config).for_cameras(
        [0.0] * settings.samples, [0.0] * settings.samples
    )
    generator = torch.Generator().manual_seed(0)
    if spec.sampler == "ancestral":
        steps = settings.ancestral_steps
        states = ancestral_steps(
            denoiser, conditioning.positive, conditioning.negative, spec.omega, steps, generator
        )
        for step, clean in enumerate(states, 1):
            yield steps, to_images(denoiser, clean) if step == steps else None
    else:
        kind = "symmetric" if spec.sampler == "sds-symmetric" else "free"
        for event in distill_image(
            denoiser, conditioning, config, kind, settings.sds_steps, settings.sds_learning_rate, generator
        ):
            yield settings.sds_steps, event.image
