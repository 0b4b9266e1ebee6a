# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen of a surface from outside."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from dreamwright.backend.evaluation.silhouettes import Solid
from dreamwright.backend.evaluation.visible_surface import visible_surface


def test_the_wall_of_a_cavity_is_hidden() -> None:
    """A sphere of radius 0.5 around an inverted one of 0.25, a quarter of its area: a fifth of the whole is hidden."""
    outer, inner = trimesh.creation.icosphere(2, 0.5), trimesh.creation.icosphere(2, 0.25)
    vertices = np.concatenate([outer.vertices, inner.vertices])
    faces = np.concatenate([outer.faces, inner.faces[:, ::-1] + len(outer.vertices)]).astype(np.int64)
    found = visible_surface(Solid(vertices, faces))
    # Each outer face spans 15 pixels or so and turns within 20 degrees to one of the 42 cameras, so all are seen.
    assert np.array_equal(found.seen.faces, outer.faces)
    assert found.hidden_share == pytest.approx(0.2, rel=1e-9)  # sums of areas in float64


def test_a_surface_without_a_cavity_is_seen_as_a_whole() -> None:
    torus = trimesh.creation.torus(0.35, 0.12)
    solid = Solid(np.asarray(torus.vertices, np.float64), np.asarray(torus.faces, np.int64))
    found = visible_surface(solid)
    assert found.hidden_share == 0.0 and len(found.seen.faces) == len(solid.faces)
