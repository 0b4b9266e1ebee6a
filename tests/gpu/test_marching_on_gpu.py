# SPDX-License-Identifier: GPL-3.0-or-later
"""nerfacc's CUDA kernels against the dense renderer."""

from __future__ import annotations

import pytest

from dreamwright.backend.rendering import marching
from dreamwright.backend.rendering.marching import DenseMarch, PackedMarch, choose_marching
from tests.testing.marching_scenes import assert_alike, marching_scene, render_with_gradients

MISSING = marching.missing_for_nerfacc()

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs a GPU and nvcc for nerfacc's kernels: {MISSING}")


@pytest.mark.parametrize("kind", ["voxels", "mip-mlp", "hash-grid"])
@pytest.mark.parametrize("jittered", [False, True], ids=["mid-points", "jittered"])
def test_nerfacc_renders_what_the_dense_renderer_renders(kind: str, jittered: bool) -> None:
    assert marching.nerfacc_fault("cuda") == ""
    given = marching_scene(kind, "cuda")
    packed, dense = (render_with_gradients(marcher, given, 16, jittered) for marcher in (PackedMarch, DenseMarch))
    assert_alike(packed, dense)


def test_auto_chooses_nerfacc() -> None:
    assert choose_marching("auto", "cuda")[0] == "nerfacc"
