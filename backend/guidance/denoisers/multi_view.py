# SPDX-License-Identifier: GPL-3.0-or-later
"""Multi-view pixel models (MVDream's idea): views of one object from around it are denoised together.

The network is given each camera's pose, and its self-attention joins the views of a set, so that it is asked about one
object and not about four images. Views that are no set, and images without a camera, are denoised one by one.
`multi_view_latent` is the same of latents.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch

from ...cameras.poses import POSE_NUMBERS, Cameras, pose_vectors
from ...errors import ConfigError, ModelError
from ...models.families import FamilyName
from ...models.pipeline_folder import PipelineFolder
from ...text.conditioning import Conditioning
from .base import DenoiserParts
from .pixel import PixelDiffusion
from .view_attention import join_views

VIEW_COUNTS = (2, 4, 8)  # that a set may have
TOLERANCE = 0.01  # degrees, by which angles of a set may be off


class SetsOfViews:
    """The cameras of a denoiser of `views` views whose U-Net is given poses. Implements `CameraAware`."""

    views: int
    front: ClassVar[float] = 0.0  # degrees: the azimuth at which the model's training images show the front
    poses_alone: ClassVar[bool] = True  # whether a view that is denoised alone has a pose

    def slice_attention(self) -> None:
        """Not possible: diffusers' sliced attention would not join the views. Raises ConfigError."""
        raise ConfigError(
            "model.attention_slicing is on, but slices do not join the views of a multi-view model; allowed is false "
            "for this model; turn it off"
        )

    def with_cameras(self, conditioning: Conditioning, cameras: Cameras) -> Conditioning:
        """The conditioning (n rows) with the poses of n cameras, and how many of them are seen together."""
        n, device = len(cameras), conditioning.device
        poses = pose_vectors(cameras.azimuth.float() + self.front, cameras.elevation.float()).to(device)
        together = self.views if are_sets(cameras, self.views) else 1
        if together == 1 and not self.poses_alone:
            poses = torch.zeros_like(poses)
        return conditioning.with_tensors(pose=poses, together=torch.full((n,), together, device=device))

    def views_together(self, conditioning: Conditioning) -> int:
        """The views of a set, or 1 where the conditioning has no cameras or they are no sets."""
        together = conditioning.tensors.get("together")
        return 1 if together is None else int(together[0])


class MultiViewPixelDiffusion(SetsOfViews, PixelDiffusion):
    """A pixel model of `views` views. Implements `NativeDenoiser` and `CameraAware`."""

    family: ClassVar[FamilyName] = "multi-view"

    def __init__(self, parts: DenoiserParts, views: int = 4) -> None:
        super().__init__(parts)
        self.views = views
        join_views(self.network)

    @classmethod
    def _of(cls, folder: PipelineFolder, parts: DenoiserParts) -> Self:
        return cls(parts, view_count(folder))

    def network_inputs(self, conditioning: Conditioning) -> dict[str, Any]:
        """Text, poses (n, 16), which are zeros where they are unknown, and the views that attention joins."""
        pose = conditioning.tensors.get("pose")
        if pose is None:
            pose = torch.zeros(len(conditioning), POSE_NUMBERS, device=conditioning.device)
        return super().network_inputs(conditioning) | {
            "class_labels": pose.to(self.dtype),
            "cross_attention_kwargs": {"views": self.views_together(conditioning)},
        }


def are_sets(cameras: Cameras, views: int) -> bool:
    """Whether each `views` cameras in a row are at equal steps around the object and at one elevation."""
    if len(cameras) == 0 or len(cameras) % views:
        return False
    azimuth = cameras.azimuth.double().reshape(-1, views).sort(dim=1).values
    steps = torch.cat([azimuth.diff(dim=1), 360 + azimuth[:, :1] - azimuth[:, -1:]], dim=1)
    elevation = cameras.elevation.double().reshape(-1, views)
    even, level = (steps - 360 / views).abs() < TOLERANCE, (elevation - elevation[:, :1]).abs() < TOLERANCE
    return bool(even.all() and level.all())


def view_count(folder: PipelineFolder) -> int:
    """Views of a set, from the folder's model_index.json. Raises ModelError unless it states one of `VIEW_COUNTS`."""
    views = folder.options.get("views")
    if isinstance(views, bool) or views not in VIEW_COUNTS:
        raise ModelError(
            f"{folder.path} states views {views!r} in model_index.json; allowed are "
            f"{', '.join(map(str, VIEW_COUNTS))}; download the model again, whole"
        )
    return int(views)
