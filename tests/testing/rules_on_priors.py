# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of distillation on Gaussian priors of known means, and estimates of the renders' score with closed forms."""

from __future__ import annotations

import dataclasses

import torch

from dreamwright.backend.config.schema import GuidanceConfig
from dreamwright.backend.guidance.sds import ScoreDistillation
from tests.testing.gaussian_priors import conditioned, seeded
from tests.testing.oracles import GaussianOracle, cosine_schedule

STD = 0.3
GUIDED = GuidanceConfig(omega=7.0)


def at(t: float, **changes: object) -> GuidanceConfig:
    """Settings of one time."""
    return dataclasses.replace(GUIDED, t_min=t, t_max=t, t_max_end=t, **changes)


class Recording(GaussianOracle):
    """Records the rows and the times of each call."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.times = []

    @property
    def rows(self):
        return [len(t) for t in self.times]

    def predict_noise(self, z_t, t, conditioning):
        self.times.append(t.tolist())
        return super().predict_noise(z_t, t, conditioning)


class Exact:
    """An estimate that is another oracle's prediction, and learns nothing."""

    learner = None

    def __init__(self, oracle) -> None:
        self.oracle, self.calls = oracle, []

    def predict(self, z_t, draws):
        self.calls.append(len(z_t))
        return self.oracle.predict_noise(z_t, draws.t, draws.positive)

    def learn(self, draws):
        return 0.0


class PointMass(Exact):
    """The score of renders that are one image each: eps = (z_t - alpha x) / sigma."""

    def __init__(self) -> None:
        super().__init__(None)

    def predict(self, z_t, draws):
        return (z_t - draws.alpha * draws.clean) / draws.sigma


def gradient(config, oracle, image, prompts, seed=0, estimate=None, conditioning=None, progress=0.0):
    guidance = ScoreDistillation(oracle, config, estimate)
    conditioning = conditioned(oracle, prompts) if conditioning is None else conditioning
    return guidance.gradient(image, None, conditioning, seeded(seed), progress)


def levels(t: float, schedule=cosine_schedule) -> tuple[float, float, float]:
    """alpha, sigma and the prior's noised variance."""
    alpha, sigma = (float(level) for level in schedule(torch.tensor(t, dtype=torch.float64)))
    return alpha, sigma, alpha**2 * STD**2 + sigma**2
