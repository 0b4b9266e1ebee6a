# SPDX-License-Identifier: GPL-3.0-or-later
"""Baked maps and tangent frames against closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamwright.backend.finishing.asset import DenseMesh, Level
from dreamwright.backend.finishing.bake import Baker, Frames, bake, decode_normals
from dreamwright.backend.finishing.bake_error import normal_map_error
from dreamwright.backend.finishing.dense import dense_mesh
from dreamwright.backend.finishing.figures import texel_density
from dreamwright.backend.finishing.paint import SurfacePaint
from dreamwright.backend.finishing.surface_search import SurfaceSearch
from dreamwright.backend.finishing.tangents import corner_tangents, with_tangents
from dreamwright.backend.geometry.color import linear_to_display
from dreamwright.backend.geometry.texture import covered_texels
from dreamwright.backend.geometry.topology import Surface, vertex_normals
from dreamwright.backend.geometry.unwrap import Unwrapping
from dreamwright.backend.io.mesh_export import export_mesh
from dreamwright.backend.io.mesh_reader import read_mesh_data
from tests.testing.primitive_meshes import grid
from tests.testing.textured_meshes import flag_mesh

WAVE, HEIGHT = 12.0, 0.01  # radians a meter and meters of the bumpy plane; slopes of up to 0.12


def dense_of(vertices: np.ndarray, faces: np.ndarray, albedo: np.ndarray | None = None) -> DenseMesh:
    colors = np.full_like(vertices, 0.5) if albedo is None else albedo
    return dense_mesh(vertices, faces, SurfacePaint(faces, colors), crease_deg=180)


def plane_level(uv_of_corner: np.ndarray, faces: np.ndarray, vertices: np.ndarray) -> Level:
    """A level of a plane at z = 0 with a row of uv for each corner: uv (F, 3, 2), v down."""
    count = len(faces)
    places = Unwrapping(
        uv_of_corner.reshape(-1, 2).astype(np.float32),
        np.arange(3 * count, dtype=np.int32).reshape(count, 3),
        faces.reshape(-1).astype(np.int32),
    )
    surface = Surface(vertices, faces)
    normals = vertex_normals(surface)
    places, tangents = with_tangents(vertices, faces, normals, places)
    return Level(surface, normals, np.zeros_like(vertices), places, tangents)


def square(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """uv (F, 3, 2) of a unit square about the origin: u along x, the image's top at the largest y."""
    at = vertices[faces][..., :2]
    return np.stack([at[..., 0] + 0.5, 0.5 - at[..., 1]], axis=-1)


def baked(level: Level, dense: DenseMesh, size: int, normal_map: bool = True) -> tuple[Level, Baker]:
    baker = Baker(dense, SurfaceSearch(dense.surface), 0.05)
    *_, last = bake(level, baker, size, normal_map)
    assert isinstance(last, Level)
    return last, baker


def test_flat_mesh_bakes_to_the_neutral_normal() -> None:
    vertices, faces = grid(4)
    level = plane_level(square(vertices, faces), faces, vertices)
    level, _ = baked(level, dense_of(*grid(20)), 64)
    assert level.maps is not None and level.maps.normal is not None
    assert (level.maps.normal == [128, 128, 255]).all()


def test_bumpy_plane_has_its_analytic_normals() -> None:
    """z = h sin(kx) sin(ky) on a fine grid, baked to four triangles. Tolerance: half a step of 8 bits in three channels
    is 0.39 degrees; the dense normals, of a grid of k dx = 0.06 radians, are exact to (k dx)^2 times the slope."""
    vertices, faces = grid(200)
    x, y = WAVE * vertices[:, 0], WAVE * vertices[:, 1]
    vertices[:, 2] = HEIGHT * np.sin(x) * np.sin(y)
    low, low_faces = grid(2)
    level, baker = baked(plane_level(square(low, low_faces), low_faces, low), dense_of(vertices, faces), 256)
    assert level.maps is not None and level.maps.normal is not None and level.unwrapping is not None
    texels = covered_texels(level.unwrapping, 256)
    points = np.einsum("mc,mck->mk", texels.barycentric, low[low_faces[texels.face]])
    inner = np.abs(points[:, :2]).max(axis=1) < 0.49  # the border's normals are of half the neighbors
    a, b = WAVE * points[inner, 0], WAVE * points[inner, 1]
    slope = HEIGHT * WAVE
    truth = np.stack([-slope * np.cos(a) * np.sin(b), -slope * np.sin(a) * np.cos(b), np.ones_like(a)], axis=1)
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    found = decode_normals(level.maps.normal.reshape(-1, 3)[texels.pixel[inner]])  # x along u is x, y to the top is y
    angle = np.degrees(np.arccos(np.clip((found * truth).sum(1) / np.linalg.norm(found, axis=1), -1, 1)))
    assert angle.max() < 0.45
    errors = normal_map_error(level, baker)
    assert errors["shading_deg"] < 0.3 < errors["shading_deg_without_map"]


