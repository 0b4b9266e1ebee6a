# SPDX-License-Identifier: GPL-3.0-or-later
"""The tensors of modules and optimizers by name, for the state of a run and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq", "momentum")  # optimizer state of the shape of its parameter


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, since the device may be out of memory, under names that begin with `prefix`."""
    return {f"{prefix}{name}": value.detach().to("cpu", copy=True) for name, value in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All parameters of an optimizer in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State tensors as "INDEX.KEY", INDEX that of the parameter."""
    entries = optimizer.state_dict()["state"].items()
    return {f"{index}.{key}": value for index, entry in entries for key, value in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], required: bool) -> None:
    """Load the state that `optimizer_tensors` returned.

    Raises ValueError where torch's own load_state_dict does not look: for no state although it is `required`, a state
    without its parameter, or one of another shape.
    """
    entries: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = value
    if required and not entries:
        raise ValueError("the optimizer's state is missing")
    parameters = parameters_of(optimizer)
    for position, entry in entries.items():
        shape = parameters[position].shape if position < len(parameters) else None
        for key in MOMENTS:
            if shape is None or (key in entry and entry[key].shape != shape):
                raise ValueError(f"optimizer.{position}.{key} does not fit its parameter")
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
