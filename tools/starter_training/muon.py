# SPDX-License-Identifier: GPL-3.0-or-later
"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalized, for the hidden layers of the prior.

`torch.optim.Muon` accepts no convolutions and computes in bfloat16, which CPUs without AVX-512 emulate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from dreamwright.backend.optimizers.closure import closure_loss

# p(x) = a x + b x^3 + c x^5 maps singular values in (0, 1] to about 1 within five rounds.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonalized(matrix: Tensor) -> Tensor:
    """Approximately U V^T of a matrix (m, n) = U S V^T; singular values are within 0.7 to 1.2.

    Newton-Schulz: X <- (a I + b X X^T + c (X X^T)^2) X. All rounds commute with X_0 X_0^T. They are computed on that
    small matrix and multiplied by X_0 once, which is a fifth of the work for n far above m.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalized(matrix.T).T
    a, b, c = QUINTIC
    x = matrix / (matrix.norm() + 1e-7)
    gram = x @ x.T
    eye = torch.eye(len(gram), dtype=x.dtype, device=x.device)
    product = eye
    for _ in range(ROUNDS):
        now = product @ gram @ product  # X_k X_k^T
        product = (a * eye + b * now + c * now @ now) @ product
    return product @ x


class Muon(torch.optim.Optimizer):
    """theta <- (1 - lr wd) theta - lr 0.2 sqrt(max(m, n)) O, O the orthogonalized Nesterov momentum.

    The factor gives each update the usual size of AdamW's, so that both share a learning rate. Parameters (m, ...) with
    two dimensions or more; a convolution (out, in, h, w) counts as the matrix (out, in h w).
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # overloads
        """One update from the current gradients; `closure` as for torch's optimizers."""
        loss = closure_loss(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                scale = 0.2 * max(update.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(orthogonalized(update).view_as(parameter), alpha=-group["lr"] * scale)
        return loss
