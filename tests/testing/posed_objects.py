# SPDX-License-Identifier: GPL-3.0-or-later
"""A cube with difficult transforms, and its vertices and colors as Blender computes them."""

from __future__ import annotations

from math import radians
from typing import Any

import bpy
import numpy as np


def cube(name: str = "Crate") -> Any:
    bpy.ops.mesh.primitive_cube_add(size=1.0)
    made = bpy.context.active_object
    made.name = name
    return made


def world(owner: Any, data: Any = None) -> np.ndarray:
    """(V, 3) vertices of an object in world coordinates, by Blender's matrices."""
    bpy.context.view_layer.update()
    return np.array([list(owner.matrix_world @ vertex.co) for vertex in (data or owner.data).vertices])


def colors(attribute: Any) -> np.ndarray:
    values = np.empty(4 * len(attribute.data), np.float32)
    attribute.data.foreach_get("color", values)
    return values.reshape(-1, 4)[:, :3]


def turned(owner: Any) -> None:
    owner.rotation_euler = (0.3, radians(40), 1.0)
    owner.scale, owner.location = (2.0, 0.5, 1.5), (1, 2, 3)


def mirrored(owner: Any) -> None:
    turned(owner)
    owner.scale = (-2.0, 0.5, 1.5)


def sheared(owner: Any) -> None:
    """A rotated child of a non-uniformly scaled parent: a shear, which its own transform cannot express."""
    parent = bpy.data.objects.new("parent", None)
    bpy.context.scene.collection.objects.link(parent)
    parent.scale, owner.parent = (3.0, 1.0, 1.0), parent
    owner.rotation_euler = (0, 0, radians(35))
