# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory layout and compilation of a network, which change its speed and not what it computes."""

from __future__ import annotations

import platform
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
        raise ConfigError(f"model.compile is {config.compile}, but {missing}; allowed here is off")
    # The number of views is constant during a run, so one shape is compiled; a resumed run may compile another one.
    network.compile(mode=None if config.compile == "default" else config.compile, dynamic=False)


def missing_for_compiling(device: torch.device) -> str:
    """What torch.compile lacks for this device, "" when nothing is."""
    if device.type == "cpu":
        if not any(map(shutil.which, ("g++", "clang++", "c++"))):
            return "there is no C++ compiler on PATH (install g++)"
        # The C++ that torch generates for x86-64 without AVX2 does not compile: it names vector types all the same.
        is_plain = torch.backends.cpu.get_cpu_capability() == "DEFAULT"
        return "this CPU lacks AVX2" if is_plain and platform.machine() in ("x86_64", "AMD64") else ""
    try:
        import triton  # noqa: F401
    except ImportError:
        return "the package triton is missing, which compiles for GPUs (install it)"
    return ""
