# SPDX-License-Identifier: GPL-3.0-or-later
"""What a frozen diffusion model offers (`Denoiser`), and what the optimisation asks of a guidance (`Guidance`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Protocol, Sequence

import torch
from torch import Tensor

from dreamwright.backend.cameras import Cameras


@dataclass(frozen=True)
class Conditioning:
    """Text states of n prompts, opaque to everybody but the denoiser that made them: states (n, tokens, width)."""

    states: Tensor

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, index: int | slice | Tensor) -> "Conditioning":
        chosen = self.states[index]
        return Conditioning(chosen if chosen.dim() == self.states.dim() else chosen[None])

    @staticmethod
    def stack(parts: Sequence["Conditioning"]) -> "Conditioning":
        """One after the other."""
        return Conditioning(torch.cat([part.states for part in parts]))


class Denoiser(Protocol):
    """A frozen text-to-image diffusion model; knows no classifier-free guidance and no renderer."""

    image_size: int

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t (n,) at times t (n,) in [0, 1]."""

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Run the text encoder. Raises PromptError for prompts it cannot understand."""

    def predict_noise(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """eps_phi(z_t; y, t) (n, 3, h, w), without gradients, for z_t (n, 3, h, w) in the model's [-1, 1] space."""


@dataclass(frozen=True)
class PromptConditioning:
    """Conditioning of n views: positive and negative prompts, and the words that were used."""

    positive: Conditioning
    negative: Conditioning
    words: tuple[str, ...]


@dataclass(frozen=True)
class GuidanceResult:
    """gradient (n, 3, h, w) with respect to the [0, 1] image, and named figures for people."""

    gradient: Tensor
    scalars: Mapping[str, float]


class Guidance(Protocol):
    """Turns rendered views into a gradient on them."""

    def gradient(
        self,
        image: Tensor,
        cameras: Cameras,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> GuidanceResult:
        """Gradient of n views image (n, 3, h, w) in [0, 1]; progress in [0, 1] drives schedules."""
