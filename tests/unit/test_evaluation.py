# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of lifting quality on shapes with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from dreamwright.backend.evaluation.silhouettes import align, centered, hole_is_open, iou, open_holes
from dreamwright.backend.evaluation.starter import PROMPTS
from dreamwright.backend.evaluation.surfaces import POINTS, sample_surface, surface_distance
from dreamwright.backend.starter import domain, props


def solid_of(name: str):
    mesh = props.triangles(props.build(name))
    return centered(mesh.vertices, mesh.faces)


def test_alignment_inverts_rotation_and_scale() -> None:
    chair = solid_of("chair")
    found = align(chair.transformed(0.85, 0.0).transformed(1.0, 125.0), chair)
    # `align` tries rotations 5 degrees apart, among them the right one; a neighbor may fit the pixels as well.
    assert abs((found.rotation_deg + 125.0 + 180.0) % 360 - 180.0) <= 5.0
    # `align` tries 9 scales, 7.6% apart, so the best is off by 3.8% at most.
    assert found.scale == pytest.approx(1 / 0.85, rel=0.04)
    # Twice 3.8% of the area is 7.6%.
    assert found.iou > 0.92


def test_different_props_do_not_align() -> None:
    # A torus that covers a chair leaves its seat, legs and back: well below the 0.92 of equal props.
    assert align(solid_of("torus"), solid_of("chair")).iou < 0.6


def test_iou_by_hand() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True
    assert iou(a, b) == 4 / 12
    assert iou(a & False, b & False) == 1.0


def test_open_holes() -> None:
    assert hole_is_open(solid_of("torus")) and hole_is_open(solid_of("mug"))
    assert not hole_is_open(solid_of("mushroom"))
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:6] = False
    assert open_holes(ring) == 1 and open_holes(np.ones((9, 9), bool)) == 0


def test_surface_distance_of_spheres() -> None:
    """A sphere of radius .5 against one of .4: chamfer .1, no point within .04."""
    from dreamwright.backend.starter import solids

    vertices, faces = solids.ellipsoid((0.5, 0.5, 0.5), segments=64)
    triangles = np.array([(f[0], f[i], f[i + 1]) for f in faces for i in range(1, len(f) - 1)])
    ball = centered(vertices, triangles)
    points = sample_surface(ball, 2000, np.random.default_rng(0))
    # Chords of 64 segments lie up to 0.5 (1 - cos(pi / 64)) = 6.0e-4 inside, and twice that on diagonals: 1.2e-3 is the
    # largest distance of any point.
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.5, rtol=0, atol=1.3e-3)
    rng = np.random.default_rng(0)
    first, again, smaller = (sample_surface(solid, POINTS, rng) for solid in (ball, ball, ball.transformed(0.8, 0.0)))
    apart = surface_distance(first, smaller)
    # Of 8000 points on an area of pi, the nearest lies 0.011 aside, which adds 0.011^2 / (2 x 0.1) = 6e-4. Chords bring
    # the surfaces up to 1.2e-3 closer to each other, or apart.
    assert apart.chamfer == pytest.approx(0.1, abs=3e-3) and apart.f_score == 0.0
    # 13 other points are expected within 0.04, none with a probability of e^-13: 0.04 of 16,000 points; 16 are allowed.
    assert surface_distance(first, again).f_score == pytest.approx(1.0, abs=1e-3)


def test_prompts_name_every_prop() -> None:
    named = [domain.parse(prompt)[1] for prompt in PROMPTS]
    assert len(PROMPTS) >= 24 and set(named) == {p.name for p in domain.PROPS}
    assert all(named.count(prop) == 2 for prop in ("chair", "house", "torus", "mug", "table", "rocket"))
