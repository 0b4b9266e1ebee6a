# SPDX-License-Identifier: GPL-3.0-or-later
"""Loops compiled by numba for the CPU: how they are compiled, how tensors reach them, how threads share them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

OPTIONS: Any = {"error_model": "numpy", "fastmath": {"contract", "nsz"}}
inlined: Any = njit(inline="always", **OPTIONS)


def compiled(loop: Callable[..., Any]) -> Any:
    """A loop as machine code, kept on disk where any cache folder can be written.

    The interpreter's lock is free while it runs, so that threads share the work.
    """
    try:
        return njit(nogil=True, cache=True, **OPTIONS)(loop)
    except RuntimeError:  # numba finds no folder; compiling takes seconds in each process then
        return njit(nogil=True, **OPTIONS)(loop)


def run_parts(function: Callable[[int], Any], parts: int) -> list[Any]:
    """`function` of each part, on as many threads as torch may use; results in the parts' order."""
    threads = min(parts, torch.get_num_threads())
    if threads <= 1:
        return [function(part) for part in range(parts)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, range(parts)))


def array(values: Tensor) -> NDArray[Any]:
    """The contiguous array of a CPU tensor."""
    numbers: NDArray[Any] = values.detach().contiguous().numpy()
    return numbers
