# SPDX-License-Identifier: GPL-3.0-or-later
"""A baked texture is the field's albedo at the surface; charts do not overlap; against closed forms."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.config.schema import MeshConfig
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.geometry.build import Mesh, build_mesh
from dreamwright.backend.geometry.color import display_to_linear, linear_to_display
from dreamwright.backend.geometry.compare import psnr
from dreamwright.backend.geometry.texture import Texture, bake, covered_texels, fill_gaps
from dreamwright.backend.geometry.topology import Surface, is_watertight
from dreamwright.backend.geometry.unwrap import Unwrapping, check_unwrapper, unwrap
from dreamwright.backend.mesh_rendering.rasterize import orbit_axes, rasterize
from tests.testing.analytic_fields import AnalyticField, box, foot_on_torus, sphere, torus, union


def waves(mu: torch.Tensor) -> torch.Tensor:
    """A pattern finer than the triangles below, which are 0.04 a side."""
    return 0.5 + 0.45 * torch.stack(
        [torch.sin(25 * mu[:, 0]), torch.sin(25 * mu[:, 1] + 1), torch.sin(25 * mu[:, 2] + 2)], dim=1
    )


def on_sphere(mu: torch.Tensor) -> torch.Tensor:
    """Constant along normals, so the average below the surface (eq 5) is the albedo at the surface."""
    return waves(0.4 * mu / mu.norm(dim=1, keepdim=True))


def on_torus(mu: torch.Tensor) -> torch.Tensor:
    return waves(foot_on_torus(mu))


FIELDS = {"sphere": (sphere(0.4), on_sphere), "torus": (torus(0.3, 0.12), on_torus)}
SIZE = 256


@pytest.fixture(scope="module", params=FIELDS)
def baked(request: pytest.FixtureRequest):
    distance, rho = FIELDS[request.param]
    fractions: list[float] = []
    mesh, report = build_mesh(
        AnalyticField(distance, rho), MeshConfig(resolution=64, triangles=2000, texture=SIZE), progress=fractions.append
    )
    return mesh, report, rho, fractions


def random_points(mesh: Mesh, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on the mesh, their texture coordinates, and the interpolated vertex colors in display sRGB."""
    random = np.random.default_rng(0)
    face, weight = random.integers(0, len(mesh.faces), count), random.dirichlet([1, 1, 1], count)
    places = mesh.texture.unwrapping

    def mean(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.einsum("mc,mck->mk", weight, values[rows[face]].astype(np.float64))

    return (
        mean(mesh.vertices, mesh.faces),
        mean(places.uv, places.corners),
        linear_to_display(mean(mesh.albedo, mesh.faces)),
    )


def test_texture_equals_the_field_at_the_surface(baked) -> None:
    """Mean error 0.002 of 1 against 0.03 of vertex colors on the same 2000 triangles, some 24 dB better."""
    mesh, report, rho, _ = baked
    points, uv, by_vertex = random_points(mesh, 20_000)
    expected = rho(torch.from_numpy((points - np.array(report.offset)) / report.scale)).numpy()
    shown = linear_to_display(mesh.texture.linear_at(uv))
    error, old = np.abs(shown - expected), np.abs(by_vertex - expected)
    better = psnr(float(((shown - expected) ** 2).mean())) - psnr(float(((by_vertex - expected) ** 2).mean()))
    print(
        f"mean error {error.mean():.4f} against {old.mean():.4f}, 99% below {np.quantile(error, 0.99):.4f}; "
        f"{better:.1f} dB better"
    )
    # 8-bit texels have a mean error of 1/4 level, 0.001. Texels of 0.008 interpolate waves of 25 rad per unit with an
    # error of at most (25 x 0.008)^2 / 8 x 0.45 = 0.0022, 0.001 on average. 99% are within three times the sum of the
    # largest two, 0.002 + 0.002 (steeper parts of the sRGB curve).
    assert error.mean() < 0.003 and np.quantile(error, 0.99) < 0.015
    assert old.mean() > 10 * error.mean() and better > 20


def test_texture_leaves_the_mesh_unchanged(baked) -> None:
    mesh, report, rho, _ = baked
    distance = FIELDS["sphere" if rho is on_sphere else "torus"][0]
    plain, without = build_mesh(AnalyticField(distance, rho), MeshConfig(resolution=64, triangles=2000))
    for name in ("vertices", "faces", "albedo", "normals"):
        assert np.array_equal(getattr(plain, name), getattr(mesh, name))
    assert plain.texture is None and (without.texture, report.texture) == (0, SIZE)


def test_charts_do_not_overlap(baked) -> None:
    mesh = baked[0]
    places = mesh.texture.unwrapping
    assert (places.uv.dtype, places.corners.dtype, places.vertex.dtype) == (np.float32, np.int32, np.int32)
    assert places.uv.min() >= 0 and places.uv.max() <= 1
    assert np.array_equal(places.vertex[places.corners], mesh.faces), (
        "seam vertices have several UVs, triangles are unchanged"
    )
    assert texel_areas(places, SIZE).min() > 0.05, "square texels"
    assert texel_areas(places, SIZE).sum() > 0.4 * SIZE**2, "most of the texture is used"
    assert most_claims(places, SIZE) == 1, "no texel's center is inside two triangles"


def texel_areas(places: Unwrapping, size: int) -> np.ndarray:
    a, b, c = (size * places.uv[places.corners[:, corner]].astype(np.float64) for corner in range(3))
    return 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])


