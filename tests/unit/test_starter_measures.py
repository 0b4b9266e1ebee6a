# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures of a mesh against the prop of its prompt, on true props with known faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dreamwright.backend.evaluation.fronts import MARGIN, front_ratios
from dreamwright.backend.evaluation.retrievers import load_starter_classifier
from dreamwright.backend.evaluation.samples import true_prop
from dreamwright.backend.evaluation.silhouettes import Alignment, centered, held_out_iou
from dreamwright.backend.evaluation.starter import facing, measure
from dreamwright.backend.geometry.color import display_to_linear
from dreamwright.backend.starter import domain, props


def test_a_prop_that_was_aligned_back_to_front_is_turned() -> None:
    """A robot's silhouettes are nearly the same from both sides; its face decides."""
    prompt = "a blue robot"
    mesh, model = true_prop(prompt), props.triangles(props.build("robot"))
    lifted = reference = centered(model.vertices, model.faces)
    for rotation in (0.0, 180.0):
        fit = Alignment(1.0, rotation, held_out_iou(lifted.transformed(1.0, rotation), reference))
        found, distances = facing(mesh, fit, lifted, reference, prompt)
        assert found == Alignment(1.0, 0.0, pytest.approx(1.0, abs=0.01))  # 360 degrees may change a pixel by rounding
        assert (front_ratios(distances) > MARGIN).all()


@pytest.mark.slow
def test_albedo_error_is_split_by_kind_of_part() -> None:
    """A table whose legs are as purple as its top: brown legs of another color are off by that difference."""
    color, brown = np.array(domain.COLORS["purple"]), np.array([0.45, 0.28, 0.14])
    mesh = true_prop("a purple table")
    painted = replace(mesh, albedo=np.broadcast_to(display_to_linear(color), mesh.albedo.shape).astype(np.float32))
    found = measure(load_starter_classifier(), painted, "a purple table")
    assert found.albedo_error_fixed == pytest.approx(np.abs(color - brown).mean(), abs=1e-5)  # float32 of sRGB
    assert found.albedo_error_primary == pytest.approx(0.0, abs=1e-5)
    # The same faces at the same pixels, but for the nearest scale of those that are tried, 1.0062: parts of a pixel.
    assert found.view_normal_error_deg is not None and found.view_normal_error_deg < 5.0
    assert found.hole_open is None and found.front_ratio is None
