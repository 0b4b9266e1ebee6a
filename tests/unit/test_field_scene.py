# SPDX-License-Identifier: GPL-3.0-or-later
"""The field scene: the orientation loss of eq 10, and a health check that is independent of the scene's size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import PAPER, PRESETS
from dreamwright.backend.config.schema import Config
from dreamwright.backend.fields.interfaces import Field, FieldSample
from dreamwright.backend.guidance.interfaces import GuidanceResult
from dreamwright.backend.scenes.field_losses import orientation_weight
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.scenes.monitoring import FULL_OPACITY
from dreamwright.backend.scenes.state_tensors import parameters_of
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.oracles import KnownImages
from tests.testing.tiny_model import quick_config

SMALL_PAPER = ("field.hidden_width=16", "render.samples=32", "render.resolution=16", "run.views_per_step=1")
# All losses except eq 10 are off; the guidance gradient is zero.
ORIENTATION_ONLY = (
    "regularizers.opacity_start=0",
    "regularizers.opacity_end=0",
    "regularizers.entropy_end=0",
    "regularizers.smoothness=0",
    "shading.albedo_only_share=1",
    "background.random_probability=0",
)


class ZeroGuidance:
    """A guidance whose gradient is zero."""

    def gradient(self, image, cameras, conditioning, generator, progress) -> GuidanceResult:
        return GuidanceResult(torch.zeros_like(image), {})


def scene_of(config: Config) -> FieldScene:
    oracle = KnownImages(lambda cameras: torch.full((len(cameras), 3, 16, 16), 0.3), 16)
    return FieldScene(config, ZeroGuidance(), PromptEmbeddings(oracle, "a ball", config.guidance), 0)


def gradients(config: Config) -> Tensor:
    """The gradients of the first step, concatenated."""
    scene = scene_of(config)
    scene._backward()
    found = [p.grad.reshape(-1) for p in parameters_of(scene.optimizer) if p.grad is not None]
    return torch.cat(found)


@pytest.mark.parametrize("kind", ["voxels", "paper"])
def test_orientation_loss_enters_the_first_unlit_step(kind: str) -> None:
    """The gradient is proportional to the weight, because eq 10 is the only term of the loss."""
    base = (
        quick_config(*ORIENTATION_ONLY)
        if kind == "voxels"
        else apply_settings(PAPER, [*SMALL_PAPER, *ORIENTATION_ONLY])
    )
    found = {}
    for weight in (0.0, 1.0, 2.0):
        settings = [f"regularizers.orientation_start={weight}", f"regularizers.orientation_end={weight}"]
        found[weight] = gradients(apply_settings(base, settings))
    assert float(found[0.0].abs().max()) == 0 < float(found[1.0].abs().max())
    assert found[2.0].equal(2 * found[1.0])  # doubling commutes with every rounding, and the sums have one order


def test_paper_penalizes_orientation_from_step_0() -> None:
    # Logarithms and exponentials in float64: a few roundings of 1.1e-16, times log(1e4) = 9.
    assert orientation_weight(PAPER.regularizers, 0.0) == pytest.approx(1e-4, rel=1e-13)
    assert orientation_weight(PAPER.regularizers, 1.0) == pytest.approx(1e-2, rel=1e-13)
    rendered = []
    scene = scene_of(apply_settings(PAPER, SMALL_PAPER))
    render = scene.renderer.render

    def recording_render(*arguments: object) -> object:
        rendered.append(render(*arguments))
        return rendered[-1]

    scene.renderer.render = recording_render
    scene.train_step()
    assert rendered[0].normals is not None and float(rendered[0].orientation.detach().min()) > 0


def test_unlit_steps_without_orientation_loss_skip_normals() -> None:
    for name in ("draft", "standard"):
        assert orientation_weight(PRESETS[name].config.regularizers, 0.5) == 0
    scene, seen = scene_of(quick_config("shading.albedo_only_share=1")), []
    grids = scene.field.dense_grids
    scene.field.dense_grids = lambda with_normals: seen.append(with_normals) or grids(with_normals)
    scene.train_step()
    assert seen and not any(seen)


class Ball(Field):
    """A solid grey ball around the origin, or fog of one density in the whole bounding sphere."""

    def __init__(self, bounding_radius: float, radius: float, tau: float) -> None:
        super().__init__()
        self.bounding_radius, self.radius, self.tau = bounding_radius, radius, tau

    def begin_step(self, progress: float) -> None:
        return

    def density(self, mu: Tensor) -> Tensor:
        return torch.where(mu.norm(dim=-1) < self.radius, self.tau, 0.0)

    def query(self, mu: Tensor, with_normals: bool) -> FieldSample:
        normal = torch.nn.functional.normalize(mu, dim=-1) if with_normals else None
        return FieldSample(self.density(mu), torch.full_like(mu, 0.5), normal)


@pytest.mark.parametrize(
    ("bounding_radius", "radius", "tau", "verdict"),
    [
        (1.4, 0.3, 100.0, "fine"),
        (1.4, 1.2, 100.0, "fine"),  # fills every central view, (1.2 / 1.4)^2 = 0.73 of the sphere's disc
        (1.4, 1.4, 100.0, "full"),
        (1.4, 1.4, 8.0, "full"),  # fog: 1 - exp(-8 * 2.8) through the middle
        (1.4, 1.4, 0.5, "fine"),  # thin fog, 0.75 through the middle
        (0.6, 0.5, 100.0, "fine"),  # (0.5 / 0.6)^2 = 0.69
        (0.6, 0.6, 100.0, "full"),
        (2.8, 2.4, 100.0, "fine"),
        (2.8, 2.8, 100.0, "full"),
        (0.3, 0.2, 100.0, "fine"),
        (0.3, 0.3, 100.0, "full"),
        (1.4, 0.0, 100.0, "empty"),
    ],
)
def test_full_is_relative_to_the_bounding_sphere(
    bounding_radius: float, radius: float, tau: float, verdict: str
) -> None:
    scene = scene_of(
        quick_config(f"field.bounding_radius={bounding_radius}", "render.occupancy_resolution=0", "render.samples=64")
    )
    scene.field = Ball(bounding_radius, radius, tau)
    health = scene.check()
    assert health.verdict == verdict, health


@pytest.mark.parametrize("preset", ["paper", "dream-fields-paper"])
def test_untouched_field_is_not_full(preset: str) -> None:
    config = apply_settings(PRESETS[preset].config, ["field.hidden_width=16", "render.samples=32"])
    health = scene_of(config).check()
    assert health.verdict == "fine" and health.figures["opacity_mass"] > FULL_OPACITY, "a zoomed view shows only fog"
