# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules for the work of rendering against counts of whole steps of small fields and meshes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import PRESETS
from dreamwright.backend.config.schema import Config
from dreamwright.backend.fields import hash_density, hash_encoding
from dreamwright.backend.guidance.interfaces import GuidanceResult
from dreamwright.backend.rendering.render_work import field_work, mesh_work
from dreamwright.backend.runtime.operation_count import Work, count_work
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.scenes.sphere_scene import SphereScene

# The rules follow the largest tensors only, and suppose that every sample is seen and every ray meets the sphere.
FACTOR = 2.3
WHOLE = (
    "render.marching=dense", "render.coarse_resolution=0", "render.smallest_weight=0",
    "render.early_stop_transmittance=0", "render.occupancy_resolution=0", "optimizer.kind=adam",
    "run.views_per_step=2", "render.resolution=24", "render.samples=40",
)  # fmt: skip
LIT = ("shading.albedo_only_share=0", "shading.shaded_probability=1")
UNLIT = ("shading.albedo_only_share=1", "regularizers.orientation_start=0", "regularizers.orientation_end=0")
HASHED = ("field.kind=hash-grid", "regularizers.smoothness=0", "field.hash_log2_size=14", "field.hash_levels=10")
FIELDS = {
    "voxels": ("draft", ()),
    "a small grid": ("draft", ("field.voxel_resolutions=16,32", "regularizers.smoothness=0")),
    "hash grid": ("draft", HASHED),
    "hash grid of deeper networks": ("draft", (*HASHED, "field.hash_hidden_layers=2", "field.hash_features=4")),
    "mip MLP": ("paper", ("field.hidden_width=48", "field.hidden_blocks=3")),
}


class NoGuidance:
    """A guidance whose gradient is zero and takes no work."""

    learner = None

    def gradient(self, image: torch.Tensor, *others: Any) -> GuidanceResult:
        return GuidanceResult(torch.zeros_like(image), {})


class NoPrompts:
    """Stands in for embeddings, which no network reads."""

    warnings = ()

    def for_cameras(self, *others: Any) -> None:
        return None


def step_work(make: Any, config: Config) -> Work:
    """The work of a step after the first, which also makes the optimizer's state."""
    guidance: Any = NoGuidance()
    prompts: Any = NoPrompts()
    scene = make(config, guidance, prompts, 0)
    scene.train_step()
    return count_work(scene.train_step)


@pytest.mark.parametrize("lit", [False, True], ids=["albedo", "lit"])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_s_step(name: str, lit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash grid's in torch: no counter sees into compiled loops."""
    for module in (hash_encoding, hash_density):
        monkeypatch.setattr(module, "takes_loops", lambda *_: False)
    preset, settings = FIELDS[name]
    config = apply_settings(PRESETS[preset].config, [*WHOLE, *settings, *(LIT if lit else UNLIT)])
    counted, estimated = step_work(FieldScene, config), field_work(config, 2, 24, lit)
    assert counted.moved / FACTOR <= estimated.moved <= counted.moved * FACTOR
    assert counted.flops / FACTOR <= estimated.flops <= counted.flops * FACTOR


def test_products_of_a_grid_are_exact() -> None:
    """Each product of enlarging 4 channels, there and back; what is left are a few operations a ray."""
    settings = ("field.voxel_resolutions=8,16,32", "regularizers.smoothness=0")
    config = apply_settings(PRESETS["draft"].config, [*WHOLE, *settings, *UNLIT])
    by_hand = sum(2 * 4 * 2 * (32 * r**3 + 32**2 * r**2 + 32**3 * r) for r in (8, 16))
    assert field_work(config, 2, 24, False).flops == by_hand
    assert step_work(FieldScene, config).flops == pytest.approx(by_hand, rel=0.02)


def test_compiled_loops_take_equally_long_with_and_without_normals() -> None:
    """The grid's share remains: four bytes of each of some numbers a cell."""
    config = apply_settings(PRESETS["draft"].config, [*WHOLE, "regularizers.smoothness=0"])
    samples, cells = 2 * 24**2 * 40, 64**3
    assert field_work(config, 2, 24, False, compiled=True).moved == 450 * samples + 370 * cells
    assert field_work(config, 2, 24, True, compiled=True).moved == 450 * samples + (370 + 510) * cells


@pytest.mark.parametrize("samples", [1, 2])
def test_a_mesh_s_step(samples: int) -> None:
    settings = (*LIT, "render.resolution=48", "run.views_per_step=2", "sphere.subdivisions=3")
    config = apply_settings(PRESETS["clip-mesh"].config, [*settings, f"refine.supersampling={samples}"])
    counted, estimated = step_work(SphereScene, config), mesh_work(642, 2, 48, samples)
    assert counted.moved / FACTOR <= estimated.moved <= counted.moved * FACTOR


def test_work_grows_in_proportion_to_views_once_the_grid_is_subtracted() -> None:
    config = PRESETS["draft"].config
    first, second, third = (field_work(config, views, 64, True).moved for views in (1, 2, 3))
    assert third - second == pytest.approx(second - first, rel=1e-9)
