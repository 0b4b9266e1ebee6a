# SPDX-License-Identifier: GPL-3.0-or-later
"""Classifier-free guidance of one denoiser call, and the noise and the check that sampling and SDS share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import NonFiniteError
from ..runtime.rng import sample_for_views
from ..text.conditioning import Conditioning, Negatives
from .interfaces import CameraAware, Denoiser, NativeDenoiser
from .prediction import PredictionType, guided, perpendicular, rescaled


def predictions(
    denoiser: Denoiser, z_t: Tensor, t: Tensor, parts: Sequence[Conditioning]
) -> tuple[PredictionType, tuple[Tensor, ...]]:
    """The predictions at z_t (n, c, h, w) under each of the conditionings, by one call: (kind, outputs like z_t).

    They are of the denoiser's own kind where it is a `NativeDenoiser`, else noise.
    """
    if isinstance(denoiser, NativeDenoiser):
        kind, predict = denoiser.prediction_type, denoiser.predict_raw
    else:
        kind, predict = "epsilon", denoiser.predict_noise
    n = len(parts)
    if n == 1:
        return kind, (predict(z_t, t, parts[0]),)
    return kind, predict(torch.cat([z_t] * n), torch.cat([t] * n), Conditioning.stack(parts)).chunk(n)


def guided_prediction(
    denoiser: Denoiser,
    z_t: Tensor,
    t: Tensor,
    positive: Conditioning,
    negative: Conditioning,
    omega: float,
    opposite: Negatives | None = None,
    rescale: float = 0.0,
) -> tuple[PredictionType, Tensor]:
    """Classifier-free guidance from one call of the denoiser on 2 n images: (kind, guided output (n, 3, h, w)).

    With omega = 0 the negative prompt has no weight and is left out. A `NativeDenoiser` is guided in its own kind of
    prediction, which is equivalent and has fewer roundings. `opposite` adds n images a prompt and is Perp-Neg
    (Armandpour et al. 2023): u + (1 + omega) (c - u - sum weight p), where p is the part of o - u that is perpendicular
    to c - u. It leads away from other views, and never away from the prompt itself. `rescale` in [0, 1] is the share of
    `prediction.rescaled`, over the views that the denoiser sees together.
    """
    if omega == 0:
        kind, (output,) = predictions(denoiser, z_t, t, [positive])
        return kind, output
    parts = [positive, negative, *(opposite.prompts if opposite is not None else ())]
    kind, outputs = predictions(denoiser, z_t, t, parts)
    conditional, unconditional = outputs[:2]
    output = guided(conditional, unconditional, omega)
    if opposite is not None:
        direction = conditional - unconditional
        output = output - weighted_aside(outputs[2:], opposite.weights, unconditional, direction, 1 + omega)
    if rescale > 0:
        together = denoiser.views_together(positive) if isinstance(denoiser, CameraAware) else 1
        alpha, sigma = (c.to(z_t).view(-1, 1, 1, 1) for c in denoiser.alpha_sigma(t))
        output = rescaled(kind, output, conditional, z_t, alpha, sigma, rescale, together)
    return kind, output


def weighted_aside(
    outputs: Sequence[Tensor], weights: Sequence[Tensor], base: Tensor, direction: Tensor, scale: float = 1.0
) -> Tensor:
    """scale sum_k weight_k p_k, p_k the part of output_k - base that is perpendicular to `direction` (Perp-Neg).

    Outputs, base and direction (n, c, h, w); weights (n,) each.
    """
    parts = [
        (scale * weight).to(base).view(-1, 1, 1, 1) * perpendicular(output - base, direction)
        for output, weight in zip(outputs, weights, strict=True)
    ]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def draw_noise(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Unit Gaussian noise, sampled on the generator's device, so that a seed gives equal numbers on every device."""
    return sample_for_views(torch.randn, shape, generator).to(device)


def check_finite(values: Tensor, t: Tensor) -> None:
    """Raise NonFiniteError when a denoiser returned NaN or infinity for finite images."""
    bad = ~torch.isfinite(values).flatten(1).all(dim=1)
    if bool(bad.any()):
        where = ", ".join(f"{time:.3f}" for time in t[bad].tolist()[:4])
        raise NonFiniteError(
            f"the denoiser returned NaN or infinity for {int(bad.sum())} of {len(bad)} images (t = {where}) though its "
            "inputs were finite; predictions must be finite; use float32 weights or a smaller guidance.omega"
        )