def most_claims(places: Unwrapping, size: int, margin: float = 0.05) -> int:
    """How many triangles hold one texel's center, `margin` texels from their edges, at most; face by face."""
    claims = np.zeros((size, size), dtype=int)
    for corners in size * places.uv[places.corners].astype(np.float64) - 0.5:
        low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(corners.max(axis=0)), size - 1).astype(int) + 1
        row, column = np.mgrid[low[1] : high[1], low[0] : high[0]]
        sides = []
        for at in range(3):
            (ax, ay), (bx, by) = corners[at], corners[(at + 1) % 3]
            sides.append(((bx - ax) * (row - ay) - (by - ay) * (column - ax)) / max(np.hypot(bx - ax, by - ay), 1e-12))
        sides = np.array(sides)
        claims[low[1] : high[1], low[0] : high[0]] += (sides > margin).all(axis=0) | (sides < -margin).all(axis=0)
    return int(claims.max())


def test_overlap_count_detects_an_overlap() -> None:
    corners = np.array([[0, 1, 2], [0, 1, 2]], dtype=np.int32)
    assert (
        most_claims(
            Unwrapping(
                np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]], np.float32), corners, np.arange(3, dtype=np.int32)
            ),
            32,
        )
        == 2
    )


def test_gaps_take_the_nearest_charts_color(baked) -> None:
    """Mip levels of half, a quarter and an eighth of the size have only colors of the field."""
    mesh, _, _, fractions = baked
    owned = covered_texels(mesh.texture.unwrapping, SIZE).pixel
    gaps = np.setdiff1d(np.arange(SIZE * SIZE), owned)
    image = mesh.texture.image.reshape(-1, 3)
    assert len(gaps) > 100
    colors = {tuple(color) for color in image[owned].tolist()}
    assert {tuple(color) for color in image[gaps].tolist()} <= colors
    assert image.min() >= 0.04 * 255, "the field's darkest is 0.05; unfilled texels would be black"
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_filled_gaps_take_the_nearest_color() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0], image[3, 3] = (200, 0, 0), (0, 0, 100)
    filled = fill_gaps(image, np.array([0, 15]))
    assert filled[0, 1].tolist() == filled[1, 0].tolist() == [200, 0, 0] and filled[3, 2].tolist() == [0, 0, 100]
    assert np.array_equal(fill_gaps(image, np.zeros(0, dtype=int)), image)


