# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes built from fields: placement, colors, closedness, report and turntable."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.cameras.poses import orbit_cameras
from dreamwright.backend.config.schema import MeshConfig, RenderConfig
from dreamwright.backend.errors import ConfigError, RunError
from dreamwright.backend.geometry.build import build_mesh, to_object_frame
from dreamwright.backend.geometry.color import display_to_linear, linear_to_display, sample_albedo
from dreamwright.backend.geometry.compare import FieldViews, mesh_render_error, psnr
from dreamwright.backend.geometry.extract import extract_surface, refine_surface, sample_density_grid
from dreamwright.backend.geometry.topology import Surface, degenerate_faces, is_manifold, signed_volume, vertex_normals
from dreamwright.backend.mesh_rendering.rasterize import orbit_axes
from dreamwright.backend.mesh_rendering.turntable import turntable_image
from dreamwright.backend.rendering.renderer import Renderer
from dreamwright.backend.rendering.shading import Shading
from tests.testing.analytic_fields import AnalyticField, box, sphere, union

CONFIG = MeshConfig(resolution=40, triangles=1500, height_m=0.5)


def halves(mu: torch.Tensor) -> torch.Tensor:
    """Red above and blue below inside the surface, white outside: a value outside would be wrong."""
    red, blue = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.8])
    return torch.where(mu[:, 2:] > 0, red, blue)


def two_tone() -> AnalyticField:
    return AnalyticField(box((0.2, 0.15, 0.3), (0.1, 0.0, 0.05)), halves, peak=300.0, softness=0.004)


@pytest.fixture(scope="module")
def built():
    return build_mesh(two_tone(), CONFIG)


def test_mesh_stands_on_its_base_at_its_height(built) -> None:
    mesh, report = built
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    # The placement is computed in float64 and stored in float32: two roundings of values below 0.5, 3e-8 each.
    assert low[2] == pytest.approx(0.0, abs=1e-7) and high[2] == pytest.approx(0.5, abs=1e-7)
    assert low[:2] + high[:2] == pytest.approx([0.0, 0.0], abs=1e-7)
    # tau = 300 sigmoid(-distance / 0.004) equals the threshold at this distance outside of the box.
    outside = 0.004 * np.log(300.0 / report.threshold - 1.0)
    # Marching cubes and decimation keep planes; a face's place errs by at most the softness of 0.004, 1% of 0.4.
    assert (high - low)[0] / (high - low)[2] == pytest.approx((0.4 + 2 * outside) / (0.6 + 2 * outside), rel=0.01)
    assert report.scale == pytest.approx(0.5 / (0.6 + 2 * outside), rel=0.01)
    back = (mesh.vertices - np.array(report.offset)) / report.scale  # the placement can be undone
    # The mean of two faces that err by at most the softness.
    assert 0.5 * (back.min(axis=0) + back.max(axis=0)) == pytest.approx([0.1, 0.0, 0.05], abs=0.004)


def test_mesh_is_closed_and_matches_its_report(built) -> None:
    mesh, report = built
    assert (mesh.vertices.dtype, mesh.faces.dtype, mesh.albedo.dtype, mesh.normals.dtype) == tuple(
        np.dtype(kind) for kind in ("float32", "int32", "float32", "float32")
    )
    surface = Surface(mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64))
    assert is_manifold(surface.faces) and not degenerate_faces(surface).any()
    assert report.watertight and report.euler_number == 2 and report.components == 1
    assert report.triangles == len(mesh.faces) <= CONFIG.triangles < report.triangles_extracted
    # float32 vertices err by 1.5e-8, times an area of 0.8 over a volume of 0.043: 3e-7.
    assert report.volume == pytest.approx(signed_volume(surface), rel=1e-6)
    # Three float32 components: two roundings of 6e-8.
    assert np.linalg.norm(mesh.normals, axis=1) == pytest.approx(np.ones(len(mesh.normals)), abs=2.5e-7)
    # Rounding of vertices tilts an edge of 1e-4 or more by at most 6e-4, whose cosine is 1 - 2e-7.
    assert np.einsum("ij,ij->i", mesh.normals, vertex_normals(surface)).min() > 1 - 1e-6
    assert report.error is None and dataclasses.is_dataclass(report)


