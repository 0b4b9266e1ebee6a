# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of distillation: from the predictions at z_t to a direction in the model's space (`interfaces.Rule`)."""

from __future__ import annotations

from ...config.schema import GuidanceConfig
from ...errors import ConfigError
from ..interfaces import Denoiser, Rule, ScoreEstimate
from .csd import ClassifierScore
from .inversion import InvertedNoise
from .sds import GuidedNoise
from .variational import VariationalScore

__all__ = ["ClassifierScore", "GuidedNoise", "InvertedNoise", "VariationalScore", "make_rule"]


def make_rule(denoiser: Denoiser, config: GuidanceConfig, estimate: ScoreEstimate | None = None) -> Rule:
    """The rule of `guidance.rule`. `estimate`: of the renders' own score, which "vsd" needs and no other rule takes.

    Raises ConfigError for settings that leave a rule nothing to follow, and for "vsd" without an estimate.
    """
    if config.rule == "csd":
        return ClassifierScore(denoiser, config)
    if config.rule == "sdi":
        return InvertedNoise(denoiser, config)
    if config.rule == "vsd":
        if estimate is None:
            raise ConfigError(
                "guidance.rule is vsd, but nothing here estimates the score of the renders; allowed here are sds, csd "
                "and sdi; choose one of them"
            )
        return VariationalScore(denoiser, config, estimate)
    return GuidedNoise(denoiser, config)
