# SPDX-License-Identifier: GPL-3.0-or-later
"""Fronts elsewhere: none on true props, some on props that have a second front built onto their backs."""

from __future__ import annotations

import numpy as np
import pytest

from dreamwright.backend.evaluation.fronts import (
    MARGIN,
    fit_distance,
    front_ratios,
    turned,
    view_distances,
)
from dreamwright.backend.evaluation.samples import starter_prop
from dreamwright.backend.geometry.build import Mesh
from dreamwright.backend.starter import domain

FRONTED = [prop.name for prop in domain.PROPS if prop.has_front]
COLORS = ("red", "white", "black")  # a hue, and both ends of lightness, at which light or shade hides shapes
GAP = 0.004  # scene units between the two halves, so that no two faces fight for a pixel


def with_two_fronts(mesh: Mesh) -> Mesh:
    """What lies behind the middle is pressed into the middle plane, and the front half is mirrored onto the back."""
    points = mesh.vertices.astype(np.float64)
    points -= 0.5 * (points.min(0) + points.max(0))
    front = np.stack([points[:, 0], np.minimum(points[:, 1], -GAP), points[:, 2]], axis=1)
    mirror = np.array([1.0, -1.0, 1.0], np.float32)
    return Mesh(
        np.concatenate([front, front * mirror]).astype(np.float32),
        np.concatenate([mesh.faces, mesh.faces[:, ::-1] + len(points)]),
        np.concatenate([mesh.albedo, mesh.albedo]),
        np.concatenate([mesh.normals, mesh.normals * mirror]),
    )


@pytest.mark.parametrize("name", FRONTED)
def test_a_true_prop_has_one_front_and_a_constructed_janus_prop_more(name: str) -> None:
    """Other proportions than those of the reference. Over all colors, ratios are 2.4 and more, and 0.84 and less."""
    for color in COLORS:
        prompt = domain.caption(name, color, None)
        prop = starter_prop(prompt, 5)
        assert (front_ratios(view_distances(prop, 0.0, prompt)) > 1.5).all()
        assert front_ratios(view_distances(with_two_fronts(prop), 0.0, prompt)).min() < 0.9 < MARGIN


def test_a_chair_that_the_classifier_calls_a_front_from_behind_is_none() -> None:
    """The classifier names views of the true chair at 135 and 225 degrees front."""
    prompt = "a blue chair"
    ratios = front_ratios(view_distances(starter_prop(prompt, 0), 0.0, prompt))
    assert ratios.shape == (5,) and (ratios > MARGIN).all()


def test_distances_tell_which_way_a_prop_faces() -> None:
    prompt = "a blue robot"
    prop = starter_prop(prompt, 1)
    right, wrong = view_distances(prop, 0.0, prompt), view_distances(prop, 180.0, prompt)
    assert fit_distance(right) < fit_distance(wrong)
    # Views at 45 k - 180 degrees are those at 45 (k + 4): the same cameras up to rounding of sines, so few pixels, if
    # any, change their face.
    np.testing.assert_allclose(turned(wrong, 4), right, atol=2e-3)
    assert front_ratios(wrong).min() < MARGIN < front_ratios(turned(wrong, 4)).min()


def test_prompts_of_another_domain_are_refused() -> None:
    with pytest.raises(ValueError, match="one prop of"):
        view_distances(starter_prop("a blue robot", 0), 0.0, "a peacock")
