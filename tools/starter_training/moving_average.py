# SPDX-License-Identifier: GPL-3.0-or-later
"""Exponential moving average of a module's weights."""

from __future__ import annotations

import torch


class MovingAverage:
    """values <- d values + (1 - d) weights with d = min(`decay`, (1 + step) / (10 + step)), which is small at first."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        """Average in the weights after `step` steps (1 for the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)
