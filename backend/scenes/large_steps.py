# SPDX-License-Identifier: GPL-3.0-or-later
"""Smooth steps of vertices: x = (I + stiffness L)^-1 u, optimized in u (Nicolet et al. 2021, "Large Steps").

A gradient on x reaches u smoothed by the same matrix, so that one noisy pixel moves a neighborhood and not a vertex.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import splu
from torch import Tensor


class LargeStepsParameterization:
    """The factorised matrix of one mesh: Cholesky-like sparse LU in float64 on the CPU, made once."""

    def __init__(self, laplacian: csr_matrix, stiffness: float) -> None:
        self.matrix = (identity(laplacian.shape[0], format="csc") + stiffness * laplacian).tocsc()
        factor = splu(self.matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        self._solve: Callable[[np.ndarray], np.ndarray] = factor.solve

    def solve(self, values: Tensor) -> Tensor:
        """(I + stiffness L)^-1 of values (V, k), differentiable; the matrix is symmetric, so its transpose is itself."""
        return _Solve.apply(values, self)

    def plain(self, values: Tensor) -> Tensor:
        """The same without a gradient."""
        solved = self._solve(values.detach().cpu().double().numpy())
        return torch.from_numpy(np.ascontiguousarray(solved)).to(values)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, steps: LargeStepsParameterization) -> Tensor:
        ctx.steps = steps
        return steps.plain(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.steps.plain(gradient), None


class UniformAdam(torch.optim.Optimizer):
    """Adam whose step sizes are one for a whole tensor: m / (sqrt(max v) + epsilon), with bias correction.

    Entries that hardly ever get a gradient stay where they are instead of moving as far as the others, and directions
    are kept (Nicolet et al. 2021, appendix). A group with `uniform` False is plain Adam, each entry with a step size of its own.
    """

    def __init__(
        self, groups: list[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.99), epsilon: float = 1e-12
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "epsilon": epsilon, "uniform": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every parameter that has a gradient."""
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
