# SPDX-License-Identifier: GPL-3.0-or-later
"""The optional argument of an optimizer's step."""

from __future__ import annotations

from collections.abc import Callable

import torch


def closure_loss(closure: Callable[[], float] | None) -> float | None:
    """The loss that the closure computes anew, with gradients; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
