# SPDX-License-Identifier: GPL-3.0-or-later
"""Cleaning gives one closed surface without floaters and cavities; smoothing removes ripples and keeps the volume."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.geometry.clean import (
    clean_surface,
    drop_bad_faces,
    drop_floaters,
    merge_vertices,
    neighbor_mean,
    orient_outward,
    split_pinched_vertices,
    taubin_smooth,
)
from dreamwright.backend.geometry.decimate import decimate, is_sound
from dreamwright.backend.geometry.extract import (
    DensityGrid,
    extract_surface,
    query_density,
    refine_surface,
    sample_density_grid,
)
from dreamwright.backend.geometry.topology import (
    Surface,
    degenerate_faces,
    euler_number,
    face_components,
    is_manifold,
    is_watertight,
    signed_volume,
    vertex_normals,
)
from tests.testing.analytic_fields import AnalyticField, box, sphere, torus, union

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
CORNERS = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
FLOAT64 = 1e-12  # relative: sums of a few products in float64, a few roundings of 1.1e-16


def surface_of(field: AnalyticField, resolution: int = 48, threshold: float = 100.0) -> Surface:
    grid = sample_density_grid(field, resolution)
    return refine_surface(field, grid, extract_surface(grid, threshold), threshold)


def test_tetrahedron_is_watertight_with_its_volume() -> None:
    surface = Surface(CORNERS, TETRAHEDRON)
    assert is_manifold(TETRAHEDRON) and euler_number(TETRAHEDRON) == 2
    assert signed_volume(surface) == pytest.approx(1 / 6, rel=FLOAT64)
    assert (np.einsum("ij,ij->i", vertex_normals(surface), CORNERS - CORNERS.mean(axis=0)) > 0).all()
    assert not is_watertight(TETRAHEDRON[:3])
    assert not is_watertight(np.concatenate([TETRAHEDRON[:3], TETRAHEDRON[3:, ::-1]]))  # one flipped face


def test_inverted_surface_is_turned_outward() -> None:
    turned = orient_outward(Surface(CORNERS, TETRAHEDRON[:, ::-1]))
    assert signed_volume(turned) == pytest.approx(1 / 6, rel=FLOAT64)


def test_duplicate_and_opposite_faces_are_removed() -> None:
    extra = np.concatenate([TETRAHEDRON, TETRAHEDRON[:1, [1, 2, 0]], [[1, 1, 2]], [[1, 2, 4], [2, 1, 4]]])
    cleaned = drop_bad_faces(Surface(np.concatenate([CORNERS, [[2.0, 2, 2]]]), extra))
    assert len(cleaned.vertices) == 4
    assert is_manifold(cleaned.faces) and signed_volume(cleaned) == pytest.approx(1 / 6, rel=FLOAT64)


def test_coincident_vertices_are_merged() -> None:
    soup = Surface(CORNERS[TETRAHEDRON].reshape(-1, 3), np.arange(12).reshape(4, 3))
    merged = merge_vertices(soup)
    assert len(merged.vertices) == 4 and is_manifold(merged.faces)


def test_pinched_vertex_is_split() -> None:
    other = np.where(TETRAHEDRON == 0, 0, TETRAHEDRON + 3)  # a second tetrahedron that shares vertex 0 only
    pinched = Surface(np.concatenate([CORNERS, -CORNERS[1:]]), np.concatenate([TETRAHEDRON, other[:, ::-1]]))
    assert is_watertight(pinched.faces) and not is_manifold(pinched.faces)
    split = split_pinched_vertices(pinched)
    assert is_manifold(split.faces) and len(split.vertices) == 8
    assert signed_volume(split) == pytest.approx(2 / 6, rel=FLOAT64)


def test_floaters_are_removed_and_solid_parts_kept() -> None:
    field = AnalyticField(
        union(sphere(0.3), sphere(0.045, (0.5, 0.0, 0.0)), sphere(0.08, (0.0, 0.0, 0.45))), bounding_radius=0.7
    )
    raw = surface_of(field, 64)
    assert face_components(raw.faces).max() == 2
    kept, dropped = drop_floaters(raw, lambda mu: query_density(field, mu))
    cell = 1.4 / 64  # the large ball ends at x = 0.3, the floater begins at 0.455; the kept small part ends at z = 0.53
    assert dropped == 1 and kept.vertices[:, 0].max() < 0.3 + cell and kept.vertices[:, 2].max() > 0.53 - cell
    weak, dropped = drop_floaters(raw, lambda mu: np.ones(len(mu)), keep_area_share=0.1)
    assert dropped == 2 and face_components(weak.faces).max() == 0  # the small part is transparent and removed as well
    solid, dropped = drop_floaters(raw, lambda mu: np.full(len(mu), 1e3), keep_area_share=0.1)
    assert dropped == 1 and face_components(solid.faces).max() == 1


def test_inner_walls_are_removed() -> None:
    outer, inner = surface_of(AnalyticField(sphere(0.4), bounding_radius=0.6)), None
    inner = Surface(0.5 * outer.vertices, outer.faces[:, ::-1])
    both = Surface(
        np.concatenate([outer.vertices, inner.vertices]),
        np.concatenate([outer.faces, inner.faces + len(outer.vertices)]),
    )
    cleaned, dropped = clean_surface(both)
    assert dropped == 1 and len(cleaned.faces) == len(outer.faces)


def test_neighbor_mean_equals_a_plain_loop() -> None:
    surface = surface_of(AnalyticField(sphere(0.4), bounding_radius=0.6), 10)
    expected = np.zeros_like(surface.vertices)
    for vertex in range(len(surface.vertices)):
        around = {int(v) for face in surface.faces if vertex in face for v in face} - {vertex}
        expected[vertex] = surface.vertices[sorted(around)].mean(axis=0)
    # Means of at most ten coordinates below 1 in float64: ten roundings of 1.1e-16.
    assert np.abs(neighbor_mean(surface) @ surface.vertices - expected).max() < 1e-14


def lattice_gain(iterations: int) -> float:
    """Share of white noise that Taubin's filter (0.5, -0.53) leaves on a lattice with six neighbors per vertex.

    The root mean square of ((1 - 0.5 k) (1 + 0.53 k))^n over all waves, of which neighbors' mean keeps 1 - k.
    """
    phase = 2 * np.pi * (np.arange(200) + 0.5) / 200
    one, other = np.meshgrid(phase, phase)
    k = 1 - (np.cos(one) + np.cos(other) + np.cos(one + other)) / 3
    return float(np.sqrt((((1 - 0.5 * k) * (1 + 0.53 * k)) ** (2 * iterations)).mean()))


def test_smoothing_keeps_volume_and_corners() -> None:
    generator = np.random.default_rng(0)
    surface = surface_of(AnalyticField(sphere(0.4), bounding_radius=0.6))
    rough = Surface(surface.vertices * (1 + 0.004 * generator.normal(size=(len(surface.vertices), 1))), surface.faces)
    smooth = taubin_smooth(rough, 4)
    spread = lambda s: float(np.linalg.norm(s.vertices, axis=1).std())  # noqa: E731
    # The lattice gain is 0.486. The sphere has vertices with four to eight neighbors as well, and its 4,000 samples of
    # noise have a standard error of 1.1%.
    assert spread(smooth) / spread(rough) == pytest.approx(lattice_gain(4), rel=0.05)
    # Smoothing rescales to the volume in float64: sums over 10,000 faces of either sign, 10,000 roundings of 1.1e-16.
    assert signed_volume(smooth) == pytest.approx(signed_volume(rough), rel=1e-11)
    cube = surface_of(AnalyticField(box((0.3, 0.3, 0.3)), bounding_radius=0.7, softness=0.002))
    moved = np.linalg.norm(taubin_smooth(cube, 4).vertices - cube.vertices, axis=1)
    assert moved.max() < 1.4 / 48  # no vertex, including those at corners, moves by a cell


SHAPES = {
    "sphere": (sphere(0.4), 2, 4 / 3 * math.pi * 0.4**3),
    "torus": (torus(0.35, 0.12), 0, 2 * math.pi**2 * 0.35 * 0.12**2),
    "box": (box((0.35, 0.2, 0.1)), 2, 8 * 0.35 * 0.2 * 0.1),
    "table": (
        union(box((0.3, 0.3, 0.04)), *[box((0.04, 0.04, 0.3), (x, y, -0.2)) for x in (-0.2, 0.2) for y in (-0.2, 0.2)]),
        2,
        None,
    ),
}


@settings(max_examples=12, deadline=None)
@given(shape=st.sampled_from(sorted(SHAPES)), triangles=st.integers(250, 4000), smoothing=st.integers(0, 6))
def test_decimation_meets_the_budget_and_stays_closed(shape: str, triangles: int, smoothing: int) -> None:
    distance, euler, volume = SHAPES[shape]
    surface, _ = clean_surface(surface_of(AnalyticField(distance, bounding_radius=0.7)), None, smoothing)
    small = decimate(surface, triangles)
    assert len(small.faces) <= triangles
    assert is_sound(small) and not degenerate_faces(small).any()
    assert euler_number(small.faces) == euler
    assert len(np.unique(small.vertices, axis=0)) == len(small.vertices)
    if volume is not None:
        # The grid cuts up to 1.7% (a tube of four cells, edges of the box). Triangles inscribed in the torus of area A,
        # with edges e^2 = 2.3 A / 250, would cut A e^2 / (12 x 0.12) = 18% of it. Vertices of least quadric error lie
        # outside of the surface and leave less than a quarter of that.
        assert signed_volume(small) == pytest.approx(volume, rel=0.06)


def test_surface_within_its_budget_is_unchanged() -> None:
    surface = surface_of(AnalyticField(sphere(0.4), bounding_radius=0.6), 16)
    assert decimate(surface, len(surface.faces)) is surface


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000))
def test_surface_with_tiny_handles_decimates_to_a_closed_mesh(seed: int) -> None:
    generator = np.random.default_rng(seed)
    tau = np.zeros((20, 20, 20), dtype=np.float32)
    tau[1:-1, 1:-1, 1:-1] = np.exp(generator.normal(size=(18, 18, 18)) + 1.0)
    surface, _ = clean_surface(extract_surface(DensityGrid(tau, np.zeros(3), 0.05), 1.0), None, 2)
    small = decimate(surface, len(surface.faces) // 2)
    assert is_manifold(small.faces) and signed_volume(small) > 0
