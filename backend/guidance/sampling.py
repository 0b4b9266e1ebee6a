# SPDX-License-Identifier: GPL-3.0-or-later
"""DDPM ancestral sampling (fig 7) from any denoiser."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import ConfigError
from ..text.conditioning import Conditioning, Negatives
from .classifier_free import check_finite, draw_noise, guided_prediction
from .interfaces import Denoiser, LatentDenoiser
from .prediction import clean_from


def ancestral_step(
    z_t: Tensor, clean: Tensor, noise: Tensor, now: tuple[float, float], then: tuple[float, float]
) -> Tensor:
    """z_s ~ q(z_s | z_t, x = clean) for s < t, given (alpha, sigma) at t (`now`) and at s (`then`).

    With a = alpha_t / alpha_s and v = sigma_t^2 - a^2 sigma_s^2: mean = a sigma_s^2 / sigma_t^2 z_t
    + alpha_s v / sigma_t^2 clean, variance = v sigma_s^2 / sigma_t^2 (Ho et al. 2020, eq 6 and 7, in continuous time).
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = now, then
    ratio = alpha_t / alpha_s
    added = max(sigma_t**2 - ratio**2 * sigma_s**2, 0.0)
    mean = (ratio * sigma_s**2 / sigma_t**2) * z_t + (alpha_s * added / sigma_t**2) * clean
    return mean + math.sqrt(added) * sigma_s / sigma_t * noise


def ancestral_steps(
    denoiser: Denoiser,
    conditioning: Conditioning,
    negative: Conditioning,
    omega: float,
    steps: int,
    generator: torch.Generator,
    size: int | None = None,
    clip: bool = True,
    opposite: Negatives | None = None,
) -> Iterator[Tensor]:
    """Fig 7, one step at a time: t from 1 to 1 / steps; yields x0_hat in the model's space after each, which is
    (n, 3, size, size) in [-1, 1] or latents; `to_images` shows either.

    `clip` keeps x0_hat in [-1, 1] (static thresholding), without which guidance saturates; latents know no such range.
    `opposite` is Perp-Neg's, as in `guided_prediction`.
    Raises ConfigError for less than one step and NonFiniteError when the denoiser gives NaN or infinity.
    """
    if steps < 1:
        raise ConfigError(f"{steps} sampling steps; allowed are 1 or more; give a larger number")
    latent = isinstance(denoiser, LatentDenoiser)
    channels, own_size = 3, denoiser.image_size
    if isinstance(denoiser, LatentDenoiser):
        channels, own_size = denoiser.channels, denoiser.latent_size
    size = own_size if size is None else size
    device = conditioning.device
    n = len(conditioning)
    times = torch.linspace(1.0, 1.0 / steps, steps)
    z_t = draw_noise((n, channels, size, size), generator, device)
    # Coefficients in float64: the step's variance is a difference of nearly equal numbers.
    levels = [_level(denoiser, float(t), device) for t in times]
    for i, t in enumerate(times):
        alpha, sigma = levels[i]
        now = t.to(device).expand(n)
        kind, output = guided_prediction(denoiser, z_t, now, conditioning, negative, omega, opposite)
        coefficients = (torch.full((1, 1, 1, 1), c, device=device) for c in (alpha, sigma))
        clean = clean_from(kind, output, z_t, *coefficients)
        check_finite(clean, now)
        clean = clean.clamp(-1, 1) if clip and not latent else clean
        if i + 1 < steps:
            z_t = ancestral_step(z_t, clean, draw_noise(z_t.shape, generator, device), levels[i], levels[i + 1])
        yield clean


def ancestral_sample(
    denoiser: Denoiser,
    conditioning: Conditioning,
    negative: Conditioning,
    omega: float,
    steps: int,
    generator: torch.Generator,
    size: int | None = None,
    clip: bool = True,
    opposite: Negatives | None = None,
) -> Tensor:
    """Images (n, 3, h, w) by DDPM ancestral sampling (fig 7), in [0, 1] when clipped; see `ancestral_steps`."""
    *_, clean = ancestral_steps(denoiser, conditioning, negative, omega, steps, generator, size, clip, opposite)
    return to_images(denoiser, clean, clip)


def to_images(denoiser: Denoiser, clean: Tensor, clip: bool = True) -> Tensor:
    """Images (n, 3, h, w) in [0, 1] of x0 in the model's space, decoded if those are latents; unclipped on request."""
    x = denoiser.decode(clean) if isinstance(denoiser, LatentDenoiser) else clean
    return 0.5 * ((x.clamp(-1, 1) if clip else x) + 1)


def _level(denoiser: Denoiser, t: float, device: torch.device) -> tuple[float, float]:
    alpha, sigma = denoiser.alpha_sigma(torch.tensor([t], device=device))
    return float(alpha[0]), float(sigma[0])
