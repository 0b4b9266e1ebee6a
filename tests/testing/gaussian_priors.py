# SPDX-License-Identifier: GPL-3.0-or-later
"""Gaussian priors with known means, and their prompts, for tests of distillation and sampling."""

from __future__ import annotations

import torch

from dreamwright.backend.guidance.prediction import clean_from, output_from
from dreamwright.backend.text.conditioning import PromptConditioning


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def means(size: int = 4) -> dict[str, torch.Tensor]:
    generator = seeded(5)
    return {prompt: 1.2 * torch.rand(3, size, size, generator=generator) - 0.6 for prompt in ("", "a", "b")}


def conditioned(denoiser, prompts, negative="") -> PromptConditioning:
    return PromptConditioning(denoiser.embed(prompts), denoiser.embed([negative] * len(prompts)), tuple(prompts))


class ConvertedPrediction:
    """A denoiser with the same prediction in another prediction type."""

    def __init__(self, denoiser, kind) -> None:
        self.denoiser, self.prediction_type, self.image_size = denoiser, kind, denoiser.image_size
        self.alpha_sigma, self.embed = denoiser.alpha_sigma, denoiser.embed
        self.predict_noise, self.check_prompt = denoiser.predict_noise, denoiser.check_prompt

    def predict_raw(self, z_t, t, conditioning):
        alpha, sigma = (c.view(-1, 1, 1, 1) for c in self.alpha_sigma(t))
        noise = self.predict_noise(z_t, t, conditioning)
        clean = clean_from("epsilon", noise, z_t, alpha, sigma)
        return output_from(self.prediction_type, clean, noise, alpha, sigma)
