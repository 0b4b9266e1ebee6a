# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled renderer of voxels against the general one: values, gradients, choice and refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from dreamwright.backend.cameras.poses import orbit_cameras
from dreamwright.backend.config.schema import FieldConfig, RenderConfig
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.fields import build_field, compiled_loops
from dreamwright.backend.fields.dense_grids import DenseGrids
from dreamwright.backend.rendering import voxel_kernels as kernels
from dreamwright.backend.rendering.compositing import rendering_weights
from dreamwright.backend.rendering.marching import DenseMarch
from dreamwright.backend.rendering.renderer import Renderer
from dreamwright.backend.rendering.renderer_choice import build_renderer
from dreamwright.backend.rendering.shading import Shading
from dreamwright.backend.rendering.voxel_renderer import VoxelRenderer
from tests.testing.marching_scenes import assert_alike, marching_scene, render_with_gradients
from tests.testing.rank_scenarios import run_of
from tests.testing.tiny_model import quick_config

VOXELS = FieldConfig(kind="voxels", voxel_resolutions=(6,), bounding_radius=0.6, density_bias="linear")
GRAY = torch.full((1, 144, 3), 0.4)


@pytest.mark.parametrize(
    "numbers", [{}, {"smallest_weight": 1e-3, "early_stop_transmittance": 1e-2}], ids=["all", "seen"]
)
@pytest.mark.parametrize("jittered", [False, True], ids=["mid-points", "jittered"])
@pytest.mark.parametrize("occupied", [0, 16], ids=["all cells", "occupied cells"])
def test_compiled_loops_equal_the_general_renderer(occupied: int, jittered: bool, numbers: dict[str, float]) -> None:
    """Image, opacity, depth, normals, eq 10 and the gradients of all of them; one view of each kind of light."""
    scene = marching_scene("voxels")
    assert_alike(
        render_with_gradients(VoxelRenderer, scene, occupied, jittered, **numbers),
        render_with_gradients(DenseMarch, scene, occupied, jittered, **numbers),
    )


@settings(max_examples=15)
@given(
    kind=st.sampled_from(["exp", "softplus"]),
    shading=st.sampled_from([Shading(), Shading("shaded", 0.2, 0.8), Shading("textureless", 0.3, 0.7)]),
    size=st.integers(2, 9),
    strength=st.floats(0.1, 60.0),  # of raw values: from fog to beyond where exp is cut off and softplus is linear
    seed=st.integers(0, 10_000),
)
def test_random_fields_render_alike(kind: str, shading: Shading, size: int, strength: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    field = build_field(replace(VOXELS, density_activation=kind, voxel_resolutions=(size,)), draw)
    for parameter in field.parameters():
        parameter.data = strength * torch.randn(parameter.shape, generator=draw)
    cameras = orbit_cameras([float(seed % 360)], 20.0, 1.9, 1.5)
    light, probe = torch.randn(1, 3, generator=draw), torch.rand(1, 3, 12, 12, generator=draw)
    found = []
    for renderer in (VoxelRenderer(RenderConfig(samples=24), 0.6), Renderer(RenderConfig(samples=24), 0.6)):
        field.begin_step(0.5)
        rendering = renderer.render(field, GRAY, cameras, [shading], light, 12)
        total = (rendering.image * probe).sum() + rendering.opacity.sum() + rendering.orientation.sum()
        gradients = torch.autograd.grad(total, list(field.parameters()))
        found.append((rendering.image.detach(), rendering.opacity.detach(), gradients))
    (image, opacity, gradients), (their_image, their_opacity, their_gradients) = found
    # A position errs by some 1e-7 and raw by its slope, at most 60 x 8 vertices a unit, times that; density and
    # 24 samples of 0.05 multiply it by up to 60,000 x 0.05 where exp is cut off, but there a pixel is opaque: what is
    # left is below 1e-3 of a pixel's range.
    torch.testing.assert_close(image, their_image, rtol=0, atol=1e-3)
    torch.testing.assert_close(opacity, their_opacity, rtol=0, atol=1e-3)
    for ours, theirs in zip(gradients, their_gradients, strict=True):
        assert float((ours - theirs).norm() / theirs.norm().clamp(min=1e-3)) < 2e-2


@given(st.lists(st.floats(0, 400), min_size=1, max_size=40), st.floats(0.001, 0.2))
def test_weights_of_a_ray_are_equation_five(densities: list[float], step: float) -> None:
    """A ray through a grid that is constant: w_i of `rendering_weights` in float64."""
    raw = np.full(8, np.float32(densities[0]))
    samples = len(densities)
    offsets, corner_weights = np.empty(8, np.int64), np.empty(8, np.float32)
    kernels.corner_offsets(2, offsets)
    place, slope, transmittance, visible = (np.empty(samples, np.float32) for _ in range(4))
    count = kernels.march_ray(
        np.zeros(3, np.float32), np.array([0, 0, 1], np.float32), np.float32(0), np.float32(0.5), np.float32(step),
        np.float32(100), np.zeros((0, 0, 0), bool), samples, raw, 2, offsets, corner_weights, kernels.SOFTPLUS,
        np.float32(1), place, slope, transmittance, visible,
    )  # fmt: skip
    assert count == samples
    tau = torch.nn.functional.softplus(torch.full((1, samples), float(raw[0]), dtype=torch.float64))
    weights, before = rendering_weights(tau, torch.full((1, 1), float(np.float32(step)), dtype=torch.float64))
    # Each factor 1 - alpha errs by 6e-8 absolutely, and 40 of them are multiplied: 40 x 1.2e-7 = 5e-6.
    np.testing.assert_allclose(visible, weights[0].numpy(), rtol=0, atol=5e-6)
    np.testing.assert_allclose(transmittance, before[0].numpy(), rtol=0, atol=5e-6)


class LeafGrids:
    """A field whose dense grids are leaves, so that their gradients come from the compiled loops alone."""

    def __init__(self, field: Any) -> None:
        grids = field.dense_grids(True)
        raw, appearance = (grid.detach().clone().requires_grad_() for grid in (grids.raw, grids.appearance))
        self._field, self.grids = field, replace(grids, raw=raw, appearance=appearance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._field, name)

    def dense_grids(self, _with_normals: bool) -> DenseGrids:
        return self.grids

    def parameters(self) -> list[torch.Tensor]:
        return [self.grids.raw, self.grids.appearance]


def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    """Bit by bit in the compiled loops; the matrix products of the field's levels are torch's, which promises less."""
    scene, before = marching_scene("voxels"), torch.get_num_threads()
    scene["field"] = LeafGrids(scene["field"])
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            rendering, gradients = render_with_gradients(VoxelRenderer, scene, 16, True)
            found.append((rendering.image.detach(), *gradients))
    finally:
        torch.set_num_threads(before)
    for numbers in zip(*found, strict=True):
        assert float(numbers[0].abs().max()) > 0
        assert all(torch.equal(one, numbers[0]) for one in numbers[1:])


def test_a_rendering_barely_depends_on_the_number_of_threads() -> None:
    scene, before = marching_scene("voxels"), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(render_with_gradients(VoxelRenderer, scene, 16, True))
    finally:
        torch.set_num_threads(before)
    (one, one_gradients), (other, other_gradients) = found
    # Matrix products of ten terms may sum in another order: ten roundings of 6e-8, and as many again behind them.
    torch.testing.assert_close(one.image, other.image, rtol=0, atol=2e-6)
    for a, b in zip(one_gradients, other_gradients, strict=True):
        assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(a.abs().max()))


