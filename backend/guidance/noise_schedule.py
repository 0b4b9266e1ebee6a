# SPDX-License-Identifier: GPL-3.0-or-later
"""The noise levels that a pipeline was trained with, read from its scheduler and never assumed.

The continuous time t in [0, 1] means the training step nearest to t (T - 1), counted from the least noise, with T
training steps (ties go up). Diffusion schedulers give alpha_t^2 = alphas_cumprod there, after their own rescaling to
zero terminal SNR where their configuration asks for it; flow schedulers give sigma_t after their own shift, and
alpha_t = 1 - sigma_t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..models.pipeline_folder import PipelineFolder, load_scheduler
from .prediction import PredictionType

PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "sample", "v_prediction")


@dataclass(frozen=True)
class NoiseSchedule:
    """alpha and sigma (T,) float32, least noise first; `timesteps` (T,) are the network's time inputs."""

    alpha: Tensor
    sigma: Tensor
    timesteps: Tensor
    prediction_type: PredictionType

    def to(self, device: torch.device | str) -> NoiseSchedule:
        """The same table on another device."""
        return NoiseSchedule(
            self.alpha.to(device), self.sigma.to(device), self.timesteps.to(device), self.prediction_type
        )

    def index(self, t: Tensor) -> Tensor:
        """Index (n,) in 0..T-1 nearest to t (T - 1), for t (n,) in [0, 1]."""
        last = len(self.alpha) - 1
        return torch.floor(t.double() * last + 0.5).long().clamp(0, last).to(self.alpha.device)


def read_schedule(folder: PipelineFolder, image_tokens: int = 0) -> NoiseSchedule:
    """The schedule of a pipeline folder; `image_tokens` is the sequence length that dynamic shifts depend on.

    Raises ModelError for a scheduler that cannot be read, an unknown prediction type, or levels that make no schedule.
    """
    scheduler = load_scheduler(folder)
    schedule = _flow(folder, scheduler, image_tokens) if folder.family.name == "flow" else _diffusion(folder, scheduler)
    levels = torch.stack([schedule.alpha, schedule.sigma])
    if not bool(torch.isfinite(levels).all()) or bool((schedule.sigma.diff() < 0).any()) or len(schedule.sigma) < 2:
        raise ModelError(
            f"the scheduler of {folder.path} gives no rising noise levels; needed are finite ones; "
            "download the model again, whole"
        )
    return schedule


def _diffusion(folder: PipelineFolder, scheduler: Any) -> NoiseSchedule:
    config = scheduler.config
    kind = config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise ModelError(f"{folder.path} predicts {kind!r}; allowed are {', '.join(PREDICTIONS)}; choose another model")
    if config.get("timestep_type", "discrete") != "discrete":
        raise ModelError(
            f"the scheduler of {folder.path} has timestep_type {config['timestep_type']!r}; allowed is 'discrete', the "
            "training steps; choose another model"
        )
    if kind == "epsilon" and config.get("rescale_betas_zero_snr", False):
        raise ModelError(
            f"{folder.path} predicts epsilon on a schedule that ends without any signal (rescale_betas_zero_snr), "
            "where epsilon determines nothing; allowed are v_prediction and sample; correct its scheduler_config.json"
        )
    # In float64 and clamped, so that a level whose square rounds to 1 keeps a sigma of 0 rather than NaN.
    squared = scheduler.alphas_cumprod.double().clamp(0, 1)
    timesteps = torch.arange(len(squared))
    return NoiseSchedule(squared.sqrt().float(), (1 - squared).sqrt().float(), timesteps, kind)


def _flow(folder: PipelineFolder, scheduler: Any, image_tokens: int) -> NoiseSchedule:
    config = scheduler.config
    if config.get("invert_sigmas", False) or config.get("shift_terminal"):
        raise ModelError(
            f"the scheduler of {folder.path} inverts or stretches its sigmas; allowed are invert_sigmas false and "
            "shift_terminal null; choose a StableDiffusion3Pipeline"
        )
    sigma = scheduler.sigmas.flip(0)
    timesteps = scheduler.timesteps.flip(0)
    if config.get("use_dynamic_shifting", False):
        # The shift grows linearly with the number of image tokens, between two sizes that the configuration names.
        small, large = config["base_image_seq_len"], config["max_image_seq_len"]
        slope = (config["max_shift"] - config["base_shift"]) / (large - small)
        sigma = scheduler.time_shift(config["base_shift"] + slope * (image_tokens - small), 1.0, sigma)
        timesteps = sigma * config["num_train_timesteps"]
    sigma = sigma.float()
    return NoiseSchedule(1 - sigma, sigma, timesteps.float(), "flow")
