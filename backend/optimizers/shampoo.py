# SPDX-License-Identifier: GPL-3.0-or-later
"""Distributed Shampoo (Anil et al. 2020, arXiv:2002.09018) with SQRT_N grafting, as DreamFusion's appendix A.2 uses it.

Every state is a tensor, as safetensors and an exact resume need; pytorch-optimizer's `ScalableShampoo` with
`LayerWiseGrafting.SQRTN` keeps its statistics in Python objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .closure import closure_loss


def inverse_root(matrix: Tensor, root: int, epsilon: float) -> Tensor:
    """(A + epsilon max(eig A) I)^(-1/root) of a symmetric positive semi-definite matrix (k, k)."""
    eigenvalues, vectors = torch.linalg.eigh(matrix.double())
    ridge = epsilon * eigenvalues[-1].clamp(min=1e-30)
    powers = (eigenvalues.clamp(min=0) + ridge).pow(-1.0 / root)
    return ((vectors * powers) @ vectors.T).to(matrix.dtype)


def blocks_of(matrix: Tensor, size: int) -> list[Tensor]:
    """Views of a matrix in tiles of at most size x size, row by row."""
    return [tile for rows in matrix.split(size, 0) for tile in rows.split(size, 1)]


class Shampoo(torch.optim.Optimizer):
    """theta <- theta - lr (u + beta1 m), m <- beta1 m + u, u = L^(-1/p) G R^(-1/p) rescaled to norm sqrt(N).

    L and R are decayed sums of G G^T and G^T G of each block (beta2). Parameters of one dimension, and all parameters
    before `start_step`, take the grafted update alone: sign(G), whose norm is sqrt(N) too. Roots are refreshed every
    `root_interval` steps.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.9),
        epsilon: float = 1e-6,
        block_size: int = 128,
        exponent_override: int = 2,
        start_step: int = 5,
        root_interval: int = 10,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "epsilon": epsilon,
            "block_size": block_size,
            "exponent_override": exponent_override,
            "start_step": start_step,
            "root_interval": root_interval,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # overloads
        """One update of every parameter that has a gradient."""
        loss = closure_loss(closure)
        for group in self.param_groups:
            beta1, _ = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["momentum"] = torch.zeros_like(parameter)
                update = self._update(parameter.grad, state, group)
                state["step"] += 1
                state["momentum"].mul_(beta1).add_(update)
                parameter.add_(update + beta1 * state["momentum"], alpha=-group["lr"])  # Nesterov
        return loss

    def _update(self, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        """The grafted update, of norm sqrt(N)."""
        graft = gradient.sign()
        if gradient.dim() < 2:
            return graft
        step = int(state["step"])
        matrix = gradient.reshape(gradient.shape[0], -1)
        update = torch.empty_like(matrix)
        tiles = zip(blocks_of(matrix, group["block_size"]), blocks_of(update, group["block_size"]), strict=True)
        beta2 = group["betas"][1]
        for index, (tile, target) in enumerate(tiles):
            for side, statistic in (("left", tile @ tile.T), ("right", tile.T @ tile)):
                key = f"{side}.{index}"
                if key not in state:
                    state[key] = torch.zeros_like(statistic)
                    state[f"{key}.root"] = torch.eye(len(statistic), dtype=statistic.dtype, device=statistic.device)
                state[key].mul_(beta2).add_(statistic, alpha=1 - beta2)
                if step >= group["start_step"] and (step - group["start_step"]) % group["root_interval"] == 0:
                    state[f"{key}.root"] = inverse_root(state[key], group["exponent_override"], group["epsilon"])
            target.copy_(state[f"left.{index}.root"] @ tile @ state[f"right.{index}.root"])
        norm = update.norm()
        if step < group["start_step"] or not bool(norm > 0):
            return graft
        return (update * (update.numel() ** 0.5 / norm)).view_as(gradient)
