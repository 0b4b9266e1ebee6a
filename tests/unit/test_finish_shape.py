# SPDX-License-Identifier: GPL-3.0-or-later
"""Budget, levels of detail, pivot and their figures against closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.config.finish_settings import PRESETS, SECTION, STEPS, FinishConfig, finish_config
from dreamwright.backend.config.setting import section_settings
from dreamwright.backend.errors import ConfigError, RunError
from dreamwright.backend.finishing.budget import reduce_to_budget
from dreamwright.backend.finishing.even import even_triangles
from dreamwright.backend.finishing.figures import shape_error
from dreamwright.backend.finishing.lod import bounding_diameter, falling, level_budgets, screen_size
from dreamwright.backend.finishing.pivot import placement
from dreamwright.backend.finishing.surface_search import SurfaceSearch
from dreamwright.backend.geometry.topology import Surface, face_areas, is_manifold, signed_volume
from tests.testing.primitive_meshes import grid, icosphere

RADIUS = 0.5


def circumradius(surface: Surface) -> float:
    """The largest of the faces."""
    corners = surface.vertices[surface.faces]
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2)
    return float((sides.prod(axis=1) / (4 * face_areas(surface))).max())


def box(cells: int) -> Surface:
    found = trimesh.creation.box((1.0, 0.6, 0.3))
    for _ in range(cells):
        found = found.subdivide()
    found.merge_vertices()
    return Surface(np.array(found.vertices, np.float64), np.array(found.faces, np.int64))


def test_hausdorff_of_two_balls_is_the_sagitta() -> None:
    """Between a face of circumradius p and the ball lies R - sqrt(R^2 - p^2) at most; the fine ball takes little."""
    coarse, fine = Surface(*icosphere(2, RADIUS)), Surface(*icosphere(5, RADIUS))
    sagitta, own = (RADIUS - math.sqrt(RADIUS**2 - circumradius(one) ** 2) for one in (coarse, fine))
    found = shape_error(coarse, fine).hausdorff
    assert sagitta - 2 * own <= found <= sagitta + 1e-9


def test_reduced_ball_is_within_the_sagitta_bound() -> None:
    """Every point of a face is within the sagitta of the ball, plus how far the face's corners are off it."""
    fine = Surface(*icosphere(5, RADIUS))
    low, error = reduce_to_budget(fine, 500, 0.05, fine, SurfaceSearch(fine))
    assert len(low.faces) <= 500 and is_manifold(low.faces)
    off = np.abs(np.linalg.norm(low.vertices, axis=1) - RADIUS).max()
    assert 0 < error.hausdorff <= RADIUS - math.sqrt(RADIUS**2 - circumradius(low) ** 2) + off


def test_reduced_box_keeps_its_edges_exactly() -> None:
    """All of a subdivided box but its corners is redundant; positions are float64 sums of a few terms."""
    fine = box(4)
    low, error = reduce_to_budget(fine, 60, 0.01, fine, SurfaceSearch(fine))
    assert len(low.faces) <= 60
    assert error.hausdorff < 1e-6 and error.normal_deg < 1e-3
    assert signed_volume(low) == pytest.approx(0.18, rel=1e-6)


def test_open_surface_keeps_its_border() -> None:
    plane = Surface(*grid(20))
    low, error = reduce_to_budget(plane, 40, 0.01, plane, SurfaceSearch(plane))
    assert len(low.faces) <= 40 and error.hausdorff < 1e-6


def test_even_triangles_are_equal_and_keep_sharp_edges() -> None:
    fine = box(4)
    search = SurfaceSearch(fine)
    low, _ = reduce_to_budget(fine, 600, 0.02, fine, search)
    even = even_triangles(low, search, fine, 600, 40)
    corners = even.vertices[even.faces]
    squares = ((corners - np.roll(corners, -1, axis=1)) ** 2).sum(axis=(1, 2))
    quality = 4 * math.sqrt(3) * face_areas(even) / squares  # 1 for an equilateral triangle, 0 for a needle
    assert quality.mean() > 0.8 and is_manifold(even.faces)
    assert len(even.faces) == pytest.approx(600, rel=0.15)
    # A corner cut off by one edge of the target length L would lie L / sqrt(3) off; edges of the box lose nothing.
    length = math.sqrt(4 * face_areas(fine).sum() / (math.sqrt(3) * 600))
    assert shape_error(even, fine, search).hausdorff < 0.3 * length
    assert np.abs(even.vertices).max(axis=0) == pytest.approx([0.5, 0.3, 0.15], abs=1e-9)


