# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory layout and compilation of a network, which change its speed and not what it computes."""

from __future__ import annotations

import shutil

import torch

from ..config.schema import ModelConfig
from ..errors import ConfigError


def accelerate(network: torch.nn.Module, config: ModelConfig) -> None:
    """Lay out and compile the network in place. Results are equal up to rounding; the first call takes minutes.

    "reduce-overhead" records CUDA graphs, which pay for small networks and batches that never change; on a CPU it is
    "default". Raises ConfigError where compiling is asked for and cannot be done.
    """
    if config.compile != "off" and config.offload != "off":
        raise ConfigError(
            f"model.compile is {config.compile} and model.offload {config.offload}; allowed is one of them; "
            "set the other to off"
        )
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks the keyword
    if config.compile == "off":
        return
    device = next(network.parameters()).device
    missing = missing_for_compiling(device)
    if missing:
        raise ConfigError(
            f"model.compile is {config.compile}, but {missing}; allowed here is off; install it or change the setting"
        )
    # The number of views is constant during a run, so one shape is compiled; a resumed run may compile another one.
    network.compile(mode=None if config.compile == "default" else config.compile, dynamic=False)


def missing_for_compiling(device: torch.device) -> str:
    """What torch.compile lacks for this device, "" when nothing is."""
    if device.type == "cpu":
        return "" if any(map(shutil.which, ("g++", "clang++", "c++"))) else "there is no C++ compiler on PATH (g++)"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "the package triton is missing, which compiles for GPUs"
    return ""
