# SPDX-License-Identifier: GPL-3.0-or-later
"""The views of a training step, and those of previews and checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cameras.poses import Cameras, sample_cameras, sample_lights
from ..config.schema import Config
from ..fields.background import plain_colors
from ..rendering.shading import Shading, sample_shading
from ..runtime.rng import RandomStreams

ORBIT_DISTANCE, ORBIT_FOCAL = 1.9, 1.5  # scene units, image widths: a prop of radius 0.5 fills four fifths of the image
ORBIT_ELEVATION = 15.0  # degrees
ORBIT_RADIUS = 0.6  # scene units: the sphere around the origin that these cameras frame, up to the image's edge
CHECK_AZIMUTHS = (0, 60, 120, 180, 240, 300)  # degrees; opposite views are half a turn apart
CHECK_RESOLUTION = 32  # pixels a side
PREVIEW_RESOLUTION = 96  # pixels a side of one of the three tiles
SHADED = Shading("shaded", 0.35, 0.65)
UNTEXTURED = Shading("textureless", 0.35, 0.65)


@dataclass(frozen=True)
class StepViews:
    """n random views: cameras, point lights (n, 3), shadings, plain (n, 3) colors behind those with has_plain (n,)."""

    cameras: Cameras
    lights: Tensor
    shadings: tuple[Shading, ...]
    plain: Tensor
    has_plain: Tensor

    def __len__(self) -> int:
        return len(self.shadings)

    def __getitem__(self, views: slice) -> StepViews:
        return StepViews(
            self.cameras[views], self.lights[views], self.shadings[views], self.plain[views], self.has_plain[views]
        )

    def to(self, device: torch.device) -> StepViews:
        """The same views on another device."""
        lights, plain, has_plain = (values.to(device) for values in (self.lights, self.plain, self.has_plain))
        return StepViews(self.cameras.to(device), lights, self.shadings, plain, has_plain)

    def without_untextured(self) -> StepViews:
        """The same views, textureless ones shaded with their texture."""
        shadings = (replace(s, kind="shaded") if s.kind == "textureless" else s for s in self.shadings)
        return replace(self, shadings=tuple(shadings))


def sample_views(config: Config, views: int, progress: float, streams: RandomStreams) -> StepViews:
    """All views of a step, on the CPU, drawn from the streams "cameras" and "looks".

    Lights are each view's own; the views of a set share shading and background.
    """
    in_set = config.camera.views_per_set
    cameras = sample_cameras(config.camera, views, streams["cameras"])
    lights = sample_lights(config.light, cameras, streams["cameras"])
    drawn = [sample_shading(config.shading, progress, streams["looks"]) for _ in range(views // in_set)]
    shadings = tuple(shading for shading in drawn for _ in range(in_set))
    colors = torch.rand(views // in_set, 4, generator=streams["looks"]).repeat_interleave(in_set, dim=0)
    plain, has_plain = plain_colors(colors, config.background)
    return StepViews(cameras, lights, shadings, plain, has_plain)


def split_views(views: slice, at_once: int, in_set: int = 1) -> list[slice]:
    """Chunks of at most `at_once` views, but of whole sets of `in_set` views; one of all with 0."""
    size = max(in_set, at_once - at_once % in_set) if at_once else views.stop - views.start
    return [slice(start, min(start + size, views.stop)) for start in range(views.start, views.stop, size)]


def camera_lights(cameras: Cameras) -> Tensor:
    """Lights (n, 3) up and to the left of each camera, a little nearer to the scene."""
    up, right = cameras.rotation[:, :, 1], cameras.rotation[:, :, 0]
    return cameras.position * 0.8 + up * 0.6 - right * 0.5


class _WithImage(Protocol):
    @property
    def image(self) -> Tensor: ...


def preview_image(orbit: Callable[[Sequence[float], Shading, int], _WithImage]) -> NDArray[np.uint8]:
    """Front and right with color, and the front without texture, side by side: (96, 288, 3).

    `orbit` renders images (n, 3, r, r) in [0, 1] at azimuths (degrees) with a shading and a resolution.
    """
    shaded = orbit([20, 110], SHADED, PREVIEW_RESOLUTION).image
    untextured = orbit([20], UNTEXTURED, PREVIEW_RESOLUTION).image
    row = torch.cat([*shaded, *untextured], dim=2).clamp(0, 1)
    return (row.permute(1, 2, 0).cpu().numpy() * 255 + 0.5).astype(np.uint8)