def test_rays_that_miss_show_the_background() -> None:
    field = build_field(VOXELS, torch.Generator().manual_seed(0))
    field.begin_step(0.0)
    away = orbit_cameras([0.0], 20.0, 60.0, 40.0)  # the sphere is a dot in the middle
    with torch.no_grad():
        rendering = VoxelRenderer(RenderConfig(samples=8), 0.6).render(
            field, GRAY, away, [Shading()], torch.zeros(1, 3), 12
        )
    corner = rendering.image[0, :, 0, 0]
    assert torch.equal(corner, torch.full((3,), 0.4)) and float(rendering.depth[0, 0, 0, 0]) == 0


def test_renderer_is_chosen_by_field_and_setting() -> None:
    auto, mlp = RenderConfig(), FieldConfig(kind="mip-mlp")
    assert type(build_renderer(auto, VOXELS, "cpu")[0]) is VoxelRenderer
    assert type(build_renderer(replace(auto, marching="dense"), VOXELS, "cpu")[0]) is Renderer
    assert type(build_renderer(auto, mlp, "cpu")[0]) is Renderer
    assert type(build_renderer(auto, replace(VOXELS, density_bias_on="density"), "cpu")[0]) is Renderer
    forced = replace(auto, marching="compiled")
    with pytest.raises(ConfigError, match=r"render.marching is compiled, but field.kind is mip-mlp.*auto and dense"):
        build_renderer(forced, mlp, "cpu")
    with pytest.raises(ConfigError, match=r"field.density_bias_on is density"):
        build_renderer(forced, replace(VOXELS, density_bias_on="density"), "cpu")


def test_a_field_without_grids_is_rendered_by_arrays() -> None:
    field = build_field(FieldConfig(kind="mip-mlp", hidden_width=8, hidden_blocks=1), torch.Generator().manual_seed(0))
    field.begin_step(0.0)
    view = (field, GRAY, orbit_cameras([0.0], 0.0, 2.0, 1.5), [Shading()], torch.zeros(1, 3), 12)
    images = [kind(RenderConfig(samples=8), 1.4).render(*view).image for kind in (VoxelRenderer, Renderer)]
    assert torch.equal(*images)


def test_runs_of_voxels_use_it() -> None:
    assert isinstance(run_of(quick_config()).scene.renderer, VoxelRenderer)


def test_loops_compile_without_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_folder(**options: object) -> object:
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(compiled_loops, "njit", without_folder)
    assert compiled_loops.compiled(lambda x: x + 1)(2) == 3
