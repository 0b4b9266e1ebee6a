# SPDX-License-Identifier: GPL-3.0-or-later
"""Large-steps parameterization of vertices: x = (I + stiffness L)^-1 u, optimized in u (Nicolet et al. 2021).

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
        """(I + stiffness L)^-1 of values (V, k), differentiable; the matrix is its own transpose."""
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
