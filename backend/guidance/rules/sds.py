# SPDX-License-Identifier: GPL-3.0-or-later
"""Score Distillation Sampling, and the guided prediction and the distance to x0_hat that other rules share."""

from __future__ import annotations

from torch import Tensor

from ...config.schema import GuidanceConfig
from ..classifier_free import guided_prediction
from ..interfaces import Denoiser, Draws, Learner
from ..prediction import PredictionType, noise_residual


class GuidedNoise:
    """SDS: eps_hat - eps with z_t = alpha_t x + sigma_t eps (Poole et al. 2022, DreamFusion, eq 3). Implements `Rule`.

    eps_hat = (1 + omega) eps_c - omega eps_u. In the mean over eps it is -sigma_t times the difference of two scores,
    that of the guided model and that of the render's own z_t, so single renders go to a mode of the guided model.
    One call of the network: 1, 2 or 3 rows a draw of a view, without guidance, with it, and with Perp-Neg.
    """

    learner: Learner | None = None

    def __init__(self, denoiser: Denoiser, config: GuidanceConfig) -> None:
        self.denoiser, self.config = denoiser, config

    def residual(self, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        """See `Rule`; the scalar clean_error is the root mean square of x - x0_hat in the model's units."""
        noise = draws.noise()
        z_t = draws.alpha * draws.clean + draws.sigma * noise
        kind, output = guided_output(self.denoiser, self.config, draws, z_t, self.config.omega)
        residual = noise_residual(kind, output, draws.clean, noise, draws.alpha, draws.sigma)
        return residual, {"clean_error": clean_error(residual, draws)}


def guided_output(
    denoiser: Denoiser, config: GuidanceConfig, draws: Draws, z_t: Tensor, omega: float
) -> tuple[PredictionType, Tensor]:
    """(kind, guided prediction) at z_t and the draws' times, with Perp-Neg and CFG rescale as `config` says."""
    return guided_prediction(
        denoiser,
        z_t,
        draws.t,
        draws.positive,
        draws.negative,
        omega,
        draws.opposite,
        config.rescale,
    )


def clean_error(residual: Tensor, draws: Draws) -> float:
    """Root mean square of x - x0_hat = sigma / alpha (eps_hat - eps), for any kind of prediction."""
    return float((draws.sigma / draws.alpha.clamp(min=1e-6) * residual).square().mean().sqrt())
