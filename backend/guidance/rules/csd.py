# SPDX-License-Identifier: GPL-3.0-or-later
"""Classifier Score Distillation (Yu et al. 2023): the part of a guided score that tells the prompt from no prompt."""

from __future__ import annotations

from torch import Tensor

from ...config.schedules import linear
from ...config.schema import GuidanceConfig
from ...errors import ConfigError
from ..classifier_free import predictions, weighted_aside
from ..interfaces import Denoiser, Draws, Learner
from ..prediction import noise_difference


class ClassifierScore:
    """CSD: omega (eps_c - eps_u), -sigma_t times the score of an implicit classifier p(y | z_t). Implements `Rule`.

    Yu et al. 2023, "Text-to-3D with Classifier Score Distillation", arXiv:2310.19415. SDS is this term and
    eps_c - eps. With a negative prompt, its form omega (eps_c - eps_0) - omega s (eps_n - eps_0), where eps_0 is that
    of the empty prompt, eps_n of the negative one and s goes linearly from `guidance.csd_negative` to
    `guidance.csd_negative_end`; s = 1 is omega (eps_c - eps_n). Perp-Neg subtracts omega w p.
    One call of the network: 2 rows a draw of a view, 3 with an s other than 1, and 1 or 2 more with Perp-Neg.
    Raises ConfigError for omega = 0, which leaves nothing.
    """

    learner: Learner | None = None

    def __init__(self, denoiser: Denoiser, config: GuidanceConfig) -> None:
        if config.omega == 0:
            raise ConfigError(
                "guidance.rule is csd and guidance.omega is 0, which leaves no gradient; allowed is an omega above 0; "
                "set guidance.omega, or guidance.rule=sds"
            )
        self.denoiser, self.config = denoiser, config

    def negative_share(self, progress: float) -> float:
        """s at this progress in [0, 1]."""
        return linear(self.config.csd_negative, self.config.csd_negative_end, 1.0, progress)

    def residual(self, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        """See `Rule`; no scalars."""
        config, share = self.config, self.negative_share(draws.progress)
        z_t = draws.alpha * draws.clean + draws.sigma * draws.noise()
        # Where the negative prompt is the empty one, or weighs as much as it, the empty one cancels.
        empty = None if share == 1 else draws.empty
        aside = draws.opposite
        others = () if aside is None else aside.prompts
        asked = [part for part in (draws.positive, draws.negative, empty, *others) if part is not None]
        kind, outputs = predictions(self.denoiser, z_t, draws.t, asked)
        conditional, negative = outputs[:2]
        base = negative if empty is None else outputs[2]
        direction = conditional - base
        if aside is not None:
            direction = direction - weighted_aside(outputs[-len(others) :], aside.weights, base, conditional - base)
        if empty is not None:
            direction = direction - share * (negative - base)
        return config.omega * noise_difference(kind, direction, draws.alpha, draws.sigma), {}
