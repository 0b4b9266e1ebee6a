# SPDX-License-Identifier: GPL-3.0-or-later
"""Images to latents and back: z = (mean of the VAE's posterior - shift_factor) scaling_factor.

The mean is used instead of a sample: the posterior's deviation is far below the noise of z_t, and with the mean the SDS
gradient of an image is a function of t and eps alone, with less variance and equal on every device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import ModelError
from .pipeline_folder import PipelineFolder, load_model


class VAE:
    """A frozen AutoencoderKL. `channels` of z, `factor` pixels a latent, `dtype` in which it works.

    With `recompute` the encoder keeps no activations. The backward pass computes them again, view by view and block by
    block, so that a step holds the largest block of one view instead of the whole encoder of all views.
    """

    def __init__(self, model: Any, scaling_factor: float, shift_factor: float, recompute: bool = False) -> None:
        self.model = model
        self.recompute = recompute
        if recompute:
            model.enable_gradient_checkpointing()
        self.scaling_factor, self.shift_factor = scaling_factor, shift_factor
        self.channels = int(model.config.latent_channels)
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)
        self.dtype: torch.dtype = model.dtype

    def encode(self, x: Tensor) -> Tensor:
        """z (n, channels, h / factor, w / factor) of images (n, 3, h, w) in [-1, 1], float32, differentiable."""
        x = x.to(self.model.device, self.dtype)
        if self.recompute and x.requires_grad:
            mean = torch.cat([checkpoint(self._mean, one, use_reentrant=False) for one in x.split(1)])
        else:
            mean = self._mean(x)
        return (mean.float() - self.shift_factor) * self.scaling_factor

    def _mean(self, x: Tensor) -> Tensor:
        return self.model.encode(x).latent_dist.mode()

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Images (n, 3, h, w), about [-1, 1], float32, one by one: a decoder needs much memory for each."""
        raw = (z.detach().float() / self.scaling_factor + self.shift_factor).to(self.model.device, self.dtype)
        return torch.cat([self.model.decode(one, return_dict=False)[0].float() for one in raw.split(1)])


def load_vae(
    folder: PipelineFolder,
    device: torch.device | str,
    dtype: torch.dtype,
    tiling: bool = False,
    recompute: bool = False,
) -> VAE:
    """The folder's VAE in `dtype`, or in float32 where its configuration warns that float16 overflows (SDXL's, SD3's).

    `tiling` encodes overlapping tiles, `recompute` keeps fewer activations for the backward pass. Raises ModelError for
    factors that are no numbers, latents normalized by channel, and weights that cannot be loaded.
    """
    config = folder.config("vae")
    # An absent scaling factor is diffusers' default, which old Stable Diffusion folders rely on. `force_upcast` counts
    # where it is written down only: its default is true, but the pipelines that came before it run in float16.
    scaling, shift = config.get("scaling_factor", 0.18215), config.get("shift_factor")
    shift = 0.0 if shift is None else shift
    for key, value in (("scaling_factor", scaling), ("shift_factor", shift)):
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or (key == "scaling_factor" and not value > 0)
        ):
            raise ModelError(
                f"the vae of {folder.path} has {key} {value!r}; allowed is a number; download the model again, whole"
            )
    if config.get("latents_mean") is not None or config.get("latents_std") is not None:
        raise ModelError(
            f"the vae of {folder.path} normalizes latents by channel (latents_mean, latents_std); allowed are one "
            "scaling_factor and one shift_factor; choose another model"
        )
    if dtype == torch.float16 and config.get("force_upcast", False):
        dtype = torch.float32
    vae: Any = load_model(folder, "vae", dtype, device)
    if tiling:
        vae.enable_tiling()
    return VAE(vae, float(scaling), float(shift), recompute)
