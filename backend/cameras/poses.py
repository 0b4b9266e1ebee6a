# SPDX-License-Identifier: GPL-3.0-or-later
"""Random and orbiting cameras, the rays through their pixels, and point lights.

Frames and angles are those of docs/developer/conventions.md: Z up, azimuth 0 looks at the front from -Y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..config.schema import CameraConfig, LightConfig

POSE_NUMBERS = 16  # of a row of `pose_vectors`


@dataclass(frozen=True)
class Cameras:
    """n views.

    position (n, 3); rotation (n, 3, 3) camera-to-world with columns right, up, back; focal (n,) multiples of the image
    width; azimuth (n,) in [0, 360) and elevation (n,), degrees of the unperturbed position.
    """

    position: Tensor
    rotation: Tensor
    focal: Tensor
    azimuth: Tensor
    elevation: Tensor

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, rows: slice) -> Cameras:
        """The chosen views."""
        return Cameras(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on another device."""
        return Cameras(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Rays:
    """origins and unit directions, both (n, h * w, 3), rows of pixels from the top left."""

    origins: Tensor
    directions: Tensor


def spherical(azimuth_deg: Tensor, elevation_deg: Tensor, distance: Tensor) -> Tensor:
    """Positions (n, 3) = d (cos el sin az, -cos el cos az, sin el)."""
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    flat = elevation.cos()
    direction = torch.stack([flat * azimuth.sin(), -flat * azimuth.cos(), elevation.sin()], dim=-1)
    return distance[:, None] * direction


def look_at(position: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """Rotations (n, 3, 3), columns right, up, back, of cameras at `position` that look at `target`, all (n, 3)."""
    back = functional.normalize(position - target, dim=-1)
    right = functional.normalize(torch.linalg.cross(up, back), dim=-1)
    return torch.stack([right, torch.linalg.cross(back, right), back], dim=-1)


def _meridian_up(azimuth_deg: Tensor, elevation_deg: Tensor) -> Tensor:
    """Up vectors (n, 3): the tangent of the meridian.

    It projects onto the image as Z does, and it is defined at the pole.
    """
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    steep = elevation.sin()
    return torch.stack([-steep * azimuth.sin(), steep * azimuth.cos(), elevation.cos()], dim=-1)


def sample_cameras(config: CameraConfig, n: int, generator: torch.Generator) -> Cameras:
    """n random cameras of the paper's distribution (section 3.2, appendix A.2) with the configuration's numbers.

    With `views_per_set` k, each k cameras in a row have one elevation, distance and focal length and azimuths at steps
    of 360 / k degrees; n is a multiple of k.
    """
    k = config.views_per_set

    def of_sets(draws: Tensor) -> Tensor:
        return draws.repeat_interleave(k, dim=0)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * of_sets(torch.rand(n // k, generator=generator))

    def normal(std: float) -> Tensor:
        return std * torch.randn(n, 3, generator=generator)

    low, high = config.elevation_min, config.elevation_max
    in_angle = uniform(low, high)
    lowest_sine = math.sin(math.radians(max(low, config.area_elevation_min)))
    in_area = torch.rad2deg(torch.asin(uniform(lowest_sine, math.sin(math.radians(high))).clamp(-1, 1)))
    in_angle_rows = of_sets(torch.rand(n // k, generator=generator)) < config.uniform_angle_share
    elevation = torch.where(in_angle_rows, in_angle, in_area)
    if config.stratified_azimuth:  # the sets divide the angle between two views of a set
        order = of_sets(torch.randperm(n // k, generator=generator))
        azimuth = 360.0 * torch.rand((), generator=generator) + 360.0 * order / n
    else:
        azimuth = uniform(0.0, 360.0)
    azimuth = (azimuth + 360.0 / k * (torch.arange(n) % k)) % 360.0
    distance = uniform(config.distance_min, config.distance_max)
    if config.framing == "fill":
        focal = uniform(config.fill_min, config.fill_max) * distance
    else:
        focal = uniform(config.focal_min, config.focal_max)
    moved = config.position_offset * (2 * torch.rand(n, 3, generator=generator) - 1)
    position = spherical(azimuth, elevation, distance) + moved
    rotation = look_at(position, normal(config.look_at_std), _meridian_up(azimuth, elevation) + normal(config.up_std))
    return Cameras(position, rotation, focal, azimuth, elevation)


def orbit_cameras(
    azimuths_deg: Sequence[float], elevation_deg: float | Sequence[float], distance: float, focal: float
) -> Cameras:
    """Cameras around the origin, upright, all at one distance (scene units) and focal (image widths)."""
    azimuth = torch.tensor([float(a) % 360.0 for a in azimuths_deg])
    n = len(azimuth)
    elevation = torch.as_tensor(elevation_deg, dtype=torch.float32).expand(n).clone()
    position = spherical(azimuth, elevation, torch.full((n,), float(distance)))
    rotation = look_at(position, torch.zeros(n, 3), _meridian_up(azimuth, elevation))
    return Cameras(position, rotation, torch.full((n,), float(focal)), azimuth, elevation)


def pose_vectors(azimuth_deg: Tensor, elevation_deg: Tensor) -> Tensor:
    """Poses (n, POSE_NUMBERS) for a multi-view model: camera-to-world, 4 x 4, row by row, the position of length 1.

    Angles (n,) in degrees. The camera looks at the origin, upright; columns are right, up, back, position.
    """
    position = spherical(azimuth_deg, elevation_deg, torch.ones_like(azimuth_deg))
    rotation = look_at(position, torch.zeros_like(position), _meridian_up(azimuth_deg, elevation_deg))
    last = torch.tensor([0.0, 0.0, 0.0, 1.0]).to(position).expand(len(position), 1, 4)
    upper = torch.cat([rotation, position[:, :, None]], dim=2)
    return torch.cat([upper, last], dim=1).reshape(-1, 16)


def camera_rays(cameras: Cameras, resolution: int) -> Rays:
    """Rays through the pixel centers of square images: origins and unit directions (n, resolution^2, 3)."""
    n = len(cameras)
    centers = (torch.arange(resolution, device=cameras.position.device) + 0.5) / resolution - 0.5
    down, right = torch.meshgrid(centers, centers, indexing="ij")
    plane = torch.stack([right, -down, torch.zeros_like(right)], dim=-1).reshape(1, -1, 3)  # (1, h*w, 3)
    local = plane / cameras.focal[:, None, None] - torch.tensor([0.0, 0.0, 1.0], device=plane.device)
    directions = functional.normalize(torch.einsum("nij,npj->npi", cameras.rotation, local), dim=-1)
    return Rays(cameras.position[:, None].expand(n, resolution**2, 3), directions)


def sample_lights(config: LightConfig, cameras: Cameras, generator: torch.Generator) -> Tensor:
    """Point lights (n, 3): direction ~ N(camera position, std^2 I), norm uniform between the configured distances."""
    n = len(cameras)
    noise = torch.randn(n, 3, generator=generator).to(cameras.position)
    direction = functional.normalize(cameras.position + config.direction_std * noise, dim=-1)
    norm = config.distance_min + (config.distance_max - config.distance_min) * torch.rand(n, 1, generator=generator)
    return direction * norm.to(direction)
