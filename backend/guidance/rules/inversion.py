# SPDX-License-Identifier: GPL-3.0-or-later
"""Score Distillation via Inversion (Lukoianov et al. 2024): the noise is the one that DDIM would have begun with."""

from __future__ import annotations

import torch
from torch import Tensor

from ...config.schema import GuidanceConfig
from ..interfaces import Denoiser, Draws, Learner
from ..prediction import clean_from, noise_from, noise_residual
from .sds import clean_error, guided_output

SMALLEST_SIGMA = 1e-3  # below it a prediction of x0 determines no noise


class InvertedNoise:
    """SDI: eps_hat(z_t) - kappa, z_t = alpha_t x + sigma_t kappa, kappa by DDIM inversion. Implements `Rule`.

    Lukoianov et al. 2024, "Score Distillation via Reparametrized DDIM", arXiv:2405.15891. The render x is taken from
    t = 0 to t along DDIM's trajectory under the prompt, with the weight `guidance.inversion_omega` of its own,

        z_s' = alpha_s' x0_hat(z_s) + sigma_s' eps_hat(z_s) + eta nu_s' xi,

    at s = 0, h, 2 h, ..., t with h = 1 / `guidance.inversion_steps`; nu is the deviation of DDPM's step from s' to s,
    xi unit noise, eta `guidance.inversion_eta`. With eta = 0 the gradient has no noise but that of t.
    Calls of the network: ceil(t / h) of the inversion, for those views that are not at their t yet, and one at t.
    """

    learner: Learner | None = None

    def __init__(self, denoiser: Denoiser, config: GuidanceConfig) -> None:
        self.denoiser, self.config = denoiser, config

    def residual(self, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        """See `Rule`; the scalar clean_error is the root mean square of x - x0_hat in the model's units."""
        z_t = self.inverted(draws)
        noise = (z_t - draws.alpha * draws.clean) / draws.sigma
        kind, output = guided_output(self.denoiser, self.config, draws, z_t, self.config.omega)
        residual = noise_residual(kind, output, draws.clean, noise, draws.alpha, draws.sigma)
        return residual, {"clean_error": clean_error(residual, draws)}

    def inverted(self, draws: Draws) -> Tensor:
        """z_t of each row, from its x."""
        z, steps = draws.clean.clone(), self.config.inversion_steps
        for step in range(steps):
            # Numbers are drawn for all rows, so that they do not depend on how a step's views are split.
            xi = self._xi(draws)
            begin = step / steps
            rows = torch.nonzero(draws.t > begin).flatten()
            if len(rows):
                now = draws.rows(rows).at(self.denoiser, begin)
                then = now.at(self.denoiser, draws.t[rows].clamp(max=(step + 1) / steps))
                z[rows] = self._step(z[rows], now, then, None if xi is None else xi[rows])
        return z

    def _step(self, z: Tensor, now: Draws, then: Draws, xi: Tensor | None) -> Tensor:
        kind, output = guided_output(self.denoiser, self.config, now, z, self.config.inversion_omega)
        clean = clean_from(kind, output, z, now.alpha, now.sigma)
        noise = noise_from(kind, output, z, now.alpha, now.sigma.clamp(min=SMALLEST_SIGMA))
        moved = then.alpha * clean + then.sigma * noise
        if xi is None:
            return moved
        # As in `sampling.ancestral_step`, from the higher level `then` to the lower one `now`.
        ratio = then.alpha / now.alpha
        added = (then.sigma.square() - ratio.square() * now.sigma.square()).clamp(min=0)
        return moved + self.config.inversion_eta * added.sqrt() * now.sigma / then.sigma * xi

    def _xi(self, draws: Draws) -> Tensor | None:
        return draws.noise() if self.config.inversion_eta > 0 else None
