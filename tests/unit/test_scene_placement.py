# SPDX-License-Identifier: GPL-3.0-or-later
"""Props of a scene have their real heights, stand on the ground or on what is below, and are in the picture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.relighting.framing import frame, projected
from dreamwright.backend.relighting.placement import Shape, place, resting_height, shade_begins, standing, top_at
from dreamwright.backend.relighting.scene_description import SceneProp
from dreamwright.backend.starter import props as models
from tests.testing.fake_props import ball

# Of float32 coordinates of about a meter, added and turned a few times.
CLOSE = 1e-5


def box(x: float, y: float, z: float) -> Shape:
    """A closed box, base on z = 0, centered in x and y."""
    vertices = np.array(list(itertools.product((-x / 2, x / 2), (-y / 2, y / 2), (0, z))), np.float32)
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    return Shape(vertices, np.array([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))], np.int32))


def ball_shape() -> Shape:
    made = ball()
    return Shape(made.vertices, made.faces)


def at_place(one, shape: Shape) -> np.ndarray:
    """The vertices of a placed prop as Blender has them: p = scale Rz(turn) v + location."""
    turn = np.radians(one.turn_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return one.scale * shape.vertices.astype(np.float64) @ rotation.T + np.array(one.location)


@given(st.floats(0.01, 50), st.floats(-360, 360), st.floats(0.1, 3))
def test_height_is_real_and_the_base_is_at_zero(height: float, turn: float, file_height: float) -> None:
    shape = box(2 * file_height, file_height, file_height)
    vertices, scale = standing(shape.vertices, height, turn)
    assert np.ptp(vertices[:, 2]) == pytest.approx(height, rel=CLOSE) and vertices[:, 2].min() == pytest.approx(0)
    assert scale == pytest.approx(height / file_height, rel=CLOSE)
    # Turning about Z keeps distances.
    np.testing.assert_allclose(
        np.linalg.norm(vertices[0] - vertices[7]),
        scale * np.linalg.norm(shape.vertices[0] - shape.vertices[7]),
        rtol=CLOSE,
    )


def test_positive_turn_is_counter_clockwise_from_above() -> None:
    vertices, _ = standing(np.array([[0, -1, 0], [0, 1, 1]], np.float32), 1.0, 90.0)
    np.testing.assert_allclose(vertices[0], [1, 0, 0], atol=CLOSE)  # a front at -Y comes to +X


def test_placed_transform_gives_the_bounding_box_at_its_place() -> None:
    scene = (
        SceneProp("table", "a white table", 0.8, at=(1.0, 2.0), turn_deg=30.0),
        SceneProp("mug", "a blue mug", 0.1, at=(0.2, -0.1), on="table", turn_deg=-70.0),
    )
    shapes = {"table": box(1.6, 1.0, 1.0), "mug": box(0.9, 0.7, 1.0)}
    table, mug = place(scene, shapes)
    for one in (table, mug):
        found = at_place(one, shapes[one.prop.name])
        np.testing.assert_allclose(found.min(0), one.low, atol=CLOSE)
        np.testing.assert_allclose(found.max(0), one.high, atol=CLOSE)
        assert one.high[2] - one.low[2] == pytest.approx(one.prop.height_m, rel=CLOSE) and not one.notice
    np.testing.assert_allclose(np.add(table.low, table.high)[:2] / 2, (1.0, 2.0), atol=CLOSE)
    np.testing.assert_allclose(np.add(mug.low, mug.high)[:2] / 2, (1.2, 1.9), atol=CLOSE)
    assert table.low[2] == pytest.approx(0, abs=CLOSE) and mug.low[2] == pytest.approx(0.8, abs=CLOSE)


def test_prop_rests_on_the_surface_below_it_and_not_on_the_bounding_box() -> None:
    """Beside the top of a ball of radius 1/2 a thin prop stands lower: z = 1/2 + sqrt(1/4 - x^2) at its inner edge."""
    scene = (SceneProp("ball", "x", 1.0), SceneProp("pin", "x", 0.5, at=(0.3, 0.0), on="ball"))
    pin = place(scene, {"ball": ball_shape(), "pin": box(0.02, 0.02, 1.0)})[1]
    # The pin is 0.01 wide at that height. The ball has 16 rings: its faces lie up to (pi / 32)^2 / 2 = 0.005 inside.
    assert pin.low[2] == pytest.approx(0.5 + np.sqrt(0.25 - 0.295**2), abs=0.006)


def test_uneven_surface_carries_a_prop_at_its_highest_place() -> None:
    bumpy = box(1, 1, 1)
    bump = Shape(box(0.1, 0.1, 1.05).vertices + np.float32([0.2, 0, 0]), box(1, 1, 1).faces)
    below = np.concatenate([bumpy.vertices, bump.vertices])
    faces = np.concatenate([bumpy.faces, bump.faces + len(bumpy.vertices)])
    top = np.linspace(-0.3, 0.3, 13)
    plate = np.array([(x, y, z) for x in top for y in top for z in (0.0, 0.2)])
    assert resting_height(plate, below, faces) == pytest.approx(1.05, abs=CLOSE)
    beside = plate * (0.2, 1, 1) - (0.2, 0, 0)
    assert resting_height(beside, below, faces) == pytest.approx(1.0, abs=CLOSE)


@given(st.floats(-0.49, 0.49), st.floats(-0.49, 0.49))
def test_top_of_a_box_is_its_height(x: float, y: float) -> None:
    shape = box(1, 1, 0.7)
    assert top_at(shape.vertices, shape.faces, np.array([[x, y], [2.0, 0.0]])) == pytest.approx([0.7, -np.inf])


def test_prop_without_what_is_below_it_stands_on_the_ground_and_says_so() -> None:
    scene = (
        SceneProp("table", "x", 0.7),
        SceneProp("mug", "x", 0.1, on="table"),
        SceneProp("far", "x", 0.1, (9, 0), "table"),
    )
    mug, far = place(scene, {"mug": box(1, 1, 1), "far": box(1, 1, 1)})
    assert (mug.low[2], mug.notice) == (pytest.approx(0, abs=CLOSE), "mug stands on the ground, as there is no table")
    shapes = dict.fromkeys(("table", "mug", "far"), box(1, 1, 1))
    far = place(scene, shapes)[2]
    assert far.low[2] == pytest.approx(0, abs=CLOSE) and "no part of table is below it" in far.notice


def test_mug_of_the_built_in_domain_stands_on_its_table() -> None:
    """The mean shapes that the model was trained on: a tabletop on four legs."""
    shapes = {}
    for name in ("table", "mug"):
        mesh = models.triangles(models.build(name))
        shapes[name] = Shape(mesh.vertices - mesh.vertices.min(0) * (0, 0, 1), mesh.faces)
    scene = (SceneProp("table", "x", 0.72), SceneProp("mug", "x", 0.11, (0.1, 0.1), "table"))
    assert place(scene, shapes)[1].low[2] == pytest.approx(0.72, abs=CLOSE)


def test_shade_of_a_lamp_begins_above_its_stand() -> None:
    """A foot up to 0.1, a pole up to 0.55, and a shade that narrows towards its top at 1, off the origin."""
    z = np.linspace(0, 1, 401)
    radius = np.where(z < 0.1, 0.24, np.where(z < 0.55, 0.04, 0.34 - 0.3 * (z - 0.55)))
    around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rings = [(r * np.cos(a) + 3, r * np.sin(a), 5 * h) for h, r in zip(z, radius, strict=True) for a in around]
    assert shade_begins(np.array(rings)) == pytest.approx(0.55, abs=0.02)  # a layer is a fiftieth
    pole = np.array([(0.1 * np.cos(a), 0.1 * np.sin(a), h) for h in z for a in around])
    assert 0 < shade_begins(pole) < 1, "a lamp without a shade glows somewhere"


@given(
    st.lists(st.tuples(*[st.floats(-3, 3)] * 3, *[st.floats(0.05, 2)] * 3), min_size=1, max_size=5),
    st.floats(0, 359),
    st.floats(-5, 70),
    st.floats(15, 80),
    st.floats(0.5, 2.5),
)
def test_every_corner_is_in_the_picture(boxes, azimuth: float, elevation: float, field: float, aspect: float) -> None:
    corners = [(np.array(one[:3]), np.array(one[:3]) + one[3:]) for one in boxes]
    view = frame(corners, azimuth, elevation, field, aspect, 0.05)
    points = [point for low, high in corners for point in itertools.product(*zip(low, high, strict=True))]
    places = np.abs(projected(view, points, aspect))
    # The nearest such camera: the corner that is farthest out touches the margin.
    assert places.max() == pytest.approx(0.95, abs=1e-6)
