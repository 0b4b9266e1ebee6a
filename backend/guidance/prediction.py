# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversions between what diffusion networks predict: epsilon, v, sample (x0) and flow.

z_t = alpha x0 + sigma eps throughout. v = alpha eps - sigma x0 needs alpha^2 + sigma^2 = 1; flow = eps - x0 needs
alpha + sigma = 1. All tensors (n, ...), alpha and sigma broadcastable to them.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from dreamwright.backend.errors import ModelError

PredictionType = Literal["epsilon", "v_prediction", "sample", "flow"]
PREDICTION_TYPES: tuple[str, ...] = ("epsilon", "v_prediction", "sample", "flow")
SMALLEST_SIGMA = 1e-3  # below it, epsilon from x0 would be a quotient of rounding errors


def noise_from(kind: str, prediction: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """eps from a network's prediction. Raises ModelError for an unknown kind."""
    if kind == "epsilon":
        return prediction
    if kind == "v_prediction":
        return alpha * prediction + sigma * z_t
    if kind == "sample":
        return (z_t - alpha * prediction) / sigma.clamp(min=SMALLEST_SIGMA)
    if kind == "flow":
        return z_t + alpha * prediction
    raise ModelError(f"prediction type {kind!r}; allowed are {', '.join(PREDICTION_TYPES)}; use a model with one of these")


def sample_from_noise(noise: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x0_hat = (z_t - sigma eps) / alpha (Tweedie)."""
    return (z_t - sigma * noise) / alpha.clamp(min=1e-4)


def prediction_from_noise(kind: str, noise: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The inverse of `noise_from`."""
    sample = sample_from_noise(noise, z_t, alpha, sigma)
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return alpha * noise - sigma * sample
    if kind == "sample":
        return sample
    if kind == "flow":
        return noise - sample
    raise ModelError(f"prediction type {kind!r}; allowed are {', '.join(PREDICTION_TYPES)}; use a model with one of these")
