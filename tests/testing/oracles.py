# SPDX-License-Identifier: GPL-3.0-or-later
"""Denoisers with closed-form predictions, used as references in tests.

For x ~ N(m, s^2 I), z_t = alpha x + sigma eps has the density N(alpha m, (alpha^2 s^2 + sigma^2) I), and the ideal
noise prediction is eps = -sigma grad log p(z_t) (Tweedie). Means are images in the model's space [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dreamwright.backend.errors import ModelError
from dreamwright.backend.guidance.prediction import PredictionType, noise_from
from dreamwright.backend.text.conditioning import Conditioning

if TYPE_CHECKING:
    from dreamwright.backend.cameras.poses import Cameras

Schedule = Callable[[Tensor], tuple[Tensor, Tensor]]


def cosine_schedule(t: Tensor) -> tuple[Tensor, Tensor]:
    """Variance preserving: alpha = cos(pi t / 2), sigma = sin(pi t / 2)."""
    return torch.cos(0.5 * math.pi * t), torch.sin(0.5 * math.pi * t)


def flow_schedule(t: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified flow: alpha = 1 - t, sigma = t."""
    return 1 - t, t


class AnyPrompt:
    """Accepts every prompt, as models without a vocabulary do."""

    def check_prompt(self, prompt: str) -> list[str]:
        return []


class GaussianOracle(AnyPrompt):
    """The ideal denoiser of x ~ N(mean, std^2 I): eps = sigma (z - alpha mean) / (alpha^2 std^2 + sigma^2).

    `means` maps prompts to images (3, h, w) in [-1, 1]; the prompt "" is required and used for unknown prompts.
    A single image applies to all prompts. Raises ModelError without "".
    """

    def __init__(self, means: Mapping[str, Tensor] | Tensor, std: float, schedule: Schedule = cosine_schedule) -> None:
        self.means = {"": means} if isinstance(means, Tensor) else dict(means)
        if "" not in self.means:
            raise ModelError(f"oracle with means for {sorted(self.means)}; the prompt '' must be among them; add it")
        self.std = std
        self.schedule = schedule
        self.image_size = self.means[""].shape[-1]

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule(t)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """The mean of each prompt."""
        return Conditioning({"mean": torch.stack([self.means.get(p, self.means[""]) for p in prompts])})

    @torch.no_grad()
    def predict_noise(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        alpha, sigma = _per_image(self.schedule(t))
        mean = conditioning.tensors["mean"]
        return sigma * (z_t - alpha * mean) / (alpha**2 * self.std**2 + sigma**2)


class MixtureOracle(AnyPrompt):
    """The ideal denoiser of x ~ sum_k weight_k N(mean_k, std^2 I); the prompt is ignored.

    eps = sigma / v (z - alpha sum_k r_k mean_k) with v = alpha^2 std^2 + sigma^2 and responsibilities
    r = softmax_k(log weight_k - |z - alpha mean_k|^2 / (2 v)). `means` (k, 3, h, w) in [-1, 1], `weights` (k,).
    """

    def __init__(self, means: Tensor, weights: Tensor, std: float, schedule: Schedule = cosine_schedule) -> None:
        self.means, self.std, self.schedule = means, std, schedule
        self.log_weights = (weights / weights.sum()).log()
        self.image_size = means.shape[-1]

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule(t)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning({"prompt": torch.arange(len(prompts))})

    @torch.no_grad()
    def predict_noise(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        alpha, sigma = _per_image(self.schedule(t))
        variance = alpha**2 * self.std**2 + sigma**2
        distance = (z_t[:, None] - alpha[:, None] * self.means[None]).square().flatten(2).sum(-1)  # (n, k)
        responsibility = torch.softmax(self.log_weights - distance / (2 * variance.view(-1, 1)), dim=1)
        mean = torch.einsum("nk,kchw->nchw", responsibility, self.means)
        return sigma / variance * (z_t - alpha * mean)


class KnownImages(AnyPrompt):
    """The denoiser of one known image for each camera: for any noise it predicts x0 = `render(cameras)`.

    `render` maps n cameras to images (n, 3, h, w) in [0, 1]; `ScoreDistillation` passes the cameras. Prompts are
    ignored.
    """

    prediction_type: PredictionType = "sample"

    def __init__(
        self, render: Callable[[Cameras], Tensor], image_size: int, schedule: Schedule = cosine_schedule
    ) -> None:
        self.render, self.image_size, self.schedule = render, image_size, schedule

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule(t)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning({"view": torch.full((len(prompts),), -1)})

    @torch.no_grad()
    def with_cameras(self, conditioning: Conditioning, cameras: Cameras) -> Conditioning:
        """Row i holds view i and the image of camera i."""
        known = self.render(cameras).detach()
        return conditioning.with_tensors(view=torch.arange(len(known), device=known.device), known=known)

    def views_together(self, conditioning: Conditioning) -> int:
        return 1

    @torch.no_grad()
    def predict_raw(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """x0_hat = 2 image - 1. Raises ModelError if the conditioning has no cameras."""
        if "known" not in conditioning.tensors:
            raise ModelError("KnownImages was given no cameras; needed is one for each image; call with_cameras first")
        return 2 * conditioning.tensors["known"].to(z_t) - 1

    def predict_noise(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        alpha, sigma = _per_image(self.schedule(t))
        return noise_from("sample", self.predict_raw(z_t, t, conditioning), z_t.detach(), alpha, sigma)


def _per_image(coefficients: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(n,) coefficients shaped to weigh (n, 3, h, w) images."""
    return coefficients[0].view(-1, 1, 1, 1), coefficients[1].view(-1, 1, 1, 1)