def test_building_is_deterministic(built) -> None:
    again, report = build_mesh(two_tone(), CONFIG)
    assert report == built[1]
    for name in ("vertices", "faces", "albedo", "normals"):
        assert np.array_equal(getattr(again, name), getattr(built[0], name))


def test_colors_are_linear_rgb(built) -> None:
    mesh, report = built
    height = mesh.vertices[:, 2] / report.scale - 0.25
    for rows, display in ((height > 0.03, [0.9, 0.1, 0.1]), (height < -0.03, [0.1, 0.2, 0.8])):
        assert rows.sum() > 50
        # A weighted mean of equal colors in float32, of at most 64 samples along the normal: 64 x 6e-8 = 4e-6.
        assert np.abs(mesh.albedo[rows] - display_to_linear(np.array(display))).max() < 1e-5


def test_albedo_is_sampled_below_the_surface() -> None:
    """A green shell around the ball carries hardly any density: the vertices must be red."""
    field = AnalyticField(
        sphere(0.4),
        lambda mu: torch.where(
            mu.norm(dim=1, keepdim=True) > 0.412, torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
        ),
        peak=1000.0,
        softness=0.002,
        bounding_radius=0.7,
    )
    grid = sample_density_grid(field, 48)
    surface = refine_surface(field, grid, extract_surface(grid, 2.0), 2.0)  # in the green fringe
    at_surface = field.query(torch.from_numpy(surface.vertices).float(), False).rho[:, 1]
    assert at_surface.mean() > 0.9
    rho = sample_albedo(field, surface.vertices, vertex_normals(surface), grid.cell)
    # The fringe has at most sigmoid(-0.012 / 0.002) = 0.25% of the peak density, so its share of the weights is small.
    assert rho[:, 0].min() > 0.9 and rho[:, 1].max() < 0.1


def test_floaters_are_dropped_and_reported() -> None:
    field = AnalyticField(union(sphere(0.3), sphere(0.035, (0.45, 0.2, 0.0))), softness=0.004)
    mesh, report = build_mesh(field, CONFIG)
    assert report.components_dropped == 1 and report.components == 1
    size = np.ptp(mesh.vertices, axis=0)
    # A chord of 1 / 10 of the ball's diameter cuts (1 / 10)^2 / 4 = 0.25% of it on each side; four times both.
    assert size == pytest.approx([0.5, 0.5, 0.5], rel=0.02)


def test_configured_threshold_is_used() -> None:
    _, report = build_mesh(AnalyticField(sphere(0.3), peak=100.0), dataclasses.replace(CONFIG, threshold=50.0))
    assert report.threshold == 50.0
    # 1,500 equal triangles of a unit sphere have edges of 0.14: chords cut 0.14^2 / 8 = 0.25% of the radius, 0.75% of
    # the volume; four times that.
    assert report.volume == pytest.approx(np.pi / 6 * 0.5**3, rel=0.03)


def test_empty_field_and_bad_settings_are_one_line_errors() -> None:
    with pytest.raises(RunError, match="empty"):
        build_mesh(AnalyticField(sphere(0.3), peak=1e-4), CONFIG)
    for name, value in (
        ("resolution", 4),
        ("triangles", 0),
        ("height_m", 0.0),
        ("height_m", float("nan")),
        ("threshold", -1.0),
    ):
        with pytest.raises(ConfigError, match=f"mesh.{name}"):
            build_mesh(two_tone(), dataclasses.replace(CONFIG, **{name: value}))


@settings(max_examples=30, deadline=None)
@given(value=st.floats(0, 1))
def test_display_and_linear_colors_are_inverses(value: float) -> None:
    # float64. The standard's constants leave a step of 3e-8 where the curve's two branches meet.
    assert linear_to_display(display_to_linear(np.array(value))) == pytest.approx(value, abs=1e-7)


def test_srgb_curve_at_known_points() -> None:
    # The known points have seven decimals, which is half a unit of 1e-7 each.
    assert display_to_linear(np.array([0.0, 0.04045, 0.5, 1.0])) == pytest.approx(
        [0, 0.0031308, 0.2140411, 1], abs=0.6e-7
    )


