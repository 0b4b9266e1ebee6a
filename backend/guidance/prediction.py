# SPDX-License-Identifier: GPL-3.0-or-later
"""Prediction types of diffusion models, and conversions between them.

With z = alpha x + sigma eps, the four kinds are epsilon: eps; sample: x; v_prediction: alpha eps - sigma x;
flow: eps - x. Each conversion is affine in the prediction, with coefficients that depend on t only. Classifier-free
guidance weighs two predictions with weights that sum to one, so it commutes with every conversion: guiding x0, v or
eps is equivalent. All functions take any broadcastable shapes and any float dtype.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow"]
PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)


def guided(conditional: Tensor, unconditional: Tensor, omega: float) -> Tensor:
    """Classifier-free guidance, (1 + omega) conditional - omega unconditional; guidance_scale = 1 + omega."""
    return (1.0 + omega) * conditional - omega * unconditional


def perpendicular(vector: Tensor, direction: Tensor) -> Tensor:
    """The part of each image (n, c, h, w) perpendicular to that of `direction`: v - (v.d / d.d) d; v where d = 0."""
    axes = tuple(range(1, vector.dim()))
    along = (vector * direction).sum(axes, keepdim=True) / direction.square().sum(axes, keepdim=True).clamp(min=1e-12)
    return vector - along * direction


def noise_from(kind: PredictionType, output: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The noise eps that a prediction implies. Raises ValueError for an unknown kind."""
    if kind == "epsilon":
        return output
    if kind == "sample":
        return (z_t - alpha * output) / sigma
    if kind == "v_prediction":
        return (sigma * z_t + alpha * output) / (alpha**2 + sigma**2)
    if kind == "flow":
        return (z_t + alpha * output) / (alpha + sigma)
    raise _unknown(kind)


def clean_from(kind: PredictionType, output: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The clean image x0 that a prediction implies (Tweedie). Raises ValueError for an unknown kind."""
    if kind == "epsilon":
        return (z_t - sigma * output) / alpha
    if kind == "sample":
        return output
    if kind == "v_prediction":
        return (alpha * z_t - sigma * output) / (alpha**2 + sigma**2)
    if kind == "flow":
        return (z_t - sigma * output) / (alpha + sigma)
    raise _unknown(kind)


def output_from(kind: PredictionType, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a model of that kind outputs for a clean image and a noise. Raises ValueError for an unknown kind."""
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return clean
    if kind == "v_prediction":
        return alpha * noise - sigma * clean
    if kind == "flow":
        return noise - clean
    raise _unknown(kind)


def noise_residual(
    kind: PredictionType, output: Tensor, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """eps_hat - eps, where z_t = alpha clean + sigma noise: the image gradient of eq 3 before its weight.

    It is a multiple of (prediction - truth) in the model's own kind, so nothing cancels: through eps_hat, a model that
    predicts x0 would lose eps / sigma of its digits at small sigma. From z = alpha x + sigma eps:
    sample alpha / sigma (x - x_hat), v alpha / (alpha^2 + sigma^2) (v_hat - v), flow alpha / (alpha + sigma)
    (u_hat - u). It holds for guided predictions too, as guidance commutes with the conversion.
    Raises ValueError for an unknown kind.
    """
    return noise_difference(kind, output - output_from(kind, clean, noise, alpha, sigma), alpha, sigma)


def noise_difference(kind: PredictionType, difference: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The difference of the noises that two predictions imply at one z_t, given their `difference`.

    Raises ValueError for an unknown kind.
    """
    if kind == "epsilon":
        return difference
    if kind == "sample":
        return -(alpha / sigma) * difference
    if kind == "v_prediction":
        return alpha / (alpha**2 + sigma**2) * difference
    if kind == "flow":
        return alpha / (alpha + sigma) * difference
    raise _unknown(kind)


def rescaled(
    kind: PredictionType,
    output: Tensor,
    conditional: Tensor,
    z_t: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    share: float,
    together: int = 1,
) -> Tensor:
    """CFG rescale (Lin et al. 2023, eq 15 and 16): a guided output whose x0_hat has less of the excess contrast.

    x0_hat is multiplied by share std(x0_c) / std(x0_hat) + 1 - share, where x0_c is that of the conditional output. Lin
    et al. rescale the network's own output, image by image. As MVDream's code does, this rescales x0, and takes one
    deviation over each `together` rows of (n, c, h, w). The noise that the output implies changes with it at fixed z_t.
    """
    clean, wanted = (clean_from(kind, part, z_t, alpha, sigma) for part in (output, conditional))
    ratio = _deviation(wanted, together) / _deviation(clean, together).clamp(min=1e-8)
    change = share * (ratio - 1) * clean
    # What a prediction changes by when x0 does is linear: z_t stays, so alpha dx + sigma deps = 0.
    return output + output_from(kind, change, -(alpha / sigma) * change, alpha, sigma)


def _deviation(images: Tensor, together: int) -> Tensor:
    """Standard deviation of all numbers of each `together` images in a row, for each of them (n, 1, 1, 1)."""
    return images.reshape(len(images) // together, -1).std(1).repeat_interleave(together).view(-1, 1, 1, 1)


def _unknown(kind: str) -> ValueError:
    return ValueError(f"prediction type {kind!r}; allowed are {', '.join(PREDICTION_TYPES)}")
