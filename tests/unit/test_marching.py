# SPDX-License-Identifier: GPL-3.0-or-later
"""Packed marching (nerfacc's, for GPUs) against dense marching, on a CPU; `tests/gpu` has the same on a GPU."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.cli.doctor import nerfacc_mode
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.rendering import marching
from dreamwright.backend.rendering.compositing import packed_weights, rendering_weights
from dreamwright.backend.rendering.marching import DenseMarch, PackedMarch, choose_marching
from dreamwright.backend.rendering.occupancy import OccupancyGrid
from tests.testing.marching_scenes import assert_alike, marching_scene, render_with_gradients
from tests.testing.rank_scenarios import run_of
from tests.testing.tiny_model import quick_config
from tests.unit.test_compositing import weights_by_loop

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import nerfacc

    from tests.testing.nerfacc_on_cpu import HostKernel, compiler


@given(st.lists(st.integers(0, 30), min_size=1, max_size=7), st.floats(0.01, 300.0), st.integers(0, 10_000))
def test_packed_weights_equal_a_float64_loop(counts: list[int], scale: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    ray = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    tau = scale * torch.rand(len(ray), generator=draw, dtype=torch.float64)
    deltas = 0.1 * torch.rand(len(ray), generator=draw, dtype=torch.float64)
    weights, _ = packed_weights(tau, deltas, ray, len(counts))
    for index in range(len(counts)):
        own = ray == index
        # Optical depths of at most 210 samples of at most 30 sum to 6,300 in float64: they err by at most
        # 210 x 6,300 x 1.1e-16 = 1.5e-10, and exp(-depth) by the same share; 1 - exp(-x) loses 1e-16.
        torch.testing.assert_close(
            weights[own], weights_by_loop(tau[own][None], deltas[own][None])[0], rtol=1e-9, atol=1e-14
        )


def test_packed_weights_and_gradients_equal_dense_ones(generator: torch.Generator) -> None:
    """In float32, after rays that have gathered an optical depth of a million."""
    dense = (30 * torch.rand(9, 40, generator=generator)).requires_grad_()
    wall = torch.full((1000,), 1e4)
    packed = dense.detach().clone().requires_grad_()
    ray = torch.cat([torch.zeros(1000, dtype=torch.long), torch.arange(1, 10).repeat_interleave(40)])
    ours, transmittance = packed_weights(torch.cat([wall, packed.view(-1)]), 0.1, ray, 10)
    theirs, their_transmittance = rendering_weights(dense, torch.full((9, 1), 0.1))
    # float32: a depth D, a sum of at most 40 terms, errs by 40 x 6e-8 D, and exp(-D) by at most 40 x 6e-8 / e = 9e-7.
    torch.testing.assert_close(ours[1000:].view(9, 40), theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(transmittance[1000:].view(9, 40), their_transmittance, rtol=0, atol=1e-6)
    probe = torch.rand(9, 40, generator=generator)
    (ours[1000:].view(9, 40) * probe).sum().backward()
    (theirs * probe).sum().backward()
    # 0.1 (the step) times a transmittance and a sum of 40 weighted terms: 0.1 x (9e-7 + 9e-7 + 40 x 6e-8) = 4e-7.
    torch.testing.assert_close(packed.grad, dense.grad, rtol=0, atol=5e-7)


def test_packed_sums_along_rays_equal_nerfaccs(generator: torch.Generator) -> None:
    """Summation is the only packed operation of nerfacc that has a CPU implementation."""
    ray = torch.sort(torch.randint(0, 12, (200,), generator=generator))[0]
    tau = 20 * torch.rand(200, generator=generator)
    weights, _ = packed_weights(tau, 0.05, ray, 12)
    colors = torch.rand(200, 3, generator=generator)
    theirs = nerfacc.accumulate_along_rays(weights, colors, ray_indices=ray, n_rays=12)
    torch.testing.assert_close(torch.zeros(12, 3).index_add(0, ray, weights[:, None] * colors), theirs)
    # A float32 sum of at most 200 weights: 200 x 6e-8.
    assert float(nerfacc.accumulate_along_rays(weights, None, ray_indices=ray, n_rays=12).max()) <= 1 + 1.2e-5


def every_place(
    origins: torch.Tensor,
    directions: torch.Tensor,
    occupancy: OccupancyGrid,
    near: torch.Tensor,
    far: torch.Tensor,
    step: float,
):
    """Reference for nerfacc's kernel: tests the occupancy of every sample position."""
    places = int(torch.ceil((far - near) / step).max()) + 1 if len(near) else 0
    t = near[:, None] + (torch.arange(places) + 0.5) * step
    mu = origins[:, None] + t[..., None] * directions[:, None]
    kept = (t < far[:, None]) & occupancy.contains(mu.view(-1, 3)).view(t.shape)
    return torch.nonzero(kept)[:, 0], t[kept]


def packed_with(traverse: Callable[..., Any]) -> type[PackedMarch]:
    """The GPU path with another sampling kernel."""
    return type("PackedOnCpu", (PackedMarch,), {"traverse": staticmethod(traverse)})


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> HostKernel:
    if compiler() is None:
        pytest.skip(
            "no C++ compiler here: nerfacc's own kernel cannot be built for the CPU; install g++ to run this test"
        )
    return HostKernel(tmp_path_factory.mktemp("kernel"))


