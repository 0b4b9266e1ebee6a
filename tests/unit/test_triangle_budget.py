# SPDX-License-Identifier: GPL-3.0-or-later
"""A triangle budget is met, or the report warns by how much it is missed and why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from dreamwright.backend.config.schema import MeshConfig
from dreamwright.backend.geometry.build import build_mesh
from dreamwright.backend.geometry.clean import clean_surface
from dreamwright.backend.geometry.decimate import is_sound
from dreamwright.backend.geometry.extract import DensityGrid, extract_surface
from dreamwright.backend.geometry.topology import signed_volume
from dreamwright.backend.geometry.triangle_budget import coarser_surface, fit_to_budget
from tests.testing.analytic_fields import AnalyticField, sphere


def noisy_ball(nodes: int, amplitude: float, seed: int) -> DensityGrid:
    """log tau = 8 (0.6 - r) + noise of about two nodes' length: hundreds of handles and holes."""
    axis = np.linspace(-1, 1, nodes)
    radius = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis)))
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(nodes,) * 3), 1.0)
    tau = np.zeros((nodes,) * 3, dtype=np.float32)
    inner = (slice(1, -1),) * 3
    tau[inner] = np.exp(8 * (0.6 - radius) + amplitude * noise / noise.std())[inner]
    return DensityGrid(tau, -np.ones(3), 2 / (nodes - 1))


@pytest.mark.parametrize("triangles", [100, 400])
@pytest.mark.parametrize("amplitude", [1.0, 3.0])
def test_noisy_field_meets_a_tiny_budget_with_a_warning(triangles: int, amplitude: float) -> None:
    grid = noisy_ball(28, amplitude, 0)
    clean, _ = clean_surface(extract_surface(grid, 1.0))
    assert len(clean.faces) > 10 * triangles
    found, warning = fit_to_budget(clean, grid, 1.0, triangles)
    assert is_sound(found)
    if len(found.faces) > triangles:
        assert f"{len(found.faces)} triangles instead of mesh.triangles={triangles}" in str(warning)
    elif warning is not None:
        assert f"mesh.triangles={triangles}" in warning and "handles" in warning
    # Quadric decimation to 100 triangles and a smoothed contour each change the volume by some per cent.
    assert signed_volume(found) == pytest.approx(signed_volume(clean), rel=0.2)


def test_smooth_surface_needs_no_warning() -> None:
    mesh, report = build_mesh(AnalyticField(sphere(0.4)), MeshConfig(resolution=32, triangles=100))
    assert len(mesh.faces) <= 100 and report.warnings == ()


def test_coarser_surface_encloses_the_same_volume() -> None:
    """A ball of 10 cells' radius, thinned by 2: chords of 4 cells cut 4^2 / (8 * 10^2) = 2% of the radius at most."""
    grid = noisy_ball(34, 0.0, 0)
    fine = signed_volume(extract_surface(grid, 1.0))
    # 2% of the radius is 6% of the volume.
    assert signed_volume(coarser_surface(grid, 1.0, 2)) == pytest.approx(fine, rel=0.06)


def test_report_warns_about_a_noisy_field() -> None:
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(40, 3, generator=generator) * 25

    def bumpy(mu: torch.Tensor) -> torch.Tensor:
        return mu.norm(dim=1) - 0.4 + 0.02 * torch.cos(mu @ waves.T).sum(dim=1)

    mesh, report = build_mesh(AnalyticField(bumpy, softness=0.02), MeshConfig(resolution=40, triangles=100))
    assert len(mesh.faces) <= 100 or report.warnings
    assert report.triangles_extracted > 5000 and len(report.warnings) == 1
    assert "mesh.triangles=100" in report.warnings[0]