def test_texels_and_lookups_by_hand() -> None:
    """A triangle over the left upper half of 4 x 4 texels; u to the right, v down, centers at (column + 1/2) / 4."""
    places = Unwrapping(
        np.array([[0, 0], [1, 0], [0, 1]], np.float32), np.array([[0, 1, 2]], np.int32), np.arange(3, dtype=np.int32)
    )
    texels = covered_texels(places, 4, reach=0.0)
    assert texels.pixel.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9, 12], "centers on the diagonal belong to it"
    at = dict(zip(texels.pixel.tolist(), texels.barycentric.tolist(), strict=True))
    assert at[1] == pytest.approx([1 - 3 / 8 - 1 / 8, 3 / 8, 1 / 8]) and at[8] == pytest.approx(
        [1 - 1 / 8 - 5 / 8, 1 / 8, 5 / 8]
    )
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1], image[1, 0] = 255, 188
    texture = Texture(image, places)
    assert texture.linear_at(np.array([0.75, 0.25])) == pytest.approx([1, 1, 1]), "right, top"
    half = float(display_to_linear(np.array(188 / 255)))
    assert texture.linear_at(np.array([0.25, 0.75])) == pytest.approx([half] * 3), "left, bottom"
    assert texture.linear_at(np.array([0.5, 0.5])) == pytest.approx([(1 + half) / 4] * 3), (
        "linear light is averaged, not sRGB values"
    )
    assert texture.linear_at(np.array([1.0, 0.0])) == pytest.approx([1, 1, 1]), "clamped at the edge of the texture"


def test_texels_beyond_an_edge_sample_the_edge() -> None:
    """A triangle between texel centers still gets texels, with weights inside the triangle."""
    uv = (np.array([[8.1, 8.1], [8.4, 8.1], [8.1, 8.4], [12, 4], [15, 4], [12, 7]]) / 16).astype(np.float32)
    places = Unwrapping(uv, np.array([[0, 1, 2], [3, 4, 5]], np.int32), np.arange(6, dtype=np.int32))
    texels = covered_texels(places, 16)
    assert set(texels.face.tolist()) == {0, 1}
    assert texels.barycentric.min() >= 0 and texels.barycentric.sum(axis=1) == pytest.approx(1)


