# SPDX-License-Identifier: GPL-3.0-or-later
"""The rasterizer agrees with closed forms and with a ray-tracing reference, and its time is bounded."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.geometry.extract import extract_surface, refine_surface, sample_density_grid
from dreamwright.backend.geometry.topology import vertex_normals
from dreamwright.backend.mesh_rendering.rasterize import orbit_axes, rasterize, render_vertex_colors
from tests.testing.analytic_fields import AnalyticField, sphere


def camera(azimuth: float, elevation: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    axes = orbit_axes(azimuth, elevation)
    return distance * axes[:, 2], axes


def rays_of(position: np.ndarray, rotation: np.ndarray, focal: float, resolution: int) -> np.ndarray:
    """(r, r, 3) unit directions through pixel centers, straight from docs/developer/conventions.md."""
    directions = np.zeros((resolution, resolution, 3))
    for row in range(resolution):
        for column in range(resolution):
            x = ((column + 0.5) / resolution - 0.5) / focal
            y = (0.5 - (row + 0.5) / resolution) / focal
            d = x * rotation[:, 0] + y * rotation[:, 1] - rotation[:, 2]
            directions[row, column] = d / np.linalg.norm(d)
    return directions


def trace(origin: np.ndarray, direction: np.ndarray, corners: np.ndarray) -> tuple[float, int, np.ndarray]:
    """Nearest hit by solving o + t d = a + u (b - a) + v (c - a), one triangle at a time: (t, face, barycentric)."""
    best = (math.inf, -1, np.zeros(3))
    for face, (a, b, c) in enumerate(corners):
        matrix = np.stack([b - a, c - a, -direction], axis=1)
        if abs(np.linalg.det(matrix)) < 1e-14:
            continue
        u, v, t = np.linalg.solve(matrix, origin - a)
        if u >= 0 and v >= 0 and u + v <= 1 and 0 < t < best[0]:
            best = (t, face, np.array([1 - u - v, u, v]))
    return best


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), focal=st.floats(0.7, 2.0))
def test_faces_depths_and_weights_equal_ray_tracing(seed: int, count: int, focal: float) -> None:
    generator = np.random.default_rng(seed)
    vertices = generator.uniform(-0.5, 0.5, size=(3 * count, 3))
    faces = np.arange(3 * count).reshape(count, 3)
    position, rotation = camera(generator.uniform(0, 360), generator.uniform(-60, 80), 1.5)
    seen = rasterize(vertices, faces, position, rotation, focal, 14)
    directions = rays_of(position, rotation, focal, 14)
    for row in range(14):
        for column in range(14):
            t, face, weights = trace(position, directions[row, column], vertices[faces])
            assert seen.face[row, column] == face
            if face >= 0:
                # float64. Weights are divided by the triangle's area in the image, at least 1e-6 of it where a pixel's
                # center is covered: 1e-16 / 1e-6 = 1e-10 in the depth, and a few of these in the weights.
                assert seen.depth[row, column] == pytest.approx(t, rel=1e-9)
                assert np.abs(seen.barycentric[row, column] - weights).max() < 1e-9


def sphere_surface(resolution: int = 40):
    field = AnalyticField(sphere(0.5), bounding_radius=0.7)
    grid = sample_density_grid(field, resolution)
    return refine_surface(field, grid, extract_surface(grid, 100.0), 100.0)


def test_sphere_silhouette_depth_and_normals() -> None:
    surface = sphere_surface()
    normals = vertex_normals(surface)
    position, rotation = camera(40.0, 25.0, 1.4)
    colors = surface.vertices + 0.5
    rendering = render_vertex_colors(surface.vertices, surface.faces, colors, normals, position, rotation, 0.9, 64)
    directions = rays_of(position, rotation, 0.9, 64)
    along = -(directions @ position)
    miss = np.sqrt(1.4**2 - along**2)
    # Edges of up to sqrt(3) cells of 0.036 are chords that cut 0.062^2 / (8 x 0.5) = 0.001 off the radius.
    clear = np.abs(miss - 0.5) > 0.004
    assert np.array_equal(rendering.mask[clear], (miss < 0.5)[clear])
    inner = miss < 0.45
    expected = along - np.sqrt(np.maximum(0.25 - miss**2, 0))
    # Rays with a miss of 0.45 meet the surface with a cosine of 0.44: 0.001 / 0.44 = 0.0023 of depth, four times that.
    assert np.abs(rendering.depth - expected)[inner].max() < 0.01
    hit = position + expected[..., None] * directions
    # Faces tilt by 0.062 / 2 from the sphere, and the depth's error by 0.0023 / 0.5: cos(0.036) = 0.9994.
    assert (np.einsum("hwc,hwc->hw", rendering.normal, hit / 0.5)[inner] > 0.99).all()
    # Colors are positions, so they err as depths do; a pixel is 0.024 wide.
    assert np.abs(rendering.color - (hit + 0.5))[inner].max() < 0.01
    assert (rendering.color[~rendering.mask] == 1.0).all()


def test_azimuth_90_looks_from_plus_x() -> None:
    vertices = np.array([[0.0, 0.3, 0.3], [0.0, 0.4, 0.3], [0.0, 0.3, 0.4]])  # to +Y and up
    faces = np.array([[0, 1, 2]])
    rows, columns = np.nonzero(rasterize(vertices, faces, *camera(90.0, 0.0, 2.0), 1.0, 64).mask)
    assert columns.min() > 32 and rows.max() < 32  # +Y is to the right of the camera at +X


def test_geometry_behind_the_camera_is_not_rendered() -> None:
    vertices = np.array([[-1.0, 0, -1], [1, 0, -1], [0, 0, 1]])
    position, rotation = camera(0.0, 0.0, 1.0)
    assert rasterize(vertices, np.array([[0, 1, 2]]), position, rotation, 1.0, 16).mask.any()
    assert not rasterize(vertices, np.array([[0, 1, 2]]), -position, rotation, 1.0, 16).mask.any()


def test_rasterize_time_of_twenty_thousand_triangles() -> None:
    surface = sphere_surface(66)
    assert len(surface.faces) > 20_000
    position, rotation = camera(40.0, 25.0, 1.6)
    started = time.process_time()
    rasterize(surface.vertices, surface.faces, position, rotation, 1.2, 128)
    # Vectorized: tenths of a second. A Python loop over faces takes minutes, so this bound tells them apart on any
    # processor.
    assert time.process_time() - started < 15.0
