# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes with textures whose colors are known at every point."""

from __future__ import annotations

import numpy as np
import pytest

from dreamwright.backend.config.schema import MeshConfig
from dreamwright.backend.geometry.build import Mesh, MeshReport, build_mesh
from dreamwright.backend.geometry.texture import Texture
from dreamwright.backend.geometry.unwrap import Unwrapping
from tests.testing.analytic_fields import AnalyticField, foot_on_torus, torus

SIZE = 128  # texels of a side


@pytest.fixture(scope="module")
def textured_torus() -> tuple[Mesh, MeshReport]:
    """A torus whose color at each point is the point's position."""
    field = AnalyticField(torus(0.3, 0.12), lambda mu: (foot_on_torus(mu) + 0.5).clamp(0, 1))
    return build_mesh(field, MeshConfig(resolution=32, triangles=800, height_m=0.3, texture=SIZE))


def flag_mesh() -> Mesh:
    """Two triangles in the plane y = 0, seen from the front, with a texture of four quarters: red top left, green top
    right, blue bottom left, white bottom right. By hand: the vertex at the lower left, (-1, 0, 0), has u = 0, v = 1.
    """
    vertices = np.array([[-1, 0, 0], [1, 0, 0], [1, 0, 2], [-1, 0, 2]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32], image[:32, 32:], image[32:, :32], image[32:, 32:] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        255,
    )
    places = Unwrapping(uv, faces, np.arange(4, dtype=np.int32))
    return Mesh(
        vertices,
        faces,
        np.full((4, 3), 0.5, np.float32),
        np.tile(np.float32([0, -1, 0]), (4, 1)),
        Texture(image, places),
    )