def test_albedo_is_that_of_the_dense_mesh() -> None:
    """Linear colors that are linear in x stay so; tolerance half a step of 8 bits, and one texel's change beside it."""
    vertices, faces = grid(50)
    albedo = np.repeat(0.25 + 0.5 * (vertices[:, :1] + 0.5), 3, axis=1)
    low, low_faces = grid(1)
    level, _ = baked(plane_level(square(low, low_faces), low_faces, low), dense_of(vertices, faces, albedo), 128, False)
    assert level.maps is not None and level.maps.normal is None
    u = (np.arange(128) + 0.5) / 128
    wanted = 255 * linear_to_display(0.25 + 0.5 * u)
    assert np.abs(level.maps.albedo[64, :, 0].astype(float) - wanted).max() < 0.51


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_tangent_frame_of_turned_and_mirrored_uv(turn: int, mirrored: bool) -> None:
    """By hand: the tangent is the direction of rising u, the bitangent w n x t that of falling v (up in the image)."""
    vertices, faces = grid(2)
    angle = 0.5 * np.pi * turn
    rotation = np.round(np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))
    at = vertices[faces][..., :2] @ rotation.T
    u = -at[..., 0] if mirrored else at[..., 0]
    level = plane_level(np.stack([u + 0.5, 0.5 - at[..., 1]], axis=-1), faces, vertices)
    assert level.unwrapping is not None and level.tangents is not None
    tangent = rotation.T @ ([-1.0, 0.0] if mirrored else [1.0, 0.0])
    up = rotation.T @ [0.0, 1.0]
    np.testing.assert_allclose(level.tangents[:, :2], np.broadcast_to(tangent, (len(level.tangents), 2)), atol=1e-12)
    bitangent = level.tangents[:, 3:] * np.cross([0.0, 0.0, 1.0], level.tangents[:, :3])
    np.testing.assert_allclose(bitangent[:, :2], np.broadcast_to(up, (len(level.tangents), 2)), atol=1e-12)
    assert (level.tangents[:, 3] == (-1.0 if mirrored else 1.0)).all()


def test_mirrored_halves_show_one_bump() -> None:
    """Both halves of a plane use one image, the right one mirrored: a seam's vertex has a tangent for each side."""
    vertices, faces = grid(2)
    at = vertices[faces][..., :2]
    left = at.mean(axis=1)[:, 0] < 0
    corners = np.stack([2 * np.abs(at[..., 0]), 0.5 - at[..., 1]], axis=-1)
    rows, corner = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
    # One row of uv for the corners of both halves at the seam, as a file with mirrored UVs has it.
    pairs, corner = np.unique(np.stack([corner.reshape(-1), faces.reshape(-1)], axis=1), axis=0, return_inverse=True)
    places = Unwrapping(
        rows[pairs[:, 0]].astype(np.float32), corner.reshape(faces.shape).astype(np.int32), pairs[:, 1].astype(np.int32)
    )
    normals = vertex_normals(Surface(vertices, faces))
    tangents, _ = corner_tangents(vertices, faces, normals, places)
    np.testing.assert_allclose(tangents[left][..., 0], -1, atol=1e-12)
    np.testing.assert_allclose(tangents[~left][..., 0], 1, atol=1e-12)
    assert (tangents[left][..., 3] == -1).all() and (tangents[~left][..., 3] == 1).all()
    split, per_row = with_tangents(vertices, faces, normals, places)
    assert len(split.uv) == len(places.uv) + 3  # three vertices on the seam
    np.testing.assert_array_equal(split.vertex[split.corners], faces)
    np.testing.assert_array_equal(per_row[split.corners], tangents)


def test_frames_take_normals_there_and_back() -> None:
    vertices, faces = grid(3)
    vertices[:, 2] = 0.2 * np.random.default_rng(1).random(len(vertices))
    level = plane_level(square(vertices, faces), faces, vertices)
    face = np.arange(len(faces))
    weights = np.full((len(faces), 3), 1 / 3)
    frames = Frames.of(level, face, weights)
    wanted = np.random.default_rng(2).normal((0.0, 0.0, 3.0), 1.0, (len(faces), 3))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(frames.to_object_space(frames.to_tangent_space(wanted)), wanted, atol=1e-12)


def test_texel_density_of_a_square() -> None:
    """A square of 0.5 m in half of an image of 256 texels a side: 128 texels on 0.5 m are 256 a meter."""
    vertices, faces = grid(2, 0.5)
    uv = 0.5 * (vertices[faces][..., :2] / 0.5 + 0.5)
    density = texel_density(Surface(vertices, faces), plane_level(uv, faces, vertices).unwrapping, 256)
    assert (density.median, density.low, density.high) == pytest.approx((256, 256, 256))
    assert density.used == pytest.approx(0.25)


def test_texture_of_the_given_file_is_baked(tmp_path: Path) -> None:
    """Two large triangles with a texture of four quarters: the baked image has the colors of the quarters' middles, not
    the mean of their four corners."""
    export_mesh(flag_mesh(), tmp_path / "flag.glb", {})
    data = read_mesh_data(tmp_path / "flag.glb")
    dense = dense_mesh(data.vertices, data.faces, SurfacePaint(data.faces, data.albedo, data.textures), data.normals)
    at = dense.surface.vertices[dense.surface.faces]  # x from -1 to 1, z from 0 to 2
    uv = np.stack([0.5 * at[..., 0] + 0.5, 1 - 0.5 * at[..., 2]], axis=-1)
    level, _ = baked(plane_level(uv, dense.surface.faces, dense.surface.vertices), dense, 64)
    assert level.maps is not None
    found = level.maps.albedo[[16, 16, 48, 48], [16, 48, 16, 48]]
    np.testing.assert_array_equal(found, [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
