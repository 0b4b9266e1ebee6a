# SPDX-License-Identifier: GPL-3.0-or-later
"""The volume renderer: silhouette and depth of a ball, eq 7 by hand, occupancy masking and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from dreamwright.backend.cameras.poses import orbit_cameras
from dreamwright.backend.config.schema import FieldConfig, RenderConfig, ShadingConfig
from dreamwright.backend.fields import build_field
from dreamwright.backend.fields.interfaces import Field, FieldSample
from dreamwright.backend.rendering.renderer import Renderer
from dreamwright.backend.rendering.sampling import sphere_interval
from dreamwright.backend.rendering.shading import Shading, sample_shading, shade

TEXTURELESS = Shading("textureless", 0.2, 0.8)


class Ball(Field):
    """A hard ball of one albedo."""

    bounding_radius = 0.7

    def __init__(self, radius: float = 0.4, tau: float = 500.0) -> None:
        super().__init__()
        self.radius, self.tau = radius, torch.nn.Parameter(torch.tensor(tau))

    def begin_step(self, progress: float) -> None:
        """Nothing to prepare."""

    def density(self, mu: torch.Tensor) -> torch.Tensor:
        return self.tau * (mu.norm(dim=1) < self.radius)

    def query(self, mu: torch.Tensor, with_normals: bool) -> FieldSample:
        rho = torch.tensor([0.8, 0.4, 0.2]).expand(len(mu), 3)
        return FieldSample(self.density(mu), rho, torch.nn.functional.normalize(mu, dim=1) if with_normals else None)


def rendered(
    field: Field, shading: Shading = Shading(), config: RenderConfig = RenderConfig(samples=256), size: int = 48
):
    cameras = orbit_cameras([0.0], 0.0, 2.0, 1.5)
    renderer = Renderer(config, field.bounding_radius)
    background = torch.full((1, size * size, 3), 0.5)
    with torch.no_grad():
        return renderer.render(field, background, cameras, [shading], torch.tensor([[0.0, -3.0, 0.0]]), size)


def test_ball_silhouette_area_and_depth() -> None:
    """Seen from d, a ball of radius r covers a disc of radius f r / sqrt(d^2 - r^2) image widths, its front is at d -
    r.
    """
    rendering = rendered(Ball())
    radius = 1.5 * 0.4 / math.sqrt(4 - 0.16)
    # Pixel centers sample a disc with a radius of 14.7 pixels: the count errs by some r^(2/3) = 6 pixels of 679, 1%.
    assert float(rendering.opacity.mean()) == pytest.approx(math.pi * radius**2, rel=0.02)
    # Half a sample interval of 1.4 / 256 = 0.0055, a tenth of one for an optical depth of 2.7 a sample, and 3e-4 for
    # half a pixel off the axis; the first sample behind the front is up to one interval behind it.
    assert float(rendering.depth[0, 0, 24, 24]) == pytest.approx(1.6, abs=0.01)
    assert float(rendering.depth[0, 0, 0, 0]) == 0.0


def test_empty_and_full_pixels() -> None:
    image = rendered(Ball()).image
    torch.testing.assert_close(image[0, :, 0, 0], torch.full((3,), 0.5))
    # An optical depth of 400 leaves no background; a float32 sum of 256 weights errs by 256 x 6e-8 = 1.5e-5.
    torch.testing.assert_close(image[0, :, 24, 24], torch.tensor([0.8, 0.4, 0.2]), atol=2e-5, rtol=0)


def test_textureless_ball_shading() -> None:
    image = rendered(Ball(), TEXTURELESS).image[0, 0]
    # Half a pixel off the axis the surface is hit 0.016 off its middle: 0.9 (1 - cos(0.016 / 0.4)) = 7e-4.
    assert float(image[24, 24]) == pytest.approx(1.0, abs=3e-3)
    # 256 x 6e-8 as above. 14.5 pixels of 14.7 off the axis the light comes almost along the surface.
    assert float(image[24].max()) <= 1.0 + 2e-5 and float(image[24, 9]) < 0.6


def test_equation_seven_by_hand() -> None:
    """n at 60 degrees to the light: c = rho (0.9 * 0.5 + 0.1)."""
    rho, mu = torch.tensor([[1.0, 0.5, 0.0]]), torch.zeros(1, 3)
    normal = torch.tensor([[0.0, math.sin(math.radians(60)), 0.5]])
    color = shade(rho, normal, mu, torch.tensor([[0.0, 0.0, 7.0]]), torch.tensor([[0.1]]), torch.tensor([[0.9]]))
    torch.testing.assert_close(color, torch.tensor([[0.55, 0.275, 0.0]]))


def test_back_facing_surfaces_get_ambient_light_only() -> None:
    away = shade(
        torch.ones(1, 3),
        torch.tensor([[0.0, 0, -1]]),
        torch.zeros(1, 3),
        torch.tensor([[0.0, 0, 2]]),
        torch.tensor([[0.1]]),
        torch.tensor([[0.9]]),
    )
    torch.testing.assert_close(away, torch.full((1, 3), 0.1))


def test_orientation_loss_counts_back_facing_normals() -> None:
    class InsideOut(Ball):
        def query(self, mu: torch.Tensor, with_normals: bool) -> FieldSample:
            sample = super().query(mu, with_normals)
            return FieldSample(sample.tau, sample.rho, -sample.normal)

    # Normals turn away behind the center only, after an optical depth of 200, except for a few rays close to the
    # outline.
    assert float(rendered(Ball(), TEXTURELESS).orientation) < 1e-3
    # Every ray of the disc adds its squared cosine, 1/2 on average for parallel rays; perspective changes this by about
    # (0.4 / 2)^2 = 4%.
    rays = 48**2 * math.pi * 1.5**2 * 0.4**2 / (4 - 0.4**2)
    assert float(rendered(InsideOut(), TEXTURELESS).orientation) == pytest.approx(0.5 * rays, rel=0.05)


def test_rays_outside_the_bounding_sphere_have_no_samples() -> None:
    near, far, meets = sphere_interval(
        torch.tensor([[0.0, -2, 0], [0, -2, 0]]), torch.tensor([[0.0, 1, 0], [1, 0, 0]]), 0.5
    )
    assert meets.tolist() == [True, False]
    assert (float(near[0]), float(far[0])) == pytest.approx((1.5, 2.5))


@pytest.mark.parametrize("shading", [Shading(), TEXTURELESS], ids=["albedo", "textureless"])
def test_occupancy_masking_never_hides_a_surface(shading: Shading, generator: torch.Generator) -> None:
    config = FieldConfig(
        kind="voxels", bounding_radius=0.6, voxel_resolutions=(24,), density_activation="softplus",
        density_bias="linear", density_bias_on="raw", density_bias_scale=60.0, density_bias_width=0.3,
        density_scale=5.0,
    )  # fmt: skip
    field = build_field(config, generator)
    field.begin_step(0.0)
    cameras, lights = orbit_cameras([20, 140], 20.0, 2.0, 1.5), torch.tensor([[1.0, -1, 1], [1.0, 1, 1]])
    background = torch.full((2, 32 * 32, 3), 0.3)
    results = []
    for resolution in (0, 32):
        renderer = Renderer(RenderConfig(samples=96, occupancy_resolution=resolution), 0.6)
        renderer.update_occupancy(field, generator)
        with torch.no_grad():
            results.append(renderer.render(field, background, cameras, [shading] * 2, lights, 32))
    assert results[1].sample_count < 0.7 * results[0].sample_count
    # Skipped samples have an alpha below 1e-3, which falls by exp(-60 / 0.3 x 1.2 / 96) = 0.08 from one to the next:
    # 1.1e-3 in front of the surface and behind it, times color differences of at most 1; twice their sum.
    assert float((results[0].image - results[1].image).abs().max()) < 5e-3


class Fog(Field):
    """A soft ball in fog: tau = ball exp(-(|mu| / 0.25)^4) + fog, in 1 / scene unit."""

    bounding_radius = 0.6

    def __init__(self, ball: float, fog: float) -> None:
        super().__init__()
        self.ball, self.fog = ball, fog

    def density(self, mu: torch.Tensor) -> torch.Tensor:
        return self.ball * torch.exp(-((mu.norm(dim=1) / 0.25) ** 4)) + self.fog

    def query(self, mu: torch.Tensor, with_normals: bool) -> FieldSample:
        normal = torch.nn.functional.normalize(mu, dim=1) if with_normals else None
        return FieldSample(self.density(mu), torch.full_like(mu, 0.7), normal)


@pytest.mark.parametrize("fog", [0.0, 0.02, 0.06, 0.3])
def test_occupancy_masking_error_of_a_soft_field(fog: float, generator: torch.Generator) -> None:
    """k skipped samples of alpha below the threshold hide at most 1 - (1 - threshold)^k; k is at most all of a ray's.

    In particular, fog above the threshold is rendered and penalized.
    """
    samples, field = 80, Fog(30.0, fog)
    cameras, background = orbit_cameras([20, 140], 20.0, 2.0, 1.5), torch.full((2, 24 * 24, 3), 0.3)
    renders = []
    for resolution in (0, 48):
        config = RenderConfig(samples=samples, occupancy_resolution=resolution)
        renderer = Renderer(config, field.bounding_radius)
        renderer.update_occupancy(field, generator)
        with torch.no_grad():
            renders.append(renderer.render(field, background, cameras, [Shading()] * 2, torch.ones(2, 3), 24))
    hidden = renders[0].opacity - renders[1].opacity
    allowed = 1 - (1 - RenderConfig().occupancy_threshold) ** samples
    assert float(hidden.min()) >= -1e-5  # rounding of sums of 80 terms in float32
    assert float(hidden.max()) <= allowed
    if 1 - math.exp(-fog * 1.2 / samples) > RenderConfig().occupancy_threshold:
        assert float(hidden.max()) < 1e-5, "fog above the threshold is rendered whole"


def test_defaults_color_the_full_sum_of_equation_five(generator: torch.Generator) -> None:
    """Color of every sample counts: opacity x albedo + (1 - opacity) x background is the image to rounding."""
    field = Fog(3.0, 0.05)
    cameras, background = orbit_cameras([20], 20.0, 2.0, 1.5), torch.full((1, 24 * 24, 3), 0.3)
    renderer = Renderer(RenderConfig(samples=80), field.bounding_radius)
    with torch.no_grad():
        rendering = renderer.render(field, background, cameras, [Shading()], torch.ones(1, 3), 24)
    expected = 0.7 * rendering.opacity + 0.3 * (1 - rendering.opacity)
    # 80 weights of a ray are added in two orders in float32: at most 80 eps of a sum of 1.
    torch.testing.assert_close(rendering.image, expected.expand_as(rendering.image), atol=80 * 1.2e-7, rtol=0)


def test_empty_field_keeps_all_cells(generator: torch.Generator) -> None:
    field = build_field(
        FieldConfig(kind="voxels", density_bias_scale=-500.0, density_bias_width=50.0, voxel_resolutions=(8,)),
        generator,
    )
    field.begin_step(0.0)
    renderer = Renderer(RenderConfig(occupancy_resolution=16), field.bounding_radius)
    renderer.update_occupancy(field, generator)
    assert bool(renderer.occupancy.occupied.all())


def test_render_gradients_equal_finite_differences(generator: torch.Generator) -> None:
    config = FieldConfig(
        kind="voxels", bounding_radius=0.6, voxel_resolutions=(6,), density_activation="softplus", density_scale=5.0
    )
    field = build_field(config, generator).double()
    cameras = orbit_cameras([35.0], 20.0, 2.0, 1.5)
    cameras = type(cameras)(*(getattr(cameras, name).double() for name in cameras.__dataclass_fields__))
    renderer = Renderer(RenderConfig(samples=24, early_stop_transmittance=0.0), 0.6)
    probe = torch.rand(1, 3, 6, 6, generator=generator, dtype=torch.float64)

    def loss() -> torch.Tensor:
        field.begin_step(0.0)
        background = torch.full((1, 36, 3), 0.2, dtype=torch.float64)
        lights = torch.tensor([[1.0, -2.0, 1.0]], dtype=torch.float64)
        return (renderer.render(field, background, cameras, [TEXTURELESS], lights, 6).image * probe).sum()

    torch.set_default_dtype(torch.float64)  # the renderer accumulates in the default dtype
    try:
        loss().backward()
        parameter = field.raw_density[0]
        for index in ((0, 0, 3, 3, 3), (0, 0, 2, 3, 1), (0, 0, 4, 2, 3)):
            with torch.no_grad():
                parameter[index] += 1e-5
                high = loss()
                parameter[index] -= 2e-5
                low = loss()
                parameter[index] += 1e-5
            # Central differences with steps of 1e-5 in float64: a sum of 108 values of about 1 errs by 1e-14, over
            # 2e-5: 1e-9; curvature adds (1e-5)^2 times a third derivative.
            assert float(parameter.grad[index]) == pytest.approx(
                float((high - low).detach()) / 2e-5, rel=1e-5, abs=1e-8
            )
    finally:
        torch.set_default_dtype(torch.float32)


def test_shading_follows_the_papers_schedule(generator: torch.Generator) -> None:
    config = ShadingConfig()
    early = {sample_shading(config, 0.06, generator).kind for _ in range(200)}
    assert early == {"albedo"}
    late = [sample_shading(config, 0.5, generator) for _ in range(6000)]
    share = {kind: sum(s.kind == kind for s in late) / len(late) for kind in ("albedo", "shaded", "textureless")}
    # Four standard errors of 6000 draws: 4 sqrt(0.234 / 6000) = 0.025.
    assert share == pytest.approx({"albedo": 0.25, "shaded": 0.375, "textureless": 0.375}, abs=0.025)
    assert {(s.ambient, s.diffuse) for s in late if s.kind != "albedo"} == {(0.1, 0.9)}
