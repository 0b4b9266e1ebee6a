# SPDX-License-Identifier: GPL-3.0-or-later
"""Adam with one step size for a whole tensor, for vertices (appendix of Nicolet et al. 2021, "Large Steps")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .closure import closure_loss


class UniformAdam(torch.optim.Optimizer):
    """Adam with step size lr m / (sqrt(max v) + epsilon), bias-corrected: directions of rows are kept.

    Entries that seldom get a gradient stay, instead of moving as far as the others. A group with `uniform` False is
    plain Adam with a step size for each entry. Groups carry their "rate", which the scene turns into "lr" every step.
    """

    def __init__(
        self, groups: list[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.99), epsilon: float = 1e-12
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "epsilon": epsilon, "uniform": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # overloads
        """One update of every parameter that has a gradient; returns the closure's loss."""
        loss = closure_loss(closure)
        for group in self.param_groups:
            low, high = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                count = float(state["step"])
                state["exp_avg"].lerp_(parameter.grad, 1 - low)
                state["exp_avg_sq"].lerp_(parameter.grad.square(), 1 - high)
                square = state["exp_avg_sq"].max() if group["uniform"] else state["exp_avg_sq"]
                size = (square / (1 - high**count)).sqrt() + group["epsilon"]
                parameter.sub_(group["lr"] / (1 - low**count) * state["exp_avg"] / size)
        return loss
