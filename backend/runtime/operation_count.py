# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of a computation, counted while it runs: on the device "meta" no number is computed, so it takes no time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Work:
    """What a device does.

    flops: floating-point operations of matrix products, convolutions and attention, a multiplication and an addition
    being two. moved: bytes that all other operations read and write. calls: operations, each of which has a latency.
    """

    flops: float = 0.0
    moved: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.moved + other.moved, self.calls + other.calls)

    def times(self, factor: float) -> Work:
        """The same work `factor` times."""
        return Work(factor * self.flops, factor * self.moved, factor * self.calls)

    def larger(self, factor: float) -> Work:
        """The same operations on `factor` times as many numbers."""
        return Work(factor * self.flops, factor * self.moved, self.calls)


def count_work(run: Callable[[], object]) -> Work:
    """The work of `run`; with a backward pass if it has one."""
    counter = _Counter()
    with _FusedAttention(counter), counter:
        run()
    return Work(counter.flops, counter.moved, counter.calls)


def attention_flops(rows: int, queries: int, keys: int, width: int, value_width: int) -> int:
    """2 rows queries keys (width + value_width): Q K^T and its product with V. `rows`: batch times heads."""
    return 2 * rows * queries * keys * (width + value_width)


class _Counter(TorchDispatchMode):
    """Adds up every operation that reaches a device."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.moved = self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(_WRITTEN_IN_PLACE.get(func._overloadpacket, func._overloadpacket))
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
            self.calls += 1
        elif not func.is_view and func._overloadpacket not in _FREE:
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in _tensors((args, kwargs, out)))
            self.calls += 1
        return out


class _FusedAttention(TorchFunctionMode):
    """Counts attention without gradient as one fused operation, since a meta tensor takes the unfused way."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_attention = func is functional.scaled_dot_product_attention and args[0].device.type == "meta"
        if not is_attention or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in args[:3])):
            return func(*args, **kwargs)
        query, key, value = args[:3]
        rows = query.shape[:-2].numel()
        self._counter.flops += attention_flops(rows, query.shape[-2], key.shape[-2], query.shape[-1], value.shape[-1])
        self._counter.calls += 1
        return query.new_empty((*query.shape[:-1], value.shape[-1]))


_WRITTEN_IN_PLACE = {torch.ops.aten.addmm_: torch.ops.aten.addmm, torch.ops.aten.baddbmm_: torch.ops.aten.baddbmm}
_FREE = frozenset(  # that move nothing
    getattr(torch.ops.aten, name) for name in ("empty", "empty_strided", "empty_like", "new_empty", "_unsafe_view")
)


def _tensors(values: object) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
