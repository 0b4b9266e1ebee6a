# SPDX-License-Identifier: GPL-3.0-or-later
"""The differentiable rasterizer: images against supersampling, gradients against finite differences."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamwright.backend.cameras.poses import Cameras, orbit_cameras
from dreamwright.backend.geometry.topology import Surface, smooth_groups, vertex_normals
from dreamwright.backend.mesh_rendering.antialias import mesh_edges
from dreamwright.backend.mesh_rendering.normals import corner_normals
from dreamwright.backend.mesh_rendering.rasterize import rasterize
from dreamwright.backend.mesh_rendering.render import MeshRendering, Topology, render_mesh
from dreamwright.backend.mesh_rendering.visibility import covered_pixels, nearest_faces, project
from dreamwright.backend.rendering.shading import Shading, shade
from tests.testing.primitive_meshes import cube, icosphere, two_balls

LIT = Shading("shaded", 0.3, 0.7)


def render_on_black(
    vertices: Tensor,
    faces: np.ndarray,
    colors: Tensor,
    cameras: Cameras,
    resolution: int,
    shading: Shading = Shading(),
    supersampling: int = 1,
    crease: float = 180.0,
) -> MeshRendering:
    """Render on black, with a light beside each camera."""
    topology = Topology.of(vertices.detach().numpy(), faces, crease)
    lights = 1.3 * cameras.position + 0.6 * cameras.rotation[:, :, 0]
    black = torch.zeros(len(cameras), 3)
    return render_mesh(
        topology, vertices, colors, black, cameras, [shading] * len(cameras), lights, resolution, supersampling
    )


def numpy_camera(cameras: Cameras, view: int) -> tuple[np.ndarray, np.ndarray, float]:
    return cameras.position[view].double().numpy(), cameras.rotation[view].double().numpy(), float(cameras.focal[view])


@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), resolution=st.integers(5, 40))
def test_all_views_equal_one_view_at_a_time(seed: int, count: int, resolution: int) -> None:
    """Compares the numpy renderer of one view, which is tested by ray tracing, with the batched tensors."""
    rng = np.random.default_rng(seed)
    vertices, faces = rng.uniform(-0.5, 0.5, (3 * count, 3)), np.arange(3 * count).reshape(count, 3)
    cameras = orbit_cameras(rng.uniform(0, 360, 3), 20.0, 1.6, 1.3)
    projected = project(torch.from_numpy(vertices), cameras, resolution)
    buffer = nearest_faces(projected, torch.from_numpy(faces), resolution)
    seen = covered_pixels(projected, torch.from_numpy(faces), buffer)
    weights = torch.zeros(3 * resolution * resolution, 3, dtype=torch.float64)
    weights[seen.pixel] = seen.weights
    for view in range(3):
        wanted = rasterize(vertices, faces, *numpy_camera(cameras, view), resolution)
        assert np.array_equal(buffer.face[view].numpy(), wanted.face)
        got = weights.view(3, resolution, resolution, 3)[view].numpy()
        # float64 in both; divided by the triangle's area in the image, at least 1e-6 of it where a pixel is covered.
        assert np.abs(got - wanted.barycentric).max() < 1e-9


def test_antialiasing_equals_supersampling() -> None:
    """A ball in front of a bigger one: opacity and color against the numpy rasterizer at 16 x 16 samples a pixel."""
    vertices, faces, colors = two_balls()
    cameras = orbit_cameras([10.0, 100.0], 15.0, 1.9, 1.5)
    got = render_on_black(torch.from_numpy(vertices), faces, torch.from_numpy(colors), cameras, 48)
    hard = render_on_black(torch.from_numpy(vertices), faces, torch.from_numpy(colors), cameras, 48 * 16)
    for view in range(2):
        fine = rasterize(vertices, faces, *numpy_camera(cameras, view), 48 * 16)
        coverage = fine.mask.reshape(48, 16, 48, 16).mean((1, 3))
        # The outlines cross some 5% of the pixels. Their coverage errs by curvature, by corners between two lines of
        # pixel centers and by the reference's 1 / 32 pixel, some hundredths together: 5% x 0.04 = 0.002. Errors of both
        # signs cancel in the mean by half; two outlines (the ball's over the other's) have colors.
        assert np.abs(got.opacity[view, 0].numpy() - coverage).mean() < 0.002
        assert abs(float(got.opacity[view].mean()) - coverage.mean()) < 0.001
        color = fine.interpolate(faces, colors).reshape(48, 16, 48, 16, 3).mean((1, 3))
        assert np.abs(got.image[view].permute(1, 2, 0).numpy() - color).mean() < 0.003
        # At 16 times the resolution an outline of 0.3% of the pixels is a step; a third of them may round either way.
        steps = np.abs((hard.opacity[view, 0].numpy() > 0.5) != fine.mask).mean()
        assert steps < 0.001


def test_shading_is_eq_7_with_smooth_normals() -> None:
    """Against the numpy rasterizer and `shade` of the volume renderer, away from the outline."""
    vertices, faces = icosphere(3, 0.45)
    colors = np.random.default_rng(0).uniform(size=vertices.shape)
    cameras = orbit_cameras([40.0], 25.0, 1.9, 1.5)
    light = 1.3 * cameras.position + 0.6 * cameras.rotation[:, :, 0]
    seen = rasterize(vertices, faces, *numpy_camera(cameras, 0), 40)
    normal = seen.interpolate(faces, vertex_normals(Surface(vertices, faces)))
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    inner = (
        seen.mask
        & np.roll(seen.mask, 1, 0)
        & np.roll(seen.mask, -1, 0)
        & np.roll(seen.mask, 1, 1)
        & np.roll(seen.mask, -1, 1)
    )
    at = [
        torch.from_numpy(values[inner])
        for values in (seen.interpolate(faces, colors), normal, seen.interpolate(faces, vertices))
    ]
    for shading, albedo in ((LIT, at[0]), (Shading("textureless", 0.3, 0.7), torch.ones_like(at[0]))):
        wanted = shade(
            albedo, at[1], at[2], light.double().expand(len(albedo), 3), torch.tensor(0.3), torch.tensor(0.7)
        )
        got = render_on_black(torch.from_numpy(vertices), faces, torch.from_numpy(colors), cameras, 40, shading)
        # Ambient and diffuse are float32 (0.3 and 0.7 to 3e-8), and so are the camera and the light; ten roundings of
        # 6e-8.
        torch.testing.assert_close(got.image[0].permute(1, 2, 0)[torch.from_numpy(inner)], wanted, atol=1e-6, rtol=0)


def smooth_weights(views: int, channels: int, resolution: int) -> Tensor:
    """Weights of a fixed smooth functional of images."""
    grid = torch.linspace(0, 3, resolution, dtype=torch.float64)
    wave = torch.sin(grid[:, None] * 1.7 + 0.4) * torch.cos(grid[None] * 1.3 + 0.2) + 0.3
    return wave * (1 + 0.5 * torch.arange(views * channels).view(views, channels, 1, 1))


@pytest.mark.parametrize("shading", [Shading(), LIT, Shading("textureless", 0.3, 0.7)], ids=lambda s: s.kind)
@pytest.mark.parametrize("crease", [180.0, 40.0])
def test_gradients_equal_central_differences(shading: Shading, crease: float) -> None:
    """Central differences of the antialiased image, in float64 with steps of 1e-6, over which no outline jumps to
    another pixel: positions move interpolation, normals, lights and outlines, so all of these are compared, in two
    views at once.
    """
    vertices, faces, colors = two_balls(1)
    where, what = torch.from_numpy(vertices).requires_grad_(), torch.from_numpy(colors).requires_grad_()
    cameras = orbit_cameras([10.0, 100.0], 15.0, 1.9, 1.5)

    def functional(where: Tensor, what: Tensor) -> Tensor:
        seen = render_on_black(where, faces, what, cameras, 14, shading, 2, crease)
        return (smooth_weights(2, 4, 14) * torch.cat([seen.image, seen.opacity], dim=1)).sum()

    gradients = torch.autograd.grad(functional(where, what), (where, what), allow_unused=True)
    for leaf, gradient in zip((where, what), gradients, strict=True):
        if leaf is what and shading.kind == "textureless":
            assert float(gradient.abs().max()) == 0.0
            continue
        base, rng = leaf.detach(), np.random.default_rng(0)
        for index in zip(rng.integers(0, len(base), 40), rng.integers(0, 3, 40), strict=True):
            step = torch.zeros_like(base)
            step[index] = 1e-6
            with torch.no_grad():
                pair = [functional(*((base + s, what) if leaf is where else (where, base + s))) for s in (step, -step)]
            measured = float(pair[0] - pair[1]) / 2e-6
            # Rounding: 1,568 values of about 1 sum to 1e-16 x 1,568 = 2e-13, over 2e-6: 1e-7 at best, and 2e-5 where an
            # outline's crossing is divided by a slope of 1 / 100. Curvature adds step^2 in relation to the pixel.
            assert float(gradient[index]) == pytest.approx(measured, rel=1e-4, abs=2e-5), (index, shading.kind)
        assert float(gradient.abs().max()) > 0.01


def test_area_gradient_equals_shoelace_formula() -> None:
    """Silhouette motion in closed form: d area / d vertex is half the opposite edge, turned by 90 degrees."""
    cameras = orbit_cameras([0.0], 0.0, 2.0, 1.0)  # x right, z up; one scene unit at the origin is half the width
    vertices = torch.tensor(
        [[-0.55, 0.0, -0.42], [0.63, 0.0, -0.31], [0.07, 0.0, 0.58]], dtype=torch.float64, requires_grad=True
    )
    resolution = 96
    seen = render_on_black(vertices, np.array([[0, 1, 2]]), torch.ones(3, 3, dtype=torch.float64), cameras, resolution)
    area = seen.opacity.sum() * (2.0 / resolution) ** 2  # squared scene units at the triangle's distance
    gradient = torch.autograd.grad(area, vertices)[0].detach()
    x, z = vertices.detach()[:, 0], vertices.detach()[:, 2]
    exact = 0.5 * float((x * z.roll(-1) - x.roll(-1) * z).sum())
    # Antialiasing finds crossings at lines of pixel centers only; corners lose a fraction of a pixel of 96^2.
    assert float(area.detach()) == pytest.approx(exact, rel=1e-3)
    wanted = 0.5 * torch.stack([z.roll(-1) - z.roll(1), x.roll(1) - x.roll(-1)], dim=1)
    # The corners' pixels, two of 96 along an edge, may be attributed to either vertex.
    assert torch.allclose(gradient[:, [0, 2]], wanted, atol=0.02 * float(wanted.abs().max()))


@pytest.mark.parametrize(("subdivisions", "tolerance"), [(2, 0.05), (5, 0.015)])
def test_ball_outline_gradient(subdivisions: int, tolerance: float) -> None:
    """Also with 20,480 faces at 96 pixels, where hardly a face on the outline covers a pixel's center.

    An outline is seen where it crosses lines of pixel centers, so at each of its eight octants half a line may be lost.
    """
    vertices, faces = icosphere(subdivisions, 0.45)
    growth = torch.ones((), dtype=torch.float64, requires_grad=True)
    cameras = orbit_cameras([25.0], 10.0, 1.9, 1.5)
    seen = render_on_black(
        torch.from_numpy(vertices) * growth, faces, torch.ones(len(vertices), 3, dtype=torch.float64), cameras, 96
    )
    area = seen.opacity.sum()
    gradient = float(torch.autograd.grad(area, growth)[0])

    def circle(radius: float) -> float:
        return math.pi * (96 * 1.5) ** 2 * radius**2 / (1.9**2 - radius**2)

    inner = 0.45 * (0.985 if subdivisions == 2 else 1.0)  # a coarse ball lies inside its sphere
    wanted = 0.45 * (circle(inner + 1e-5) - circle(inner - 1e-5)) / 2e-5
    assert gradient == pytest.approx(wanted, rel=tolerance)


@pytest.mark.parametrize("part", ["both", "front"])
def test_occlusion_gradient_equals_supersampling(part: str) -> None:
    """Silhouette motion over the background and over another surface: the derivative of a smooth functional of the
    image, against central differences over half a pixel of images with 24 x 24 samples a pixel.
    """
    vertices, faces, colors = two_balls()
    moved = np.ones(len(vertices)) if part == "both" else (np.arange(len(vertices)) >= len(vertices) // 2).astype(float)
    cameras = orbit_cameras([10.0], 15.0, 1.9, 1.5)
    aside = cameras.rotation[0, :, 0].double() * 0.8 + cameras.rotation[0, :, 1].double() * 0.6
    resolution, samples = 48, 24
    weights = smooth_weights(1, 3, resolution)[0]
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    where = torch.from_numpy(vertices) + shift * torch.from_numpy(moved)[:, None] * aside
    seen = render_on_black(where, faces, torch.from_numpy(colors), cameras, resolution, supersampling=2)
    gradient = float(torch.autograd.grad((weights * seen.image[0]).sum(), shift)[0])

    def measured(shift: float) -> float:
        placed = vertices + shift * moved[:, None] * aside.numpy()
        fine = rasterize(placed, faces, *numpy_camera(cameras, 0), resolution * samples)
        mean = fine.interpolate(faces, colors).reshape(resolution, samples, resolution, samples, 3).mean((1, 3))
        return float((weights.permute(1, 2, 0).numpy() * mean).sum())

    step = 0.25 * 1.9 / (1.5 * resolution)
    # Supersampling quantizes the motion of outlines to 1 / 24 pixel, against a step of half a pixel.
    assert gradient == pytest.approx((measured(step) - measured(-step)) / (2 * step), rel=0.03)


def test_hidden_surfaces_get_no_gradient() -> None:
    """A small ball behind a big one changes no pixel and gets no gradient."""
    small, faces = icosphere(2, 0.1)
    big, big_faces = icosphere(2, 0.4)
    vertices = torch.from_numpy(
        np.concatenate([big, small + np.array([0.0, 0.6, 0.0])])
    ).requires_grad_()  # away from a camera at -Y
    everything = np.concatenate([big_faces, faces + len(big)])
    colors = torch.rand(len(vertices), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = render_on_black(vertices, everything, colors, orbit_cameras([0.0], 0.0, 1.9, 1.5), 48)
    gradient = torch.autograd.grad((smooth_weights(1, 3, 48) * seen.image).sum(), vertices)[0]
    assert float(gradient[: len(big)].abs().max()) > 0.1 and float(gradient[len(big) :].abs().max()) == 0.0


def test_mesh_outside_the_view_renders_the_background() -> None:
    vertices, faces = icosphere(1, 0.3)
    cameras = orbit_cameras([0.0], 0.0, 1.9, 1.5)
    for away in ([0.0, -5.0, 0.0], [9.0, 0.0, 0.0]):
        seen = render_on_black(
            torch.from_numpy(vertices + away),
            faces,
            torch.ones(len(vertices), 3, dtype=torch.float64),
            cameras,
            16,
            LIT,
        )
        assert float(seen.opacity.max()) == 0.0 and float(seen.image.max()) == 0.0


def test_views_render_independently() -> None:
    vertices, faces, colors = two_balls(2)
    cameras = orbit_cameras([0.0, 77.0, 210.0], 15.0, 1.9, 1.5)
    args = (torch.from_numpy(vertices), faces, torch.from_numpy(colors))
    together = render_on_black(*args, cameras, 24, LIT).image
    alone = torch.cat([render_on_black(*args, cameras[view : view + 1], 24, LIT).image for view in range(3)])
    # float64: a few tens of operations on values of about 1, 100 x 1.1e-16 = 1e-14; 100 times that for the division by
    # small areas.
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)


def test_edges_list_their_faces() -> None:
    """A tetrahedron has 6 edges with two faces each. An edge of three faces has no second opposite vertex."""
    tetrahedron = mesh_edges(np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]))
    assert tetrahedron.ends.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert [sorted(pair) for pair in tetrahedron.opposite.tolist()] == [[2, 3], [1, 3], [1, 2], [0, 3], [0, 2], [0, 1]]
    fin = mesh_edges(np.array([[0, 1, 2], [1, 0, 3], [0, 1, 4]]))
    assert dict(zip(map(tuple, fin.ends.tolist()), fin.opposite[:, 1].tolist(), strict=True))[(0, 1)] == -1


def test_creases_split_normals() -> None:
    """A cube's corners have three normals at 30 degrees and one, the diagonal, at 180."""
    vertices, faces = cube(1.0)
    sharp = smooth_groups(vertices, faces, 30.0)
    assert len(np.unique(sharp)) == 24
    where, which = torch.from_numpy(vertices), torch.from_numpy(faces)
    normals = corner_normals(where, which, torch.from_numpy(sharp)).view(-1, 3, 3)
    assert torch.allclose(normals.abs().amax(-1), torch.ones((), dtype=torch.float64)) and torch.allclose(
        normals[:, 0], normals[:, 1]
    )
    round_groups = smooth_groups(vertices, faces, 180.0)
    assert len(np.unique(round_groups)) == 8
    normals = corner_normals(where, which, torch.from_numpy(round_groups))
    assert (
        float((normals * where[which.reshape(-1)]).sum(-1).min()) > 0.7
    )  # of 0.87: area-weighted, so near the diagonal


def test_render_time_of_twenty_thousand_faces() -> None:
    vertices, faces = icosphere(5, 0.45)
    where = torch.from_numpy(vertices).float().requires_grad_()
    cameras = orbit_cameras([25.0], 10.0, 1.9, 1.5)
    topology = Topology.of(vertices, faces, 45.0)
    started = time.process_time()
    seen = render_mesh(
        topology, where, torch.rand(len(vertices), 3), torch.zeros(1, 3), cameras, [LIT], cameras.position, 64, 2
    )
    seen.image.sum().backward()
    # Vectorized: tenths of a second. A Python loop over faces or pixels takes minutes, so this bound tells them apart
    # on any processor.
    assert time.process_time() - started < 15.0
