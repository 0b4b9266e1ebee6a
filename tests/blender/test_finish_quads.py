# SPDX-License-Identifier: GPL-3.0-or-later
"""Joining triangles into quads: which pairs, and that shape, UVs, normals and tangents stay."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")

from tests.blender.scripts.shaded_triangles import angle_deg, shaded_triangles
from tests.testing.blenders import ROOT

SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
LEVEL_DEG = math.degrees(1 / 127)  # what one level of an 8-bit normal map turns a normal by


@pytest.fixture
def quads() -> Iterator[Any]:
    """The module as the command's script imports it, in an empty file."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    sys.path.insert(0, str(ROOT / "blender_addon"))
    from datablocks import quads as module

    yield module
    sys.path.remove(str(ROOT / "blender_addon"))


def mesh_of(vertices: Any, faces: Any, uv: Any = None, normals: Any = None) -> Any:
    """A smooth mesh; uv (corners, 2), normals (vertices, 3) of its own."""
    made = bpy.data.meshes.new("Mesh")
    made.from_pydata([tuple(map(float, one)) for one in vertices], [], [tuple(map(int, one)) for one in faces])
    made.polygons.foreach_set("use_smooth", [True] * len(made.polygons))
    if uv is not None:
        made.uv_layers.new(name="UVMap").data.foreach_set("uv", np.asarray(uv, np.float32).ravel())
    if normals is not None:
        made.normals_split_custom_set_from_vertices(np.asarray(normals).tolist())
    made.update()
    return made


def square(uv: Any = None) -> Any:
    """Two triangles along the diagonal from (0, 0) to (1, 1)."""
    places = np.array(SQUARE)[[0, 1, 2, 0, 2, 3], :2] if uv is None else uv
    return mesh_of(SQUARE, [(0, 1, 2), (0, 2, 3)], places)