def test_placement_scales_and_centers() -> None:
    vertices = np.random.default_rng(0).normal(size=(50, 3))
    placed, scale, offset = to_object_frame(vertices, 2.5)
    assert placed[:, 2].min() == pytest.approx(0) and placed[:, 2].max() == pytest.approx(2.5)
    assert placed == pytest.approx(scale * vertices + offset)


def ray_traced_views(radius: float, color: tuple[float, float, float]) -> FieldViews:
    """Exact images of an unlit ball from four sides, in the format of a field's renderer."""
    axes = np.stack([orbit_axes(azimuth, 15.0) for azimuth in (0, 90, 180, 270)])
    position, focal, resolution = 1.5 * axes[:, :, 2], 1.2, 64

    def render(cameras) -> tuple[torch.Tensor, torch.Tensor]:
        across = ((torch.arange(resolution) + 0.5) / resolution - 0.5) / focal
        offset = torch.hypot(across[None, :], across[:, None])
        inside = 1.5 * offset / torch.sqrt(1 + offset**2) < radius
        opacity = inside.float().expand(len(cameras.focal), 1, -1, -1)
        return opacity * torch.tensor(color)[None, :, None, None] + (1 - opacity) * 0.5, opacity

    cameras = SimpleNamespace(
        position=torch.from_numpy(position), rotation=torch.from_numpy(axes), focal=torch.full((4,), focal)
    )
    return FieldViews(cameras, render, (0.5, 0.5, 0.5))


def test_render_error_grows_with_size_and_color() -> None:
    color = (0.8, 0.2, 0.1)
    grid = sample_density_grid(AnalyticField(sphere(0.4), bounding_radius=0.6), 40)
    surface = extract_surface(grid, 100.0)
    rho = np.tile(np.array(color), (len(surface.vertices), 1))
    right = mesh_render_error(surface, rho, ray_traced_views(0.4, color))
    # The outline has 133 of the ball's 1,400 pixels. A fifth of a pixel (0.006, a fifth of a cell) is 133 x 0.2 / 1400
    # = 2% of the area; 27 pixels of 4,096 that differ by 0.5 have a PSNR of 28 dB, and twice as many 25 dB.
    assert right.silhouette_iou > 0.98 and right.psnr > 25 and right.psnr_object < right.psnr
    small = mesh_render_error(surface, rho, ray_traced_views(0.5, color))
    # Seen from 1.5, a ball of radius r covers an area in proportion to r^2 / (1.5^2 - r^2); 2% of it as above.
    overlap = (0.4**2 / (1.5**2 - 0.4**2)) / (0.5**2 / (1.5**2 - 0.5**2))
    assert small.silhouette_iou == pytest.approx(overlap, abs=0.02) and small.psnr < right.psnr
    tinted = mesh_render_error(surface, np.clip(rho + 0.1, 0, 1), ray_traced_views(0.4, color))
    assert tinted.silhouette_iou == right.silhouette_iou
    # A difference of 0.1 in every pixel of the object is psnr(0.01) = 20 dB; the outline adds as much again, 1 to 4 dB.
    assert 16 < tinted.psnr_object < psnr(0.01) + 0.01


def test_report_has_the_render_error() -> None:
    field = AnalyticField(sphere(0.4), (0.8, 0.2, 0.1), peak=1000.0, softness=0.002)
    _, report = build_mesh(field, CONFIG, ray_traced_views(0.4, (0.8, 0.2, 0.1)))
    # The decimated ball's outline errs by up to half a pixel: 133 x 0.5 / 1400 = 5% of the area, 67 pixels of 4,096
    # that differ by at most 0.8, which is 20 dB.
    assert report.error is not None and report.error.silhouette_iou > 0.95 and report.error.psnr > 20


