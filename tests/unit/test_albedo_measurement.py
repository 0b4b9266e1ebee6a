# SPDX-License-Identifier: GPL-3.0-or-later
"""The measure of a relit scene: zero for Lambertians of the albedo, large for baked shading, emission and sRGB."""

from __future__ import annotations

import numpy as np
import pytest

from dreamwright.backend.geometry.color import display_to_linear
from dreamwright.backend.relighting.measurement import LIMIT, measure, measured_albedo

GRAY = 0.5
ALBEDO = np.array([0.6, 0.3, 0.1])
SIZE = 48


def sphere_normals() -> tuple[np.ndarray, np.ndarray]:
    """(h, w, 3) unit normals of a sphere seen from +Z, and (h, w) where it is."""
    x, y = np.meshgrid(np.linspace(-1.1, 1.1, SIZE), np.linspace(1.1, -1.1, SIZE))
    inside = x**2 + y**2 < 1
    return np.stack([x, y, np.sqrt(np.maximum(1 - x**2 - y**2, 0))], -1), inside


LIGHTS = {"sun": ((0.6, 0.5, 0.6), (3, 2.6, 2)), "lamp": ((-0.9, 0, 0.4), (2, 1, 0.4)), "sky": ((0, 1, 0.2), (1, 2, 4))}


def images(albedo: np.ndarray, emission: float = 0.0) -> dict[str, np.ndarray]:
    """A Lambertian sphere of this albedo (h, w, 3) in the closed form rho / pi E max(n.l, 0) and the gray one."""
    normals, inside = sphere_normals()
    arrays = {"index": inside.astype(float), "expected": np.broadcast_to(ALBEDO, (SIZE, SIZE, 3))}
    for name, (direction, color) in LIGHTS.items():
        towards = np.array(direction) / np.linalg.norm(direction)
        irradiance = np.maximum(normals @ towards, 0)[..., None] * np.array(color) / np.pi
        irradiance = np.where(inside[..., None], irradiance, 0.0)
        arrays[f"{name}.0.render"] = albedo * irradiance + emission * inside[..., None]
        arrays[f"{name}.0.reference"] = GRAY * irradiance
    return arrays


def errors_of(record: dict) -> list[float]:
    return [one["p95_error"] for one in record["errors"]]


def test_lambertian_of_the_stated_albedo_agrees_exactly() -> None:
    record = measure(images(np.broadcast_to(ALBEDO, (SIZE, SIZE, 3))), ["ball"], GRAY)
    assert record["agrees"] and max(errors_of(record)) < 1e-12
    assert [one["p95"] for one in record["spreads"]] == [pytest.approx(0, abs=1e-12)]
    for one in record["errors"]:
        assert one["albedo"] == pytest.approx(ALBEDO) and 0.4 < one["lit"] <= 1.0, "the far side of the light is dark"


def test_shading_in_the_albedo_is_found() -> None:
    """Light from above that was painted into the colors: equal in all lightings, and far from the true albedo."""
    normals, _ = sphere_normals()
    baked = ALBEDO * (0.6 + 0.4 * normals[..., 1:2])
    record = measure(images(baked), ["ball"], GRAY)
    assert not record["agrees"] and min(errors_of(record)) > 10 * LIMIT
    assert record["spreads"][0]["p95"] < 1e-12


def test_light_that_is_not_reflected_is_found() -> None:
    record = measure(images(np.broadcast_to(ALBEDO, (SIZE, SIZE, 3)), emission=0.05), ["ball"], GRAY)
    assert not record["agrees"] and min(errors_of(record)) > LIMIT
    assert record["spreads"][0]["p95"] > LIMIT, "it differs between lightings"


def test_colors_of_the_wrong_space_are_found() -> None:
    linear = np.broadcast_to(display_to_linear(ALBEDO), (SIZE, SIZE, 3))
    assert not measure(images(linear), ["ball"], GRAY)["agrees"]


def test_shadow_is_left_out_and_counted() -> None:
    render, reference = np.ones((4, 4, 3)), np.ones((4, 4, 3))
    reference[:2] = 0.0
    found = measured_albedo(render, reference, GRAY)
    assert np.isnan(found[:2]).all() and (found[2:] == GRAY).all()


def test_prop_that_is_not_seen_has_no_figure() -> None:
    record = measure(images(np.broadcast_to(ALBEDO, (SIZE, SIZE, 3))), ["ball", "hidden"], GRAY)
    hidden = [one for one in record["errors"] if one["prop"] == "hidden"]
    assert {one["pixels"] for one in hidden} == {0} and {one["p95_error"] for one in hidden} == {None}
    assert record["agrees"], "the others were measured"


def test_scene_in_which_nothing_is_seen_does_not_agree() -> None:
    arrays = images(np.broadcast_to(ALBEDO, (SIZE, SIZE, 3)))
    arrays["index"] = np.zeros((SIZE, SIZE))
    assert not measure(arrays, ["ball"], GRAY)["agrees"]
