# SPDX-License-Identifier: GPL-3.0-or-later
"""Collision hulls: convex, outward, few-cornered, and together around all of the mesh."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from dreamwright.backend.errors import StoppedError
from dreamwright.backend.finishing.asset import Hull
from dreamwright.backend.finishing.collision import convex_hulls, few_cornered_hull, hull_of, outside
from dreamwright.backend.geometry.topology import Surface, is_watertight, signed_volume
from tests.testing.primitive_meshes import cube, grid, icosphere


def check(hull: Hull) -> None:
    """Closed, outward and convex: no vertex lies outside of a face's plane, but for rounding."""
    surface = Surface(hull.vertices, hull.faces.astype(np.int64))
    assert is_watertight(surface.faces) and signed_volume(surface) > 0
    assert outside(hull, hull.vertices).max() < 1e-9
    assert signed_volume(surface) == pytest.approx(ConvexHull(hull.vertices).volume, rel=1e-9)


def test_hulls_of_an_angle_hold_it_and_leave_its_notch() -> None:
    """An L of three unit cubes, of volume 3; two boxes are its hulls."""
    outline = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]], np.float64)
    cap = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]])
    vertices = np.concatenate([np.column_stack([outline, np.full(6, z)]) for z in (0.0, 1.0)])
    a, b = np.arange(6), (np.arange(6) + 1) % 6
    faces = np.concatenate([cap[:, ::-1], cap + 6, np.stack([a, b, b + 6], 1), np.stack([a, b + 6, a + 6], 1)])
    surface = Surface(vertices, faces)
    assert signed_volume(surface) == pytest.approx(3.0)
    hulls, warning = convex_hulls(surface, vertices, 4, 32, 0.05)
    assert not warning
    for hull in hulls:
        check(hull)
        assert len(hull.vertices) <= 32
    assert np.stack([outside(hull, vertices) for hull in hulls]).min(axis=0).max() <= 1e-9
    # CoACD cuts within a few hundredths of the edge of the notch.
    assert sum(ConvexHull(hull.vertices).volume for hull in hulls) == pytest.approx(3.0, abs=0.3)
    assert min(float(outside(hull, np.array([[1.6, 1.6, 0.5]]))[0]) for hull in hulls) > 0.3


@pytest.mark.slow
def test_a_search_ends_with_its_parent(tmp_path: Path) -> None:
    """CoACD cannot be interrupted; its process exits all the same when its stdin closes, for any end of the parent."""
    vertices, faces = icosphere(3, 1.0)
    source, made = tmp_path / "mesh.npz", tmp_path / "parts.npz"
    np.savez(source, vertices=vertices + 0.1 * np.sin(9 * vertices), faces=faces)
    code = (
        "import coacd; from dreamwright.backend.finishing import convex_parts as c; search = coacd.run_coacd; "
        "coacd.run_coacd = lambda *a, **k: (print('begins', flush=True), search(*a, **k))[1]; "
        "c.SEARCH.update(mcts_iterations=10**7); c.main()"  # hours
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    request = {"source": str(source), "made": str(made), "count": 16, "concavity": 0.01}
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"begins\n"
    child.stdin.close()
    child.stdout.close()
    assert child.wait(100) == 1 and not made.exists()


def test_hull_of_a_cube_is_the_cube() -> None:
    vertices, faces = cube(1.0)
    (hull,), _ = convex_hulls(Surface(vertices, faces), vertices, 1, 16, 0.05)
    check(hull)
    assert ConvexHull(hull.vertices).volume == pytest.approx(1.0, rel=1e-6)  # CoACD works in float32 units


def test_flat_mesh_gets_a_thin_slab() -> None:
    """1% of the diagonal thick: 0.01 sqrt(2) times the area 1."""
    vertices, faces = grid(4)
    (hull,), warning = convex_hulls(Surface(vertices, faces), vertices, 8, 32, 0.05)
    assert "is flat" in warning
    check(hull)
    assert ConvexHull(hull.vertices).volume == pytest.approx(0.01 * np.sqrt(2), rel=1e-9)
    assert outside(hull, vertices).max() < 1e-12


def test_few_corners_are_spread() -> None:
    """32 of a ball's points leave at most a quarter of its volume outside: their caps have that volume together."""
    points, _ = icosphere(3, 1.0)
    hull = few_cornered_hull(points, 32)
    check(hull)
    assert len(hull.vertices) == 32
    assert ConvexHull(hull.vertices).volume > 0.75 * ConvexHull(points).volume
    check(hull_of(points))


def test_search_is_given_up_and_stopped() -> None:
    """With no time at all the collision is one hull, and says so; a stop ends the child."""
    points, faces = icosphere(2, 1.0)
    (hull,), warning = convex_hulls(Surface(points, faces), points, 4, 32, 0.05, limit_s=0.0)
    check(hull)
    assert "one hull" in warning and outside(hull, points).max() < 1e-9
    with pytest.raises(StoppedError):
        convex_hulls(Surface(points, faces), points, 4, 32, 0.05, lambda: True)
