# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh of an object as it is sent for refinement: vertices in world orientation and scale, triangles, colors."""

from __future__ import annotations

import json
import uuid
from typing import Any

import bpy
import numpy as np

from .provenance import PREFIX
from .shared.limits import MESH_FACES, MESH_VERTICES
from .shared.mesh_file import MeshFile
from .wording import say

ID_PROPERTY = PREFIX + "source_id"  # custom property that identifies a sent object, also after it is renamed
DEFAULT_GRAY = 0.2140411  # linear, display 0.5: the color of vertices without one


def extract_mesh(context: Any, source: Any, as_shape_key: bool) -> MeshFile:
    """The object's mesh with its vertices in Blender's order, rotated and scaled as in the world, its origin at zero.

    For a shape key it is the object's own mesh, otherwise the evaluated one, with modifiers and shape keys. The facts
    of the mesh file describe the object, so that the result can be placed. Raises ValueError with a sentence.
    """
    if source.mode != "OBJECT":
        raise ValueError(say("Leave Edit Mode first: unfinished edits are not part of the mesh"))
    evaluated = source.evaluated_get(context.evaluated_depsgraph_get())
    result = evaluated.to_mesh()
    try:
        if as_shape_key and len(result.vertices) != len(source.data.vertices):
            raise ValueError(
                say(
                    "The modifiers of “{object}” make {made} vertices of its {own}, which a shape key cannot "
                    "hold; choose New Object, or apply or hide them",
                    object=source.name,
                    made=len(result.vertices),
                    own=len(source.data.vertices),
                )
            )
        return _extract(source, source.data if as_shape_key else result, as_shape_key)
    finally:
        evaluated.to_mesh_clear()


def _extract(source: Any, data: Any, as_shape_key: bool) -> MeshFile:
    data.calc_loop_triangles()
    triangles, count = len(data.loop_triangles), len(data.vertices)
    if not triangles:
        raise ValueError(say("“{object}” has no faces; choose a mesh with faces", object=source.name))
    if count > MESH_VERTICES or triangles > MESH_FACES:
        raise ValueError(
            say(
                "“{object}” has {count} vertices and {triangles} triangles; allowed are {vertices} and "
                "{faces}: decimate it, or apply or hide a modifier that subdivides it",
                object=source.name,
                count=count,
                triangles=triangles,
                vertices=MESH_VERTICES,
                faces=MESH_FACES,
            )
        )
    linear = np.array(source.matrix_world, np.float64)[:3, :3]
    if not is_invertible(linear):
        raise ValueError(
            say("“{object}” is scaled to zero along an axis; give it a scale other than 0", object=source.name)
        )
    faces = read_array(data.loop_triangles, "vertices", np.int32, 3)
    if np.linalg.det(linear) < 0:
        faces = faces[:, ::-1]  # a mirrored object: keeps faces counter-clockwise from outside
    normals = read_array(data.vertices, "normal", np.float32, 3).astype(np.float64) @ np.linalg.inv(linear)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    attribute = active_colors(data)
    facts = {
        "source_object": source.name,
        "source_id": ensure_id(source),
        "source_matrix": json.dumps(linear.ravel().tolist()),
        "source_location": json.dumps(list(source.matrix_world.translation)),
        "source_result": "SHAPE_KEY" if as_shape_key else "OBJECT",
        "source_colors": attribute.name if attribute is not None else "",
    }
    vertices = read_array(data.vertices, "co", np.float32, 3) @ linear.T
    colors = material_colors(data, source) if attribute is None else vertex_colors(data, attribute)
    return MeshFile(
        vertices.astype(np.float32),
        np.ascontiguousarray(faces),
        normals.astype(np.float32),
        colors.clip(0, 1).astype(np.float32),
        facts,
    )


def is_invertible(linear: np.ndarray) -> bool:
    """Whether a (3, 3) matrix is finite and can be inverted with the precision of float32."""
    norm = float(np.linalg.norm(linear))
    return bool(np.isfinite(linear).all() and norm > 0 and abs(np.linalg.det(linear / norm)) > 1e-9)


def read_array(items: Any, name: str, dtype: Any, width: int) -> np.ndarray:
    """(n, width) values of a property of a Blender collection."""
    values = np.empty(len(items) * width, dtype)
    items.foreach_get(name, values)
    return values.reshape(-1, width)


def active_colors(data: Any) -> Any:
    """The active color attribute of a mesh, else its first; None when it has none."""
    attributes = data.color_attributes
    return (attributes.active_color or attributes[0]) if len(attributes) else None


def vertex_colors(data: Any, attribute: Any) -> np.ndarray:
    """(V, 3) linear colors of a color attribute; of face corners, the mean at each vertex."""
    values = read_array(attribute.data, "color", np.float32, 4)[:, :3].astype(np.float64)
    return values if attribute.domain == "POINT" else corner_means(data, values)


def corner_means(data: Any, values: np.ndarray) -> np.ndarray:
    """(V, 3) means of the (C, 3) values of the corners at each vertex; DEFAULT_GRAY at loose vertices."""
    corners = read_array(data.loops, "vertex_index", np.int32, 1)[:, 0]
    count = len(data.vertices)
    number = np.bincount(corners, minlength=count)
    sums = np.stack([np.bincount(corners, values[:, channel], count) for channel in range(3)], axis=1)
    return np.where(number[:, None] > 0, sums / np.maximum(number, 1)[:, None], DEFAULT_GRAY)


def material_colors(data: Any, source: Any) -> np.ndarray:
    """(V, 3) linear base colors of the materials at each vertex."""
    slots = [base_color(slot.material) for slot in source.material_slots] or [(DEFAULT_GRAY,) * 3]
    chosen = np.clip(read_array(data.polygons, "material_index", np.int32, 1)[:, 0], 0, len(slots) - 1)
    corners = read_array(data.polygons, "loop_total", np.int32, 1)[:, 0]
    return corner_means(data, np.repeat(np.array(slots, np.float64)[chosen], corners, axis=0))


def base_color(material: Any) -> tuple[float, ...]:
    """The uniform linear color of a material; its viewport color when a texture is connected."""
    if material is None:
        return (DEFAULT_GRAY,) * 3
    for node in material.node_tree.nodes if material.node_tree else ():
        if node.type == "BSDF_PRINCIPLED" and not node.inputs["Base Color"].is_linked:
            return tuple(node.inputs["Base Color"].default_value[:3])
    return tuple(material.diffuse_color[:3])


def ensure_id(source: Any) -> str:
    """The object's id, made at its first use and renewed where a copy has the same; "" for a linked object."""
    known = source.get(ID_PROPERTY)
    is_unique = not any(one != source and one.get(ID_PROPERTY) == known for one in bpy.data.objects)
    if isinstance(known, str) and known and is_unique:
        return known
    if source.library is not None:
        return ""
    source[ID_PROPERTY] = uuid.uuid4().hex
    return source[ID_PROPERTY]


def find_source(scene: Any, source_id: str, name: str) -> Any:
    """The mesh object that was sent: by its id, which copies share, then by its name; None when it is not found."""
    objects = [one for one in scene.objects if one.type == "MESH"]
    same = [one for one in objects if source_id and one.get(ID_PROPERTY) == source_id]
    named = [one for one in same or objects if one.name == name]
    return (named or same or [None])[0]