@settings(max_examples=15, deadline=None)
@given(st.integers(64, 200), st.integers(0, 2**31 - 1), st.floats(-4, 4))
def test_balls_of_any_size_unwrap_without_overlap(size: int, seed: int, exponent: float) -> None:
    """Also millimetres and kilometres: xatlas drops faces below an absolute area."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=2)
    vertices = 10.0**exponent * ball.vertices * np.random.default_rng(seed).uniform(0.6, 1.4, 3)
    places = unwrap(vertices.astype(np.float32), ball.faces, size)
    assert np.array_equal(places.vertex[places.corners], ball.faces)
    assert places.uv.min() >= 0 and places.uv.max() <= 1 and np.isfinite(places.uv).all()
    assert texel_areas(places, size).min() > 0.01 and most_claims(places, size) == 1


def test_unwrap_is_deterministic(baked) -> None:
    mesh = baked[0]
    again = unwrap(mesh.vertices, mesh.faces, SIZE)
    assert np.array_equal(again.uv, mesh.texture.unwrapping.uv) and np.array_equal(
        again.corners, mesh.texture.unwrapping.corners
    )


def test_face_without_area_gets_a_neighbors_uv() -> None:
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=2)
    # A distant vertex with only a degenerate face: it is in no chart.
    vertices = np.concatenate([ball.vertices, ball.vertices[:1] * 1.0001])
    last = len(vertices) - 1
    places = unwrap(vertices, np.concatenate([ball.faces, [[last, last, 0]]]), 128)
    assert np.array_equal(places.vertex[places.corners][-1], [last, last, 0])
    near = places.uv[places.corners[:-1][ball.faces == 0]]  # the UV of vertex 0 in the faces with a chart
    for at in places.uv[places.corners[-1]]:
        assert np.abs(near - at).max(axis=1).min() == 0, "xatlas leaves it in the corner of the texture"


def test_stopped_bake_leaves_vertex_colors() -> None:
    calls = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 1

    field = AnalyticField(sphere(0.4), on_sphere)
    mesh, report = build_mesh(field, MeshConfig(resolution=32, triangles=400, texture=512), should_stop=stop)
    assert len(calls) == 2 and mesh.texture is None and report.texture == 0 and is_watertight(mesh.faces)


def test_filled_pit_is_textured_from_its_wall() -> None:
    """The albedo inside the pit is white; that of its walls is green."""

    def rho(mu: torch.Tensor) -> torch.Tensor:
        solid = shape(mu)[:, None] < 0.012
        return torch.where(solid, torch.tensor([0.1, 0.6, 0.1]), torch.tensor([1.0, 1.0, 1.0]))

    def shape(mu: torch.Tensor) -> torch.Tensor:
        hole = box((0.08, 0.08, 0.4), (0.0, 0.0, 0.2))(mu)
        return torch.maximum(box((0.3, 0.3, 0.3))(mu), -hole)

    mesh, _ = build_mesh(
        AnalyticField(shape, rho, softness=0.003), MeshConfig(resolution=64, triangles=1500, closing=0.1, texture=128)
    )
    points, uv, _ = random_points(mesh, 5000)
    shown = linear_to_display(mesh.texture.linear_at(uv))
    # 8-bit texels: half a level is 0.002; filtering mixes neighbors of the same wall.
    assert np.median(shown, axis=0) == pytest.approx([0.1, 0.6, 0.1], abs=0.02)
    # The placed mesh is one metre tall, so the pit is 0.27 wide.
    lid = (np.abs(points[:, :2]) < 0.1).all(axis=1) & (points[:, 2] > 0.9)
    assert lid.sum() > 50 and shown[lid, 0].mean() < 0.3, "a query at the lid itself gives 0.8"


def test_rendered_texture_shows_each_points_color() -> None:
    """Red above, blue below: in a front view the upper pixels are red."""

    def halves(mu: torch.Tensor) -> torch.Tensor:
        return torch.where(mu[:, 2:] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.8]))

    field = AnalyticField(union(sphere(0.3), box((0.1, 0.1, 0.35))), halves)
    mesh, _ = build_mesh(field, MeshConfig(resolution=48, triangles=900, texture=128))
    axes = orbit_axes(0.0, 0.0)
    seen = rasterize(mesh.vertices, mesh.faces, np.array([0, -5.0, 0.5]), axes, 2.0, 64)
    color = linear_to_display(mesh.texture.seen(seen))
    rows = np.flatnonzero(seen.mask.any(axis=1))
    above, below = seen.mask.copy(), seen.mask.copy()
    above[31:], below[:33] = False, False
    # Colors are constant, so half a level of 8 bits (0.002) remains; ten times that at the seam of two texels.
    assert rows[0] < 20 and np.abs(color[above] - [0.9, 0.1, 0.1]).max() < 0.02
    assert np.abs(color[below] - [0.1, 0.2, 0.8]).max() < 0.02


@pytest.mark.parametrize("size", [1, 63, 4097, -5])
def test_texture_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="texture"):
        build_mesh(AnalyticField(sphere(0.3)), MeshConfig(texture=size))


def test_missing_xatlas_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xatlas", None)
    monkeypatch.setattr("dreamwright.backend.geometry.unwrap.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install xatlas"):
        check_unwrapper()


def test_texture_is_display_srgb() -> None:
    """The field's rho is display sRGB, as a glTF base color texture: 0.2 is 51 without another conversion."""
    field = AnalyticField(sphere(0.3), (0.2, 0.6, 1.0))
    mesh, _ = build_mesh(field, MeshConfig(resolution=32, triangles=300))
    flat = bake(
        field,
        Surface(mesh.vertices * 0.6 - [0, 0, 0.3], mesh.faces.astype(np.int64)),
        unwrap(mesh.vertices, mesh.faces, 64),
        64,
        0.02,
    )
    assert flat.image.reshape(-1, 3).tolist() == [[51, 153, 255]] * 64 * 64
    assert flat.png()[:8] == b"\x89PNG\r\n\x1a\n" and b"iCCP" not in flat.png() and b"gAMA" not in flat.png()
