# SPDX-License-Identifier: GPL-3.0-or-later
"""The coarse mesh of a run: its size, its place, its colors, and its way over the wire."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.errors import RunError
from dreamwright.backend.geometry import live_mesh
from dreamwright.backend.geometry.live_mesh import live_mesh_of_field, live_mesh_of_surface, within_budget
from dreamwright.backend.geometry.topology import Surface, is_watertight
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.limits import LIVE_MESH_BYTES, LIVE_MESH_TRIANGLES, LIVE_MESH_VERTICES
from dreamwright.shared.live_mesh import STEPS, decode_live_mesh, encode_live_mesh
from tests.testing.analytic_fields import AnalyticField, sphere, union
from tests.testing.primitive_meshes import icosphere


def halves(mu: torch.Tensor) -> torch.Tensor:
    """Red above, blue below."""
    return torch.where(mu[:, 2:] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9]))


def ball_mesh(subdivisions: int) -> Surface:
    vertices, faces = icosphere(subdivisions, 0.5)
    return Surface(vertices, faces.astype(np.int64))


# --- the mesh


def test_a_field_becomes_a_mesh_in_the_place_size_and_colors_of_the_finished_one() -> None:
    field = AnalyticField(sphere(0.4, (0.1, 0.0, 0.05)), halves, softness=0.004, bounding_radius=0.6)
    mesh = live_mesh_of_field(field, 0.0, 2.0)
    assert len(mesh.faces) <= LIVE_MESH_TRIANGLES and is_watertight(mesh.faces)
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    # 2 m high on its base, in the middle. Scale is by the height alone, so half a cell of 1.2 / 48 off either pole of a
    # ball of radius 0.4 makes the width 4 % wrong at most.
    assert high[2] - low[2] == pytest.approx(2.0, abs=1e-5) and low[2] == pytest.approx(0.0, abs=1e-5)
    assert np.allclose(high[:2] - low[:2], 2.0, atol=0.08) and np.allclose(high[:2] + low[:2], 0.0, atol=1e-5)
    top, base = mesh.vertices[:, 2] > 1.2, mesh.vertices[:, 2] < 0.8
    assert (np.abs(mesh.colors[top] - np.array([230, 26, 26])) <= 1).all()
    assert (np.abs(mesh.colors[base] - np.array([26, 26, 230])) <= 1).all()


def test_fog_beside_the_prop_does_not_change_its_place() -> None:
    """The finished mesh has no floaters either; a speck would make the prop smaller, as its height is given."""
    alone = AnalyticField(sphere(0.3), softness=0.004, bounding_radius=0.6)
    with_speck = AnalyticField(union(sphere(0.3), sphere(0.04, (0.0, 0.0, 0.5))), softness=0.004, bounding_radius=0.6)
    first, second = (live_mesh_of_field(field, 50.0, 1.0) for field in (alone, with_speck))
    assert np.array_equal(first.vertices, second.vertices) and np.array_equal(first.faces, second.faces)


def test_an_empty_field_has_no_live_mesh() -> None:
    with pytest.raises(RunError, match="empty"):
        live_mesh_of_field(AnalyticField(sphere(0.4), peak=0.0, bounding_radius=0.6), 0.0, 1.0)


def test_a_mesh_stays_where_it_is_and_keeps_its_colors_with_fewer_triangles() -> None:
    surface = ball_mesh(6)
    assert len(surface.faces) == 81_920
    colors = np.where(surface.vertices[:, 2:] > 0, [1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    mesh = live_mesh_of_surface(surface, colors)
    assert 0.5 * LIVE_MESH_TRIANGLES < len(mesh.faces) <= LIVE_MESH_TRIANGLES
    # A chord of an edge of 2 % of the diameter sags by far less than 0.2 % of the radius.
    assert np.allclose(np.linalg.norm(mesh.vertices, axis=1), 0.5, atol=1e-3)
    upper = mesh.vertices[:, 2] > 0.02
    assert (mesh.colors[upper] == [255, 0, 0]).all() and (mesh.colors[mesh.vertices[:, 2] < -0.02] == [0, 0, 255]).all()


def test_triangles_that_cannot_be_merged_are_within_the_budget_too() -> None:
    """30,000 single triangles: no edge is shared, so decimation may stop early, and the smallest are left out."""
    random = np.random.default_rng(0)
    corners = random.uniform(-0.5, 0.5, (30_000, 1, 3)) + random.normal(0, 0.01, (30_000, 3, 3))
    soup = Surface(corners.reshape(-1, 3), np.arange(90_000).reshape(-1, 3))
    fewer = within_budget(soup)
    assert 0 < len(fewer.faces) <= LIVE_MESH_TRIANGLES and len(fewer.vertices) <= LIVE_MESH_VERTICES
    mesh = live_mesh_of_surface(soup, np.full((90_000, 3), 0.5))
    assert len(mesh.vertices) <= LIVE_MESH_VERTICES and mesh.faces.max() < len(mesh.vertices)


def test_vertices_without_a_face_are_left_out_and_what_is_not_finite_is_refused() -> None:
    surface = ball_mesh(1)
    many = Surface(np.concatenate([surface.vertices, np.ones((40_000, 3))]), surface.faces)
    mesh = live_mesh_of_surface(many, np.full((len(many.vertices), 3), 0.5))
    assert len(mesh.vertices) == len(surface.vertices)
    for vertices, faces in ((np.full((3, 3), np.nan), [[0, 1, 2]]), (np.zeros((3, 3)), np.zeros((0, 3), int))):
        with pytest.raises(RunError, match="empty or not finite"):
            live_mesh_of_surface(Surface(vertices, np.array(faces)), np.zeros((3, 3)))


def test_the_module_uses_the_budget_of_the_wire() -> None:
    assert live_mesh.LIVE_MESH_TRIANGLES == 10_000


# --- the wire


@st.composite
def meshes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, triangles = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    scale, shift = 10.0 ** draw(st.integers(-4, 4)), draw(st.floats(-100, 100))
    vertices = (scale * random.normal(size=(count, 3)) + shift).astype(np.float32)
    if draw(st.booleans()):
        vertices[:, 2] = vertices[0, 2]  # flat
    colors = random.integers(0, 256, (count, 3)).astype(np.uint8)
    return vertices, colors, random.integers(0, count, (triangles, 3))


@given(meshes())
def test_positions_are_half_a_step_off_at_most_and_all_else_is_exact(
    mesh: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    vertices, colors, faces = mesh
    back = decode_live_mesh(encode_live_mesh(vertices, colors, faces), len(vertices), len(faces))
    assert np.array_equal(back.colors, colors) and np.array_equal(back.faces, faces)
    box = np.ptp(vertices.astype(np.float64), axis=0)
    # And the rounding of a float32 of the largest coordinate, once when it is written and once when it is read.
    allowed = 0.5 * box / STEPS + 4 * np.finfo(np.float32).eps * np.abs(vertices).max()
    assert (np.abs(back.vertices.astype(np.float64) - vertices) <= allowed).all()


def test_the_largest_mesh_that_does_not_compress_is_within_the_message() -> None:
    random = np.random.default_rng(0)
    vertices = random.uniform(size=(LIVE_MESH_VERTICES, 3)).astype(np.float32)
    colors = random.integers(0, 256, vertices.shape).astype(np.uint8)
    faces = random.integers(0, LIVE_MESH_VERTICES, (LIVE_MESH_TRIANGLES, 3))
    assert len(encode_live_mesh(vertices, colors, faces)) <= LIVE_MESH_BYTES


def triangle(**changes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = {
        "vertices": np.eye(3, dtype=np.float32), "colors": np.zeros((3, 3), np.uint8), "faces": np.array([[0, 1, 2]]),
    }  # fmt: skip
    return tuple((parts | changes).values())  # type: ignore[return-value]


def test_hostile_data_is_refused_with_a_sentence() -> None:
    good = encode_live_mesh(*triangle())
    raw = zlib.decompress(good)
    infinite = zlib.compress(np.float32(np.inf).tobytes() + raw[4:])
    swapped = zlib.compress(raw[12:24] + raw[:12] + raw[24:])
    cases = [
        (b"", 3, 1, "decompressed|bytes"),
        (b"not zlib at all", 3, 1, "cannot be decompressed"),
        (zlib.compress(bytes(10**7)), 3, 1, "bytes; 3 vertices and 1 triangles have"),
        (good, 4, 1, "bytes; 4 vertices"),
        (good, 3, 2, "bytes; 3 vertices"),
        (zlib.compress(raw[:-2] + (3).to_bytes(2, "little")), 3, 1, "name vertex 3 of 3"),
        (infinite, 3, 1, "not finite"),
        (swapped, 3, 1, "lowest corner"),
        (good, 0, 1, "allowed are 1 to 30000"),
        (good, 3, LIVE_MESH_TRIANGLES + 1, "1 to 10000"),
        (good, LIVE_MESH_VERTICES + 1, 1, "allowed are 1 to 30000"),
    ]
    for data, vertices, triangles, message in cases:
        with pytest.raises(ProtocolError, match=message):
            decode_live_mesh(data, vertices, triangles)


def test_what_is_beyond_the_limits_is_not_encoded() -> None:
    with pytest.raises(ProtocolError, match="not finite"):
        encode_live_mesh(*triangle(vertices=np.full((3, 3), np.nan, np.float32)))
    with pytest.raises(ProtocolError, match="10001 triangles"):
        encode_live_mesh(*triangle(faces=np.zeros((LIVE_MESH_TRIANGLES + 1, 3), int)))
