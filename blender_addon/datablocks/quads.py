# SPDX-License-Identifier: GPL-3.0-or-later
"""Pairs of triangles of a mesh become quads, without a change of its shape, its UVs, its normals or its tangents.

Three rules keep textures valid that were baked for the triangles. A pair is joined only where UVs and normals go on
across its edge. The edge that goes is the shorter diagonal of the quad in the UV map, along which MikkTSpace divides a
quad. And the quad's first corner lies at that diagonal, along which Blender divides a quad.
"""

from __future__ import annotations

import math
from typing import Any

import bmesh
import numpy as np

FACE_ANGLE = math.radians(40.0)  # largest angle between the two triangles of a quad
SHAPE_ANGLE = math.radians(70.0)  # largest difference of a quad's corner from a right angle
SAME_NORMAL = math.cos(math.radians(1.0))  # Blender stores normals to a hundredth of a degree
SAME_UV = 1e-6  # of the image's side
NORMALS = "dreamwright_normals"  # holds the corners' normals meanwhile


def join_into_quads(data: Any) -> float:
    """Join triangles of a Mesh datablock into quads; returns the share of its faces that are quads.

    Vertices at one place with one normal become one, as UV seams of a glTF file have two. Edges where UVs end become
    seams, and edges where normals differ become sharp.
    """
    if not len(data.polygons):
        return 0.0
    layer = data.attributes.new(NORMALS, "FLOAT_VECTOR", "CORNER")
    layer.data.foreach_set("vector", corner_normals(data).ravel())
    work = _read(data)
    if not _merge_vertices(work):
        work.free()  # faces would fall on each other
        work = _read(data)
    turned = _join(work)
    work.to_mesh(data)
    work.free()
    order = np.arange(len(data.loops))
    starts, sides = np.zeros(len(data.polygons), np.int32), np.zeros(len(data.polygons), np.int32)
    data.polygons.foreach_get("loop_start", starts)
    data.polygons.foreach_get("loop_total", sides)
    for start in starts[turned]:
        order[start : start + 4] = np.roll(order[start : start + 4], -1)
    _reorder_corners(data, order)
    normals = np.zeros((len(data.loops), 3), np.float32)
    data.attributes[NORMALS].data.foreach_get("vector", normals.ravel())
    data.attributes.remove(data.attributes[NORMALS])
    _set_corner_normals(data, normals[order])
    data.update()
    return float((sides == 4).mean())


def corner_normals(data: Any) -> np.ndarray:
    """(loops, 3) float32: the normals with which the corners of a mesh are shaded."""
    found = np.zeros((len(data.loops), 3), np.float32)
    if hasattr(data, "corner_normals"):  # from 4.1 on
        data.corner_normals.foreach_get("vector", found.ravel())
    else:
        data.calc_normals_split()
        data.loops.foreach_get("normal", found.ravel())
    return found


def _set_corner_normals(data: Any, normals: np.ndarray) -> None:
    if hasattr(data, "use_auto_smooth"):  # before 4.1, which ignored custom normals without it
        data.use_auto_smooth, data.auto_smooth_angle = True, math.pi
    data.normals_split_custom_set(normals.tolist())


def _read(data: Any) -> Any:
    work = bmesh.new()
    work.from_mesh(data)
    return work


def _merge_vertices(work: Any) -> bool:
    """Merge vertices at one place with one normal; whether all faces stay."""
    normal = work.loops.layers.float_vector[NORMALS]
    places: dict[tuple[float, ...], list[Any]] = {}
    targets = {}
    for vertex in work.verts:
        if not vertex.link_loops:
            continue
        kept = places.setdefault(tuple(vertex.co), [])
        mine = vertex.link_loops[0][normal]
        same = next((one for one in kept if one.link_loops[0][normal].dot(mine) >= SAME_NORMAL), None)
        if same is None:
            kept.append(vertex)
        else:
            targets[vertex] = same
    faces = len(work.faces)
    bmesh.ops.weld_verts(work, targetmap=targets)
    return len(work.faces) == faces and all(len(edge.link_faces) <= 2 for edge in work.edges)


def _join(work: Any) -> np.ndarray:
    """Join what may be joined; returns (faces,) bool: quads whose second corner lies at the old edge, not the first."""
    normal, maps = work.loops.layers.float_vector[NORMALS], list(work.loops.layers.uv.values())
    barred, free = [], set()
    for edge in work.edges:
        if not edge.is_contiguous:
            continue
        one, other = edge.link_loops
        if any(_differ(one, other, uv) for uv in maps):
            edge.seam = True
        if min(a[normal].dot(b[normal]) for a, b in _across(one, other)) < SAME_NORMAL:
            edge.smooth = False
        if not edge.seam and edge.smooth:
            if all(_is_divided_here(one, other, uv) for uv in maps):
                free.add(frozenset(edge.verts))
            else:
                barred.append(edge)
    for edge in barred:
        edge.seam = True  # the operator goes by seams
    bmesh.ops.join_triangles(
        work, faces=work.faces[:], cmp_seam=True, cmp_sharp=True, cmp_uvs=True, cmp_vcols=True, cmp_materials=True,
        angle_face_threshold=FACE_ANGLE, angle_shape_threshold=SHAPE_ANGLE,
    )  # fmt: skip
    for edge in barred:
        edge.seam = False
    gone = free - {frozenset(edge.verts) for edge in work.edges}
    return np.array(
        [len(face.verts) == 4 and frozenset((face.verts[0], face.verts[2])) not in gone for face in work.faces], bool
    )


def _across(one: Any, other: Any) -> list[tuple[Any, Any]]:
    """The corners of two faces at the ends of their common edge."""
    return [(one, other.link_loop_next), (one.link_loop_next, other)]


def _differ(one: Any, other: Any, uv: Any) -> bool:
    return any((a[uv].uv - b[uv].uv).length > SAME_UV for a, b in _across(one, other))


def _is_divided_here(one: Any, other: Any, uv: Any) -> bool:
    """Whether MikkTSpace divides the quad of two triangles along their common edge, and its UVs are convex."""
    ends = [one, one.link_loop_next]
    tips = [one.link_loop_prev, other.link_loop_prev]
    a, b, c, d = (corner[uv].uv for corner in (ends[0], ends[1], tips[0], tips[1]))
    sides = [_area(a, b, c), _area(b, a, d), _area(c, d, b), _area(d, c, a)]
    if not (min(sides) > 0.0 or max(sides) < 0.0):
        return False
    kept, cut = (a - b).length_squared, (c - d).length_squared
    if kept != cut:
        return kept < cut
    lengths = [(pair[0].vert.co - pair[1].vert.co).length_squared for pair in (ends, tips)]
    return lengths[0] <= lengths[1]


def _area(a: Any, b: Any, c: Any) -> float:
    """Twice the signed area of a triangle."""
    return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x)


def _reorder_corners(data: Any, order: np.ndarray) -> None:
    """Put the corners of a mesh, with their UVs and colors, in another order: the new row i is the old row order[i]."""
    for name in ("vertex_index", "edge_index"):
        _reorder(data.loops, name, order, 1, np.int32)
    for layer in data.uv_layers:
        _reorder(layer.data, "uv", order, 2, np.float32)
    for layer in data.color_attributes:
        if layer.domain == "CORNER":
            _reorder(layer.data, "color", order, 4, np.float32)


def _reorder(rows: Any, name: str, order: np.ndarray, width: int, kind: Any) -> None:
    values = np.zeros((len(rows), width), kind)
    rows.foreach_get(name, values.ravel())
    rows.foreach_set(name, np.ascontiguousarray(values[order]).ravel())