def test_collapse_is_one_sentence() -> None:
    """Sixty balls cannot be kept with sixteen triangles, nor with three times as many."""
    ball, faces = icosphere(1, 0.1)
    places = np.stack(np.meshgrid(np.arange(6), np.arange(10), [0.0], indexing="ij"), -1).reshape(-1, 3)
    many = Surface(
        (ball[None] + places[:, None]).reshape(-1, 3),
        (faces[None] + len(ball) * np.arange(len(places))[:, None, None]).reshape(-1, 3),
    )
    with pytest.raises(RunError, match="collapses at a budget of 16") as caught:
        reduce_to_budget(many, 16, 0.03, many, SurfaceSearch(many))
    assert "finish.triangles" in str(caught.value)


def test_screen_size_by_hand() -> None:
    """An error of 1 cm on a prop of 1 m is one pixel of 1080 where the prop covers 100 pixels: 100 / 1080."""
    assert screen_size(0.01, 1.0, 1.0, 1080) == pytest.approx(100 / 1080)
    assert screen_size(1e-6, 1.0, 1.0, 1080) == 1.0  # never larger than the screen
    assert screen_size(0.0, 1.0, 1.0, 1080) == 1.0


@given(st.floats(1e-3, 1), st.floats(0.1, 100), st.floats(0.1, 8), st.integers(64, 8192))
def test_error_at_the_screen_size_is_the_pixel_error(error: float, diameter: float, pixels: float, height: int) -> None:
    size = screen_size(error, diameter, pixels, height)
    covered = error / diameter * size * height
    assert covered == pytest.approx(pixels) or (size == 1.0 and covered <= pixels)


def test_chain_of_levels() -> None:
    assert level_budgets(5000, 3, 0.5) == [2500, 1250, 625]
    assert level_budgets(20, 3, 0.5) == [12]
    assert level_budgets(12, 3, 0.5) == []
    assert falling([1.0, 0.2, 0.3, 0.1]) == [1.0, 0.2, 0.2, 0.1]
    assert bounding_diameter(Surface(*icosphere(3, RADIUS))) == pytest.approx(2 * RADIUS, rel=1e-9)


@pytest.mark.parametrize(
    ("pivot", "low", "high"),
    [("base", (-1, -2, 0), (1, 2, 6)), ("center", (-1, -2, -3), (1, 2, 3)), ("keep", (1, 2, 3), (3, 6, 9))],
)
def test_pivot_and_height(pivot: str, low: tuple[float, ...], high: tuple[float, ...]) -> None:
    """A box from (0.5, 1, 1.5) to (1.5, 3, 4.5) made 6 m tall is scaled by 2."""
    corners = np.array([[0.5, 1, 1.5], [1.5, 3, 4.5]])
    scale, offset = placement(corners, pivot, 6.0)
    np.testing.assert_allclose(scale * corners + offset, [low, high], atol=1e-12)


def test_settings_are_named_and_bounded() -> None:
    assert finish_config("game", ["finish.levels=1"]).levels == 1
    assert finish_config("mobile").triangles == PRESETS["mobile"].config.triangles == 1500
    for preset, texts, said in (
        ("gane", [], "allowed are game, mobile, close-up"),
        ("game", ["finish.level=1"], "did you mean finish.levels"),
        ("game", ["finish.roughness=2"], "allowed is 0 to 1"),
        ("game", ["levels"], "finish.name=value"),
    ):
        with pytest.raises(ConfigError, match=said):
            finish_config(preset, texts)


def test_page_lists_every_setting_and_preset() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "user" / "finish.md").read_text(encoding="utf-8")
    for found in section_settings(FinishConfig, SECTION):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{found.name}` |"))
        assert found.allowed() in row and found.help in row
    assert all(f"| `{name}` |" in page for name in (*PRESETS, *STEPS))
