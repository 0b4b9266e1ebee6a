# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright doctor`: versions, device, memory and models of this machine, and how to get what is missing."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from typing import Any

PACKAGES = ("torch", "diffusers", "transformers", "nerfacc", "PyMCubes", "numpy", "safetensors", "bpy")


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments: none."""
    parser: argparse.ArgumentParser = subparsers.add_parser("doctor", help="check this machine", description=__doc__)
    return parser


def nerfacc_mode() -> str:
    """Which ray marcher is used, in words."""
    from ..rendering.marching import missing_for_nerfacc

    missing = missing_for_nerfacc()
    if missing:
        return f"not used ({missing}): rays are marched by the built-in dense path"
    return "its CUDA kernels march rays on the GPU; the first run compiles them (minutes, once)"


def run(options: argparse.Namespace) -> int:
    """Print the report; returns 1 when no model can be used, else 0."""
    import torch

    from ..models.local import local_models
    from ..models.memory_estimate import free_bytes, size_text

    print(f"python {platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        try:
            print(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            advice = (
                'only needed for dreamwright demo and to train the starter: pip install "dreamwright[blender]"'
                if name == "bpy"
                else f"pip install {name}"
            )
            print(f"{name} missing ({advice})")
    device = (
        f"cuda: {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "cpu (no CUDA device found by torch)"
    )
    print(f"device {device}; {torch.get_num_threads()} threads of {os.cpu_count()} processors")
    memory = free_bytes("cpu")
    print(
        f"memory available: {size_text(memory)}" if memory is not None else "memory available: unknown on this system"
    )
    print(f"nerfacc: {nerfacc_mode()}")
    models = local_models()
    for model in models:
        print(
            f"model {model.name}: {'here, ' + str(model.folder) if model.available else 'missing; ' + model.how_to_get}"
        )
    usable = any(model.available for model in models)
    print("ready" if usable else "not ready: no model is on this machine")
    return 0 if usable else 1
