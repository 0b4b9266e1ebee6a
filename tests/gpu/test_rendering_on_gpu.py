# SPDX-License-Identifier: GPL-3.0-or-later
"""The dense renderer and its gradients on a GPU against the same on the CPU."""

from __future__ import annotations

import pytest

from dreamwright.backend.rendering.marching import DenseMarch
from tests.testing.marching_scenes import marching_scene, render_with_gradients


@pytest.mark.usefixtures("plain_float32")
@pytest.mark.parametrize("kind", ["voxels", "mip-mlp", "hash-grid"])
def test_rendering_and_gradients_equal_those_of_the_cpu(kind: str) -> None:
    """Sums have another order on a GPU: at most 1200 rays x 48 samples = 57,600 terms of float32, 3e-3 of the
    largest.
    """
    results = [render_with_gradients(DenseMarch, marching_scene(kind, device), 0, False) for device in ("cpu", "cuda")]
    (on_cpu, cpu_gradients), (on_gpu, gpu_gradients) = results
    assert on_gpu.image.device.type == "cuda"
    for name in ("image", "opacity", "depth"):
        ours, theirs = getattr(on_gpu, name).detach().cpu(), getattr(on_cpu, name).detach()
        assert float((ours - theirs).abs().max()) <= 3e-3 * float(theirs.abs().max()), name
    # The norm of many such errors of random signs is smaller still.
    for ours, theirs in zip(gpu_gradients, cpu_gradients, strict=True):
        assert float((ours.cpu() - theirs).norm()) <= 3e-3 * float(theirs.norm().clamp(min=1e-6))
