# SPDX-License-Identifier: GPL-3.0-or-later
"""What of an object is sent to be refined: its vertices as they stand in the world, its triangles, its colors, and where it is."""

from __future__ import annotations

import json
import uuid
from typing import Any

import bpy
import numpy as np

from .import_mesh import PREFIX
from .shared.limits import MESH_FACES, MESH_VERTICES
from .shared.mesh_file import MeshFile

MARK = (
    PREFIX + "mark"
)  # custom property of an object that was sent, by which it is known again, whatever its name is then
PLAIN = 0.2140411  # linear, of display 0.5: what has no color of its own


def mesh_of(context: Any, source: Any, as_shape_key: bool) -> MeshFile:
    """The object's mesh with every vertex in Blender's order, turned and scaled as it stands, its origin at zero.

    For a shape key it is the mesh itself, else what is seen of it, with its modifiers and shape keys. Its facts say what
    is needed to bring the result back. Raises ValueError with a sentence when it cannot be refined.
    """
    if source.mode != "OBJECT":
        raise ValueError("Leave Edit Mode first: what is being edited is not in the mesh yet")
    evaluated = source.evaluated_get(context.evaluated_depsgraph_get())
    shown = evaluated.to_mesh()
    try:
        if as_shape_key and len(shown.vertices) != len(source.data.vertices):
            raise ValueError(
                f"The modifiers of “{source.name}” make {len(shown.vertices)} vertices of its {len(source.data.vertices)}, which no shape "
                "key can hold; choose New Object, or apply or hide them"
            )
        return _mesh_of(source, source.data if as_shape_key else shown, as_shape_key)
    finally:
        evaluated.to_mesh_clear()


def _mesh_of(source: Any, data: Any, as_shape_key: bool) -> MeshFile:
    data.calc_loop_triangles()
    triangles, count = len(data.loop_triangles), len(data.vertices)
    if not triangles:
        raise ValueError(f"“{source.name}” has no faces; choose a mesh that has some")
    if count > MESH_VERTICES or triangles > MESH_FACES:
        raise ValueError(
            f"“{source.name}” has {count} vertices and {triangles} triangles; allowed are {MESH_VERTICES} and {MESH_FACES}: "
            "decimate it, or apply or hide a modifier that divides it"
        )
    turn = np.array(source.matrix_world, np.float64)[:3, :3]
    if not usable(turn):
        raise ValueError(f"“{source.name}” is scaled to nothing along an axis; give it a scale other than 0")
    faces = taken(data.loop_triangles, "vertices", np.int32, 3)
    if np.linalg.det(turn) < 0:
        faces = faces[:, ::-1]  # mirrored, so that what was counter-clockwise is clockwise
    normals = taken(data.vertices, "normal", np.float32, 3) @ np.linalg.inv(turn)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    attribute = shown_colors(data)
    facts = {
        "source_object": source.name,
        "source_mark": marked(source),
        "source_matrix": json.dumps(turn.ravel().tolist()),
        "source_place": json.dumps(list(source.matrix_world.translation)),
        "source_result": "SHAPE_KEY" if as_shape_key else "OBJECT",
        "source_colors": attribute.name if attribute is not None else "",
    }
    vertices = taken(data.vertices, "co", np.float32, 3) @ turn.T
    colors = colors_of(data, source) if attribute is None else by_vertex(data, attribute)
    return MeshFile(
        vertices.astype(np.float32),
        np.ascontiguousarray(faces),
        normals.astype(np.float32),
        colors.clip(0, 1).astype(np.float32),
        facts,
    )


def usable(turn: np.ndarray) -> bool:
    """Whether a (3, 3) matrix can be undone without losing the numbers of its result."""
    return bool(
        np.isfinite(turn).all() and np.linalg.norm(turn) > 0 and abs(np.linalg.det(turn / np.linalg.norm(turn))) > 1e-9
    )


def taken(items: Any, name: str, dtype: Any, width: int) -> np.ndarray:
    """(n, width) of a property of a collection of Blender's."""
    values = np.empty(len(items) * width, dtype)
    items.foreach_get(name, values)
    return values.reshape(-1, width)


def shown_colors(data: Any) -> Any:
    """The color attribute that a mesh shows; None when it has none."""
    attributes = data.color_attributes
    return (attributes.active_color or attributes[0]) if len(attributes) else None


def by_vertex(data: Any, attribute: Any) -> np.ndarray:
    """(V, 3) linear colors of a color attribute; of a corner's, the mean of a vertex's corners."""
    values = taken(attribute.data, "color", np.float32, 4)[:, :3]
    return values.astype(np.float64) if attribute.domain == "POINT" else mean_of_corners(data, values)


def mean_of_corners(data: Any, values: np.ndarray) -> np.ndarray:
    """(V, 3) means of what the corners at each vertex have, (C, 3); plain grey where there is no corner."""
    corners = taken(data.loops, "vertex_index", np.int32, 1)[:, 0]
    count = len(data.vertices)
    number = np.bincount(corners, minlength=count)
    sums = np.stack([np.bincount(corners, values[:, channel], count) for channel in range(3)], axis=1)
    return np.where(number[:, None] > 0, sums / np.maximum(number, 1)[:, None], PLAIN)


def colors_of(data: Any, source: Any) -> np.ndarray:
    """(V, 3) linear base colors of the materials at each vertex."""
    slots = [base_color(slot.material) for slot in source.material_slots] or [(PLAIN,) * 3]
    chosen = np.clip(taken(data.polygons, "material_index", np.int32, 1)[:, 0], 0, len(slots) - 1)
    corners = taken(data.polygons, "loop_total", np.int32, 1)[:, 0]
    return mean_of_corners(data, np.repeat(np.array(slots, np.float64)[chosen], corners, axis=0))


def base_color(material: Any) -> tuple[float, float, float]:
    """The linear color that a material has all over; its color in the viewport where a texture decides."""
    if material is None:
        return (PLAIN,) * 3
    for node in material.node_tree.nodes if material.node_tree else ():
        if node.type == "BSDF_PRINCIPLED" and not node.inputs["Base Color"].is_linked:
            return tuple(node.inputs["Base Color"].default_value[:3])
    return tuple(material.diffuse_color[:3])


def marked(source: Any) -> str:
    """The object's mark, made at its first use and anew where a copy has it too; "" for one that may not be written to."""
    known = source.get(MARK)
    if (
        isinstance(known, str)
        and known
        and not any(one != source and one.get(MARK) == known for one in bpy.data.objects)
    ):
        return known
    if source.library is not None:
        return ""
    source[MARK] = uuid.uuid4().hex
    return source[MARK]


def find(scene: Any, mark: str, name: str) -> Any:
    """The mesh object that was sent, by its mark, which a copy of it has too, or by its name; None when it is not there."""
    objects = [one for one in scene.objects if one.type == "MESH"]
    same = [one for one in objects if mark and one.get(MARK) == mark]
    named = [one for one in same or objects if one.name == name]
    return (named or same or [None])[0]
