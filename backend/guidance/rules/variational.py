# SPDX-License-Identifier: GPL-3.0-or-later
"""Variational Score Distillation (Wang et al. 2023): the renders' own score, estimated, in place of the noise."""

from __future__ import annotations

from torch import Tensor

from ...config.schema import GuidanceConfig
from ..interfaces import Denoiser, Draws, Learner, ScoreEstimate
from ..prediction import noise_difference
from .sds import guided_output


class VariationalScore:
    """VSD: eps_hat(z_t) - eps_lora(z_t, camera) with z_t = alpha_t x + sigma_t eps. Implements `Rule`.

    Wang et al. 2023, "ProlificDreamer", arXiv:2305.16213, eq 9. eps_lora is -sigma_t times the score of the noised
    renders, so it is the gradient of KL(q_t | p_t): renders keep the variety of the prior's samples, and it is zero
    everywhere where both distributions agree. With the exact score of a single render, eps_lora = eps, it is SDS. The
    estimate is trained on the renders of each step with the loss |prediction - truth|^2.
    Calls of the network a view: SDS's, 1 row a draw of the estimate, and 1 row to train it, which has a graph.
    """

    def __init__(self, denoiser: Denoiser, config: GuidanceConfig, estimate: ScoreEstimate) -> None:
        self.denoiser, self.config, self.estimate = denoiser, config, estimate

    @property
    def learner(self) -> Learner | None:
        """See `Rule`."""
        return self.estimate.learner

    def residual(self, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        """See `Rule`; the scalar lora_loss is the estimate's loss on these renders, before it learns from them."""
        z_t = draws.alpha * draws.clean + draws.sigma * draws.noise()
        kind, output = guided_output(self.denoiser, self.config, draws, z_t, self.config.omega)
        own = self.estimate.predict(z_t, draws)
        loss = self.estimate.learn(draws)
        return noise_difference(kind, output - own, draws.alpha, draws.sigma), {"lora_loss": loss}