def test_turntable_rows_are_color_and_textureless(built) -> None:
    image = np.asarray(turntable_image(built[0], azimuths=3, resolution=48)).astype(int)
    assert image.shape == (96, 144, 3)
    assert (image[2, 2] == image[-2, -2]).all() and image[2, 2].min() > 200  # light grey behind
    upper, lower = image[14, 24], image[34, 24]
    assert upper[0] > upper[2] + 40 and lower[2] > lower[0] + 40
    grey = image[48 + 24, 24]
    assert np.ptp(grey) <= 1 and 60 < grey[0] < 250
    with pytest.raises(ConfigError, match="azimuths"):
        turntable_image(built[0], azimuths=0)


@pytest.mark.slow
def test_smoothing_removes_ripples_and_keeps_size() -> None:
    """A ball whose radius ripples by two per cent, forty times around. Smoothing removes most of the ripple."""

    def lumpy(mu):
        angle = torch.atan2(mu[:, 1], mu[:, 0])
        tilt = torch.asin((mu[:, 2] / mu.norm(dim=1).clamp(min=1e-6)).clamp(-1, 1))
        return mu.norm(dim=1) - 0.4 * (1 + 0.02 * torch.sin(40 * angle) * torch.sin(40 * tilt))

    field = AnalyticField(lumpy, peak=100.0, softness=0.005, bounding_radius=0.6)
    radii = []
    for rounds in (0, 10):
        mesh, report = build_mesh(field, MeshConfig(resolution=96, triangles=12000, smoothing=rounds))
        assert report.watertight and report.euler_number == 2
        vertices = mesh.vertices - [0, 0, 0.5]
        radii.append(np.linalg.norm(vertices, axis=1)[abs(vertices[:, 2]) < 0.2])
    # Ten rounds remove more than half of a ripple of ten vertices' length.
    assert radii[1].std() < 0.5 * radii[0].std()
    # Smoothing keeps the volume, so the mean radius changes by less than half of the ripple of 2%.
    assert radii[1].mean() == pytest.approx(radii[0].mean(), rel=0.01)


class SoftField(AnalyticField):
    """A ball with a soft boundary: tau = peak exp(-(r / 0.3)^2) in thin fog, so that its opacity fades over half its
    size.
    """

    def __init__(self, fog: float) -> None:
        super().__init__(lambda mu: mu.norm(dim=1), bounding_radius=0.7)
        self.separate_density = False
        self.fog = fog

    def density(self, mu: torch.Tensor) -> torch.Tensor:
        return 20.0 * torch.exp(-((mu.norm(dim=1) / 0.3) ** 2)) + self.fog


@pytest.mark.parametrize("fog", [0.0, 0.03])
def test_soft_field_mesh_agrees_with_masked_render(fog: float) -> None:
    """The occupancy grid drops cells below its threshold; the mesher samples the field itself, without the grid.

    Without fog a ray at distance b from the center has the optical depth 20 * 0.3 sqrt(pi) exp(-(b / 0.3)^2), which is
    ln 2 at b = 0.496, the silhouette; the median depth of the central ray is at 0.320 (erfc).
    `threshold.render_error` combines both, so the mesh lies between them. Masking hides less than
    1 - (1 - threshold)^64 of opacity, which moves the silhouette by less than a pixel of 48: at most 2% of the overlap.
    """
    field = SoftField(fog)
    cameras = orbit_cameras([0, 120], 20.0, 2.0, 1.5)
    reports = []
    for resolution in (0, 24):
        renderer = Renderer(RenderConfig(samples=64, occupancy_resolution=resolution), field.bounding_radius)
        renderer.update_occupancy(field, torch.Generator().manual_seed(0))

        def render(views, renderer=renderer):
            background = torch.ones(len(views), 48 * 48, 3)
            shown = renderer.render(field, background, views, [Shading()] * len(views), torch.ones(len(views), 3), 48)
            return shown.image, shown.opacity

        _, report = build_mesh(field, MeshConfig(resolution=40, triangles=2000), FieldViews(cameras, render))
        reports.append(report)
    whole, masked = reports
    assert whole.volume == masked.volume and whole.threshold == masked.threshold
    assert whole.error.silhouette_iou == pytest.approx(masked.error.silhouette_iou, abs=0.02)
    radius = np.cbrt(3 * masked.volume / (4 * np.pi)) / masked.scale
    assert 0.320 < radius < 0.496
