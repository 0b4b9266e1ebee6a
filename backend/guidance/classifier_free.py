# SPDX-License-Identifier: GPL-3.0-or-later
"""Classifier-free guidance of one denoiser call, and the noise and the check that sampling and SDS share."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import NonFiniteError
from ..runtime.rng import sample_for_views
from ..text.conditioning import Conditioning
from .interfaces import Denoiser, NativeDenoiser
from .prediction import PredictionType, guided, perpendicular


def guided_prediction(
    denoiser: Denoiser,
    z_t: Tensor,
    t: Tensor,
    positive: Conditioning,
    negative: Conditioning,
    omega: float,
    opposite: Conditioning | None = None,
    opposite_weight: float = 0.0,
) -> tuple[PredictionType, Tensor]:
    """Classifier-free guidance from one call of the denoiser on 2 n images: (kind, guided output (n, 3, h, w)).

    With omega = 0 the negative prompt has no say and is left out. A denoiser that offers its own kind of prediction is
    guided in that kind, which is the same thing with fewer roundings.
    `opposite` makes it 3 n images and Perp-Neg (Armandpour et al. 2023): u + (1 + omega) (c - u - weight p), with p what
    of o - u is perpendicular to c - u: away from how the opposite view looks, never away from the prompt itself.
    """
    if isinstance(denoiser, NativeDenoiser):
        kind, predict = denoiser.prediction_type, denoiser.predict_raw
    else:
        kind, predict = "epsilon", denoiser.predict_noise
    if omega == 0:
        return kind, predict(z_t, t, positive)
    asked = [positive, negative] if opposite is None or opposite_weight == 0 else [positive, negative, opposite]
    answers = predict(torch.cat([z_t] * len(asked)), torch.cat([t] * len(asked)), Conditioning.stack(asked)).chunk(
        len(asked)
    )
    conditional, unconditional = answers[:2]
    output = guided(conditional, unconditional, omega)
    if len(asked) == 3:
        aside = perpendicular(answers[2] - unconditional, conditional - unconditional)
        output = output - (1 + omega) * opposite_weight * aside
    return kind, output


def draw_noise(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Unit Gaussian noise drawn where the generator lives, so that a seed means the same on every device."""
    return sample_for_views(torch.randn, shape, generator).to(device)


def check_finite(values: Tensor, t: Tensor) -> None:
    """Raise NonFiniteError when a denoiser, fed finite images, answered NaN or infinity."""
    bad = ~torch.isfinite(values).flatten(1).all(dim=1)
    if bool(bad.any()):
        where = ", ".join(f"{time:.3f}" for time in t[bad].tolist()[:4])
        raise NonFiniteError(
            f"the denoiser answered NaN or infinity for {int(bad.sum())} of {len(bad)} images (t = {where}) though its "
            "inputs were finite; predictions must be finite; use float32 weights or a smaller guidance.omega"
        )
