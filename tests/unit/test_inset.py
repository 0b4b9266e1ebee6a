# SPDX-License-Identifier: GPL-3.0-or-later
"""The inset surface of soft fields: flat where the density inside is noise, whole where parts are thin."""

from __future__ import annotations

import numpy as np
import torch

from dreamwright.backend.config.schema import MeshConfig
from dreamwright.backend.geometry.build import build_mesh
from dreamwright.backend.geometry.extract import DensityGrid, extract_surface, sample_density_grid
from dreamwright.backend.geometry.inset import LARGEST, inset_grid, signed_depth
from dreamwright.backend.geometry.threshold import choose_threshold
from dreamwright.backend.geometry.topology import Surface, euler_number, face_components
from tests.testing.analytic_fields import AnalyticField, box, sphere, torus, union

CELLS = 56
SOFTNESS = 0.03  # scene units over which the density falls by e


class NoisyField(AnalyticField):
    """tau of its parent, times 0.25 to 1.75 in a pattern of 0.1 that begins 0.02 outside of the shape."""

    def density(self, mu: torch.Tensor) -> torch.Tensor:
        waves = torch.sin(2 * np.pi / 0.1 * mu + torch.tensor([0.3, 1.1, 2.0])).prod(dim=1)
        deep = ((0.02 - self.distance(mu)) / 0.02).clamp(0, 1)
        return super().density(mu) * (1 + 0.75 * deep * waves.sign() * waves.abs().sqrt())


def soft(distance, peak: float = 30.0) -> AnalyticField:
    return AnalyticField(distance, peak=peak, softness=SOFTNESS, bounding_radius=0.7)


def noisy(distance) -> AnalyticField:
    """So thin that the density that agrees best with the renders is one of the noise."""
    return NoisyField(distance, peak=8.0, softness=SOFTNESS, bounding_radius=0.7)


def contour_and_inset(field: AnalyticField) -> tuple[Surface, Surface, DensityGrid, float]:
    grid = sample_density_grid(field, CELLS)
    threshold = choose_threshold(grid)
    found = inset_grid(grid, threshold)
    assert found is not None
    return extract_surface(grid, threshold), extract_surface(found[0], threshold), grid, found[1]


def test_depth_below_a_plane_is_exact_between_nodes() -> None:
    level = np.broadcast_to(np.arange(20.0)[:, None, None] - 10.3, (20, 6, 6))
    # Float64 sums and square roots of numbers up to 20.
    assert np.abs(signed_depth(level) - level).max() < 1e-12


def test_depth_below_a_sphere() -> None:
    axis = np.arange(31.0) - 15
    distance = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis, indexing="ij")))
    depth = signed_depth(10.2 - distance)
    # The segment to the nearest node on the other side crosses the surface, so its length less that node's distance
    # is no underestimate; np.gradient's chords shorten slopes by up to (1 / 10)^2, which is 0.01 cells. From the foot
    # of a node some node on the other side is less than a cell away in the direction of an axis.
    error = np.sign(10.2 - distance) * (depth - (10.2 - distance))
    assert error[distance > 2].min() > -0.02 and error[distance > 2].max() < 1.0
    assert np.median(error[distance > 2]) < 0.1  # most are far better


def test_noise_inside_leaves_the_top_flat() -> None:
    contour, inset, grid, depth = contour_and_inset(noisy(box((0.35, 0.3, 0.12))))
    assert depth >= grid.cell and euler_number(inset.faces) == 2
    roughness = []
    for surface in (contour, inset):
        x, y, z = surface.vertices.T
        top = z[(np.abs(x) < 0.25) & (np.abs(y) < 0.2) & (z > 0)]
        assert len(top) > 100
        roughness.append(top.std())
    # The threshold's contour goes up and down with the pattern by a good part of a cell. The outer contour, of 1.9,
    # lies where the pattern has just begun, and averaging leaves less than a twentieth of a cell of it.
    assert roughness[0] > 0.3 * grid.cell and roughness[1] < 0.05 * grid.cell


def test_soft_torus_keeps_its_hole() -> None:
    _, surface, _, _ = contour_and_inset(soft(torus(0.34, 0.12), peak=8.0))
    assert euler_number(surface.faces) == 0 and face_components(surface.faces).max() == 0


def test_rod_thinner_than_the_inset_stays_whole() -> None:
    """A ball with a rod whose radius is a cell more than nothing at the largest inset."""
    radius = 0.05
    assert radius < LARGEST * 1.4 / CELLS
    rod = box((radius, radius, 0.3), (0.0, 0.0, -0.3))
    _, surface, grid, _ = contour_and_inset(soft(union(sphere(0.25, (0.0, 0.0, 0.25)), rod)))
    assert face_components(surface.faces).max() == 0
    # The rod's end is rounded by its softness and inset; a rod that is cut off would end at 0.
    assert surface.vertices[:, 2].min() < -0.6 + 2 * SOFTNESS + 2 * grid.cell


def test_field_with_an_edge_has_no_inset() -> None:
    grid = sample_density_grid(AnalyticField(box((0.3, 0.2, 0.1)), softness=1e-3, bounding_radius=0.7), CELLS)
    assert inset_grid(grid, choose_threshold(grid)) is None


def test_haze_around_a_prop_is_not_its_surface() -> None:
    """Haze around a ball of 0.3: a chord of it is not half opaque, and its contour is beyond the largest inset."""
    axis = np.linspace(-0.7, 0.7, CELLS + 1)
    distance = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis, indexing="ij")))
    tau = np.where(distance < 0.3, 60.0, 0.0) + np.where(distance < 0.65, 0.4, 0.0)
    tau[[0, -1]] = tau[:, [0, -1]] = tau[:, :, [0, -1]] = 0.0
    grid = DensityGrid(tau.astype(np.float32), np.full(3, -0.7), 1.4 / CELLS)
    assert 0.65 - LARGEST * grid.cell > 0.4 and np.log(2) > 1.3 * 0.4
    assert inset_grid(grid, 1.0) is None


def test_built_mesh_reports_its_inset_and_a_given_threshold_has_none() -> None:
    field = noisy(sphere(0.35))
    _, chosen = build_mesh(field, MeshConfig(resolution=48, triangles=2000))
    _, given = build_mesh(field, MeshConfig(resolution=48, triangles=2000, threshold=3.0))
    assert chosen.inset >= chosen.cell and given.inset == 0.0
    assert chosen.euler_number == 2
    radius = np.cbrt(3 * chosen.volume / (4 * np.pi)) / chosen.scale  # of the ball of that volume, scene units
    # The central ray of density 8 has its median depth ln 2 / 8 below 0.35; 0.02 for a density that rises slowly and
    # alternates. No chord outside of 0.35 + 3 softness, of at most 1.1 and density 8 exp(-3), is half opaque.
    assert 0.35 - np.log(2) / 8 - 0.02 < radius < 0.35 + 3 * SOFTNESS