@pytest.mark.parametrize("jittered", [False, True], ids=["mid-points", "jittered"])
@pytest.mark.parametrize("occupied", [0, 16], ids=["all cells", "occupied cells"])
@pytest.mark.parametrize("kind", ["voxels", "mip-mlp", "hash-grid"])
def test_packed_renderer_equals_dense_renderer(kind: str, occupied: int, jittered: bool) -> None:
    """Image, opacity, depth, normals, eq 10 and the gradients of all of them."""
    given = marching_scene(kind)
    assert_alike(
        render_with_gradients(packed_with(every_place), given, occupied, jittered),
        render_with_gradients(DenseMarch, given, occupied, jittered),
    )


@pytest.mark.parametrize("jittered", [False, True], ids=["mid-points", "jittered"])
@pytest.mark.parametrize("occupied", [0, 16], ids=["all cells", "occupied cells"])
def test_nerfacc_kernel_finds_the_dense_samples(
    kernel: HostKernel, occupied: int, jittered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its CUDA source, compiled for the CPU, gives the same positions, cells and axis order."""
    monkeypatch.setattr(nerfacc.grid, "traverse_grids", kernel)
    given = marching_scene("voxels")
    assert_alike(
        render_with_gradients(PackedMarch, given, occupied, jittered),
        render_with_gradients(DenseMarch, given, occupied, jittered),
    )


def test_empty_grid_and_missed_rays_show_the_background(kernel: HostKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nerfacc.grid, "traverse_grids", kernel)
    grid = OccupancyGrid(4, 0.6, 0.01)
    grid.occupied.fill_(False)
    marched: list[int] = []
    traverse = nerfacc.grid.traverse_grids
    monkeypatch.setattr(
        nerfacc.grid,
        "traverse_grids",
        lambda origins, *rest, **more: (marched.append(len(origins)), traverse(origins, *rest, **more))[1],
    )
    rays = torch.tensor([[0.0, -2.0, 0.0], [5.0, -2.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    for marcher in (PackedMarch, packed_with(every_place)):
        march = marcher(*rays, grid, 16, 0.075, None)
        composed = march.composite(torch.zeros(len(march.mu)))
        assert len(march.mu) == 0 and composed.opacity.tolist() == [0.0, 0.0] and composed.depth.tolist() == [0.0, 0.0]
        # nerfacc's launcher divides by the number of rays, so it is not called without rays.
        assert len(marcher(*(tensor[1:] for tensor in rays), grid, 16, 0.075, None).mu) == 0
    assert marched == [1]


def test_cpu_marches_densely_and_refuses_nerfacc() -> None:
    assert choose_marching("auto", "cpu") == ("dense", "") == choose_marching("dense", "cpu")
    with pytest.raises(ConfigError, match="not on a CUDA device.*auto and dense"):
        choose_marching("nerfacc", "cpu")


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that CUDA is available; the cached kernel check is reset before and after."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    marching.nerfacc_fault.cache_clear()
    yield monkeypatch
    marching.nerfacc_fault.cache_clear()


def test_gpu_without_nvcc_falls_back_with_a_warning(pretended_gpu: pytest.MonkeyPatch) -> None:
    pretended_gpu.setattr(shutil, "which", lambda name: None)
    kind, notice = choose_marching("auto", "cuda:0")
    assert kind == "dense" and "no nvcc" in notice
    assert choose_marching("dense", "cuda:0") == ("dense", "")
    assert "no nvcc" in nerfacc_mode()
    with pytest.raises(ConfigError, match="no nvcc"):
        choose_marching("nerfacc", "cuda:0")


@pytest.mark.parametrize(
    ("found", "reason"), [(RuntimeError("ptxas fell over\nmore"), "ptxas fell over"), (3, "3 samples instead of 4")]
)
def test_broken_kernels_fall_back_with_the_reason(pretended_gpu: pytest.MonkeyPatch, found: Any, reason: str) -> None:
    pretended_gpu.setattr(shutil, "which", lambda name: "/usr/bin/nvcc")

    class Faulty:
        def __init__(self, *_: Any) -> None:
            if isinstance(found, Exception):
                raise found
            self.mu = torch.zeros(found, 3)

        def composite(self, tau: torch.Tensor) -> Any:
            return marching.Composite(tau, tau, tau, tau)

    pretended_gpu.setattr(marching, "PackedMarch", Faulty)
    pretended_gpu.setattr(OccupancyGrid, "to", lambda self, device: self)
    for name in ("tensor", "ones"):
        plain = getattr(torch, name)
        pretended_gpu.setattr(torch, name, lambda *a, plain=plain, **k: plain(*a))
    kind, notice = choose_marching("auto", "cuda:0")
    assert kind == "dense" and reason in notice and "\n" not in notice


def test_gpu_self_test_finds_four_samples() -> None:
    """The self-test of `nerfacc_fault`: a sphere of radius 1, four steps of one half."""
    march = packed_with(every_place)(
        torch.tensor([[0.0, 0.0, -2.0]]), torch.tensor([[0.0, 0.0, 1.0]]), OccupancyGrid(0, 1.0, 0.0), 4, 0.5, None
    )
    assert march.mu[:, 2].tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_run_uses_the_configured_marcher() -> None:
    run = run_of(quick_config("render.marching=dense"))
    assert run.scene.renderer.marcher is DenseMarch and run.scene.warnings == ()
    with pytest.raises(ConfigError, match="render.marching"):
        run_of(quick_config("render.marching=nerfacc"))