def grid(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(V, 2) vertices and (F, 3) triangles of count x count squares of size 1 / count."""
    line = np.linspace(0, 1, count + 1)
    vertices = np.array([(x, y) for y in line for x in line])
    first = np.array([row * (count + 1) + column for row in range(count) for column in range(count)])
    a, b, c, d = first, first + 1, first + count + 2, first + count + 1
    return vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def test_grid_becomes_its_squares(quads: Any) -> None:
    vertices, faces = grid(6)
    mesh = mesh_of(np.c_[vertices, np.zeros(len(vertices))], faces, vertices[faces])
    assert quads.join_into_quads(mesh) == 1.0
    assert len(mesh.polygons) == 36
    sides = {tuple(sorted(np.ptp([mesh.vertices[at].co for at in one.vertices], axis=0))) for one in mesh.polygons}
    assert np.allclose(list(sides), [(0, 1 / 6, 1 / 6)], atol=1e-6)


def uv_border(mesh: Any) -> None:
    mesh.uv_layers[0].data[3].uv.x += 0.01


def material_border(mesh: Any) -> None:
    for name in ("One", "Other"):
        mesh.materials.append(bpy.data.materials.new(name))
    mesh.polygons[1].material_index = 1


def edge_between(mesh: Any) -> Any:
    return next(one for one in mesh.edges if set(one.vertices) == {0, 2})


def seam(mesh: Any) -> None:
    edge_between(mesh).use_seam = True


def sharp_edge(mesh: Any) -> None:
    edge_between(mesh).use_edge_sharp = True


def fold(mesh: Any) -> None:
    mesh.vertices[3].co.z = 1.0  # atan(sqrt 2) = 54.7 degrees between the faces


def longer_in_uv(mesh: Any) -> None:
    """The common edge is the longer diagonal of the quad's UVs, which MikkTSpace would not cut along."""
    for corner in (2, 4):
        mesh.uv_layers[0].data[corner].uv = (1.4, 1.4)


@pytest.mark.parametrize("border", [uv_border, material_border, seam, sharp_edge, fold, longer_in_uv])
def test_borders_stay(quads: Any, border: Any) -> None:
    mesh = square()
    border(mesh)
    assert quads.join_into_quads(mesh) == 0.0 and len(mesh.polygons) == 2
    assert edge_between(mesh).use_seam == (border in (seam, uv_border))
    assert quads.join_into_quads(square()) == 1.0


def test_normals_that_differ_stay_sharp(quads: Any) -> None:
    mesh = square()
    if hasattr(mesh, "use_auto_smooth"):
        mesh.use_auto_smooth = True
    tilted = np.array([0.0, 0.2, 1.0]) / math.sqrt(1.04)
    mesh.normals_split_custom_set([(0, 0, 1)] * 3 + [tuple(tilted)] * 3)
    assert quads.join_into_quads(mesh) == 0.0
    assert edge_between(mesh).use_edge_sharp
    found = quads.corner_normals(mesh)
    assert angle_deg(found[0], np.array([0, 0, 1])) < 0.1 and angle_deg(found[3], tilted) < 0.1  # 16 bits an angle


def test_textures_stay_valid(quads: Any) -> None:
    """A wavy surface in two UV charts: the same triangles are shaded with the same UVs, and with normals and tangents
    within one level of an 8-bit normal map.
    """
    vertices, faces = grid(12)
    noise = np.random.default_rng(3).uniform(-0.02, 0.02, vertices.shape)
    x, y = (vertices + noise).T
    left = faces[(vertices[faces][:, :, 0] <= 0.5).all(1)]
    right = np.array([face for face in faces.tolist() if face not in left.tolist()])
    places = np.stack([x, y, 0.05 * np.sin(6 * x) * np.cos(5 * y)], 1)
    slope = np.stack([-0.3 * np.cos(6 * x) * np.cos(5 * y), 0.25 * np.sin(6 * x) * np.sin(5 * y), np.ones_like(x)], 1)
    normals = slope / np.linalg.norm(slope, axis=1, keepdims=True)
    both = np.concatenate([places, places]), np.concatenate([left, right + len(places)])
    charts = np.concatenate([np.stack([0.9 * x, y + 0.1 * x * x], 1), np.stack([2 - y, x], 1)])
    mesh = mesh_of(*both, charts[both[1]], np.concatenate([normals, normals]))
    if hasattr(mesh, "use_auto_smooth"):
        mesh.use_auto_smooth = True
    before = shaded_triangles(mesh)
    share = quads.join_into_quads(mesh)
    after = shaded_triangles(mesh)
    assert share > 0.5 and share == np.mean([len(one.vertices) == 4 for one in mesh.polygons])
    assert set(before) == set(after) and len(before) == len(faces)
    for key, corners in before.items():
        for (frame, sign), (other, other_sign) in zip(corners, after[key], strict=True):
            assert angle_deg(frame[:3], other[:3]) < LEVEL_DEG and angle_deg(frame[3:], other[3:]) < LEVEL_DEG
            assert sign == other_sign
    # One vertex at each place where the charts meet; the two unused copies of the others have no faces.
    used = {at for one in mesh.polygons for at in one.vertices}
    assert len(used) == len(vertices)
    assert sum(one.use_seam for one in mesh.edges) == 12
    assert [one.name for one in mesh.attributes if "dreamwright" in one.name] == []


def test_colors_go_with_their_corners(quads: Any) -> None:
    """A quad of each rotation of its triangles: every corner keeps its color."""
    for turn in range(3):
        faces = [np.roll([0, 1, 2], turn), np.roll([0, 2, 3], turn)]
        mesh = mesh_of(SQUARE, faces)
        layer = mesh.color_attributes.new("Paint", "FLOAT_COLOR", "CORNER")
        for loop, entry in zip(mesh.loops, layer.data, strict=True):
            entry.color = (loop.vertex_index / 4, 0, 0, 1)
        assert quads.join_into_quads(mesh) == 1.0
        found = [entry.color[0] for entry in mesh.color_attributes[0].data]
        assert found == [loop.vertex_index / 4 for loop in mesh.loops]
        assert {mesh.loops[0].vertex_index, mesh.loops[2].vertex_index} == {0, 2}


def test_sheets_at_one_place_stay_two(quads: Any) -> None:
    """Two sheets, back to back and front to front, keep all their faces."""
    for second in ([(4, 6, 5), (4, 7, 6)], [(4, 5, 6), (4, 6, 7)]):
        mesh = mesh_of(SQUARE * 2, [(0, 1, 2), (0, 2, 3), *second])
        assert quads.join_into_quads(mesh) == 1.0 and len(mesh.polygons) == 2 and len(mesh.vertices) == 8


def test_mesh_without_faces(quads: Any) -> None:
    assert quads.join_into_quads(mesh_of([(0, 0, 0)], [])) == 0.0
