# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh of an object as it is sent for refinement: transforms, colors, ids, and reading its facts back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver
from tests.testing.posed_objects import cube, mirrored, sheared, turned, world


@pytest.mark.parametrize("pose", [turned, mirrored, sheared], ids=["turned", "mirrored", "sheared"])
def test_sent_mesh_is_in_world_orientation_with_outward_faces(blender: AddonDriver, pose: Any) -> None:
    """The signed volume of a closed mesh is positive when its faces are counter-clockwise from outside."""
    source = cube()
    pose(source)
    sent = blender.module("object_mesh").extract_mesh(bpy.context, source, False)
    # float32 coordinates of up to 4 through two matrices: a few roundings of 2.4e-7.
    assert np.abs(sent.vertices - (world(source) - np.array(source.matrix_world.translation))).max() < 1e-5
    a, b, c = (sent.vertices[sent.faces[:, corner]].astype(np.float64) for corner in range(3))
    bpy.context.view_layer.update()
    # float32 coordinates of up to 4 err by a few 2.4e-7, and volumes are 1.5 and 3.
    assert np.einsum("ij,ij->", a, np.cross(b, c)) / 6 == pytest.approx(
        abs(source.matrix_world.to_3x3().determinant()), rel=1e-5
    )
    center = sent.vertices.mean(axis=0)
    assert (np.einsum("ij,ij->i", sent.normals, sent.vertices - center) > 0).all() and np.allclose(
        np.linalg.norm(sent.normals, axis=1), 1, atol=1e-5
    )


def test_colors_are_sent_linear_per_vertex(blender: AddonDriver) -> None:
    sent = lambda: blender.module("object_mesh").extract_mesh(bpy.context, source, False).albedo  # noqa: E731
    source = cube()
    assert np.allclose(sent(), 0.2140411, rtol=0, atol=1e-7), "grey where nothing says otherwise"
    for color in ((0.8, 0.1, 0.2, 1), (0.1, 0.6, 0.3, 1)):
        material = bpy.data.materials.new("paint")
        material.use_nodes = True
        material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = color
        source.data.materials.append(material)
    source.data.polygons[0].material_index = 1
    corner = source.data.polygons[0].vertices[0]
    expected = (np.array([0.1, 0.6, 0.3]) + 2 * np.array([0.8, 0.1, 0.2])) / 3
    # float32: a mean of three values below 1, a few roundings of 6e-8.
    assert np.allclose(sent()[corner], expected, rtol=0, atol=2.5e-7), "of its three faces one has the second material"
    corners = source.data.color_attributes.new("Corners", "BYTE_COLOR", "CORNER")
    source.data.color_attributes.active_color = corners
    for index, loop in enumerate(source.data.loops):
        corners.data[index].color = (0.5, loop.vertex_index / 8, 0.0, 1)
    # Half a level of 8 bits is 0.002 in sRGB, times the curve's slope of at most 2.3: 0.0045 linear.
    assert np.allclose(sent()[:, 0], 0.5, rtol=0, atol=0.005)
    assert np.allclose(sent()[:, 1], np.arange(8) / 8, rtol=0, atol=0.005)
    points = source.data.color_attributes.new("Points", "FLOAT_COLOR", "POINT")
    points.data.foreach_set("color", np.repeat(np.linspace(0, 1, 8), 4).astype(np.float32))
    source.data.color_attributes.active_color = source.data.color_attributes["Points"]
    assert np.allclose(sent()[:, 2], np.linspace(0, 1, 8), rtol=0, atol=1e-7)  # float32


def test_copies_get_an_id_of_their_own(blender: AddonDriver) -> None:
    object_mesh, source = blender.module("object_mesh"), cube()
    first = object_mesh.ensure_id(source)
    assert object_mesh.ensure_id(source) == first
    bpy.ops.object.duplicate()
    copy = bpy.context.active_object
    assert copy[object_mesh.ID_PROPERTY] == first
    second = object_mesh.ensure_id(copy)
    assert second != first and object_mesh.ensure_id(source) == first
    assert (
        object_mesh.find_source(bpy.context.scene, second, "gone") == copy
        and object_mesh.find_source(bpy.context.scene, first, copy.name) == source
    )
    assert (
        object_mesh.find_source(bpy.context.scene, "", "Crate") == source
        and object_mesh.find_source(bpy.context.scene, "x", "gone") is None
    )


@pytest.mark.parametrize(
    "harm",
    [
        {"source_matrix": "[]"},
        {"source_matrix": "[0,0,0,0,0,0,0,0,0]"},
        {"source_matrix": "[NaN,0,0,0,1,0,0,0,1]"},
        {"source_matrix": 7},
        {"source_location": "x"},
        {"source_object": 5},
    ],
)
def test_invalid_source_facts_are_ignored(blender: AddonDriver, harm: dict[str, Any]) -> None:
    """They come from the server."""
    source = cube()
    sent = blender.module("object_mesh").extract_mesh(bpy.context, source, True)
    origin = blender.module("import_refined").source_of({**sent.facts, **harm})
    assert origin is None or (origin.name == "5" and "source_object" in harm)
    assert blender.module("import_refined").source_of({}) is None
