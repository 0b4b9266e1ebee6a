# SPDX-License-Identifier: GPL-3.0-or-later
"""A small scene on a CPU or a GPU, rendered with one marcher, and the comparison with another one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dreamwright.backend.cameras.poses import orbit_cameras
from dreamwright.backend.config.schema import FieldConfig, RenderConfig
from dreamwright.backend.fields import build_field
from dreamwright.backend.rendering.renderer import Renderer
from dreamwright.backend.rendering.shading import Shading


def marching_scene(kind: str, device: str = "cpu") -> dict[str, Any]:
    """A field with holes, its occupancy, three cameras of which one is inside the bounding sphere, random jitter."""
    draw = torch.Generator().manual_seed(3)
    blob = {
        "density_bias": "linear",
        "density_bias_scale": 40.0,
        "density_bias_width": 0.35,
        "density_activation": "softplus",
    }
    field = build_field(
        FieldConfig(
            kind=kind,
            bounding_radius=0.6,
            voxel_resolutions=(10,),
            hash_levels=3,
            hash_log2_size=10,
            density_scale=2.0,
            hidden_width=16,
            hidden_blocks=1,
            **blob,
        ),
        draw,
    )
    if kind == "voxels":
        for parameter in field.parameters():
            parameter.data *= 20
    elif kind == "hash-grid":
        next(iter(field.parameters())).data *= 1e4  # its table, so that features are of size 1
    field = field.to(device)
    field.begin_step(0.3)
    inside, around = orbit_cameras([200], -10.0, 0.55, 0.8), orbit_cameras([20, 140], 25.0, 1.9, 1.5)
    both = {name: torch.cat([getattr(around, name), getattr(inside, name)]) for name in around.__dataclass_fields__}
    return {"field": field, "cameras": type(around)(**both).to(device), "device": device}


def render_with_gradients(
    marcher: Any, scene: dict[str, Any], occupied: int, jittered: bool, **numbers: float
) -> tuple[Any, list[torch.Tensor]]:
    """A rendering and the gradients of a sum over it; `marcher` is one, or a renderer that needs none."""
    config = RenderConfig(samples=48, occupancy_resolution=occupied, occupancy_threshold=0.01, **numbers)
    if isinstance(marcher, type) and issubclass(marcher, Renderer):
        renderer = marcher(config, 0.6).to(scene["device"])
    else:
        renderer = Renderer(config, 0.6, marcher).to(scene["device"])
    draw = torch.Generator().manual_seed(8)
    if occupied:
        renderer.update_occupancy(scene["field"], draw)
        assert 0.1 < float(renderer.occupancy.occupied.float().mean()) < 0.9
    jitter = renderer.draw_jitter(scene["cameras"], 20, draw) if jittered else None
    lights = torch.tensor([[1.0, -1, 1], [1.0, 1, 1], [0.0, 0, 2]], device=scene["device"])
    shadings = [Shading("shaded", 0.3, 0.7), Shading(), Shading("textureless", 0.3, 0.7)]
    background = torch.full((3, 400, 3), 0.3, device=scene["device"])
    scene["field"].begin_step(0.3)
    rendering = renderer.render(scene["field"], background, scene["cameras"], shadings, lights, 20, jitter)
    probe = torch.rand(rendering.image.shape, generator=draw).to(scene["device"])
    parameters = list(scene["field"].parameters())
    total = (rendering.image * probe).sum() + rendering.opacity.square().sum() + rendering.orientation.sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return rendering, [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=False)]


def assert_alike(packed: tuple[Any, list[torch.Tensor]], dense: tuple[Any, list[torch.Tensor]]) -> None:
    """Equal to float32, except one sample in a thousand on a border of a cell or of the sphere."""
    a, b = packed[0], dense[0]
    # A sample within rounding of a cell's wall or of the sphere may fall on either side. Positions below 1 err by about
    # 1e-6, and walls are 0.075 apart along three axes: 3 x 2e-6 / 0.075 = 1 in 10,000; ten times that is allowed.
    assert b.sample_count > 1000 and a.sample_count == pytest.approx(b.sample_count, rel=1e-3)
    # A sample more or less changes its pixel by more than 1e-3. A pixel has about 20 samples: 20 x 1e-4 = 0.2% of them
    # may, doubled with a reserve; all others differ by rounding of sums of 48 terms (3e-6).
    for name in ("image", "opacity", "depth", "normals"):
        difference = (getattr(a, name) - getattr(b, name)).detach().abs()
        assert float(difference.mean()) < 1e-4 and float((difference > 1e-3).float().mean()) < 5e-3, name
    # Normals at border samples differ as above, and eq 10 squares them.
    torch.testing.assert_close(a.orientation.detach(), b.orientation.detach(), rtol=1e-2, atol=1e-3)
    for ours, theirs in zip(packed[1], dense[1], strict=False):
        assert float((ours - theirs).norm() / theirs.norm().clamp(min=1e-6)) < 1e-2
