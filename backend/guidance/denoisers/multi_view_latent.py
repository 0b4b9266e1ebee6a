# SPDX-License-Identifier: GPL-3.0-or-later
"""MVDream (Shi et al. 2023): Stable Diffusion 2.1's latents of four views around one object, denoised together.

A set is given its cameras and its self-attention joins the four views. Views that are no set, and images without a
camera, are denoised one by one and without a camera, which is how the published model is called for single images.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ...cameras.poses import POSE_NUMBERS
from ...models.mvdream_network import misfits
from ...models.parameter_counts import loaded_weights
from ...models.pipeline_folder import PipelineFolder, check_report
from ...models.vae import VAE
from .base import DenoiserParts, check_width, text_width
from .latent import LatentDiffusion, check_latent_channels
from .multi_view import SetsOfViews
from .view_attention import join_views

VIEWS = 4  # of the published models


class MultiViewLatentDiffusion(SetsOfViews, LatentDiffusion):
    """A latent denoiser of four views. Implements `NativeDenoiser`, `LatentDenoiser` and `CameraAware`.

    MVDream's matrices have Z up and columns right, up, back, as ours have (`cameras.poses.pose_vectors`), and its
    azimuth 0 is at -Y. Its objects face +X: its sampling script starts at azimuth 90, threestudio calls +X the front,
    and LGM takes the second of the views 0, 90, 180, 270 for the front.
    """

    front: ClassVar[float] = 90.0
    poses_alone: ClassVar[bool] = False

    def __init__(self, parts: DenoiserParts, vae: VAE, latent_size: int) -> None:
        super().__init__(parts, vae, latent_size)
        self.views = VIEWS
        network: Any = parts.network
        network.class_embedding = CameraEmbedding(network.class_embedding)
        join_views(network)

    def network_output(self, z: Tensor, time: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        pose, together = conditioning.get("pose"), conditioning.get("together")
        output: Tensor = self.network(
            z,
            time,
            encoder_hidden_states=conditioning["hidden"],
            class_labels=z.new_zeros(len(z), POSE_NUMBERS) if pose is None else pose,
            cross_attention_kwargs={"views": 1 if together is None else int(together[0])},
            return_dict=False,
        )[0]
        return output


def check_multi_view_unet(folder: PipelineFolder, dtype: torch.dtype) -> None:
    """Raise ModelError for latents of other channels than the VAE's, a text encoder of another width, or weights whose
    names or shapes are not the network's; no weight is read.
    """
    check_latent_channels(folder)
    config = folder.config("unet")
    check_width(folder, "the text encoder", text_width(folder, "text_encoder"), config["cross_attention_dim"])
    check_report("unet", folder.path, misfits(config, loaded_weights(folder, "unet", dtype)))


class CameraEmbedding(torch.nn.Module):
    """The embedding of poses (n, 16), to be added to that of time; zero for a row of zeros, which is no camera."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pose: Tensor) -> Tensor:
        embedding: Tensor = self.inner(pose)
        return embedding * pose.any(dim=1, keepdim=True)
