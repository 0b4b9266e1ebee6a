# SPDX-License-Identifier: GPL-3.0-or-later
"""Stable Diffusion 1.x and 2.x class pipelines as denoisers of latents, and the base of the other latent families."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ConfigError, ModelError
from ...models.pipeline_folder import PipelineFolder
from ...models.vae import VAE
from ...text.conditioning import Conditioning
from .base import (
    DenoiserParts,
    DiffusersDenoiser,
    check_value,
    check_width,
    text_width,
)

TEXT_TO_IMAGE = "choose a base text-to-image model"


class LatentDiffusion(DiffusersDenoiser):
    """A frozen network on the latents of a frozen VAE; implements `NativeDenoiser` and `LatentDenoiser`.

    This class runs Stable Diffusion 1.x and 2.x; other families override `network_output`.
    """

    def __init__(self, parts: DenoiserParts, vae: VAE, latent_size: int) -> None:
        super().__init__(parts)
        self.vae = vae
        self.channels = vae.channels
        self.latent_size = latent_size
        self.image_size = latent_size * vae.factor

    def encode(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """z (n, channels, latent_size, latent_size) of images x in [-1, 1], float32, differentiable.

        It is the mean of the VAE's posterior (`models.vae`), so the generator is not used.
        """
        return self.vae.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Images (n, 3, image_size, image_size), about [-1, 1], float32, without gradient."""
        return self.vae.decode(z)

    def predict_with_graph(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's own prediction for z_t (n, channels, h, w), float32, all in one call."""
        tensors = {name: tensor.to(self.dtype) for name, tensor in conditioning.tensors.items()}
        return self.network_output(z_t.detach().to(self.device, self.dtype), self.model_timestep(t), tensors).float()

    def network_output(self, z: Tensor, time: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        output: Tensor = self.network(z, time, encoder_hidden_states=conditioning["hidden"], return_dict=False)[0]
        return output


def check_unet(folder: PipelineFolder) -> None:
    """Raise ModelError for a U-Net that wants other inputs than latents, t and one text encoder's states."""
    check_latent_channels(folder)
    check_plain_unet(folder)
    check_value(folder, "unet", "addition_embed_type", (None,), TEXT_TO_IMAGE)
    check_width(
        folder, "the text encoder", text_width(folder, "text_encoder"), folder.config("unet").get("cross_attention_dim")
    )


def check_plain_unet(folder: PipelineFolder) -> None:
    """Raise ModelError for classes, projected text or a guidance scale as inputs, which guidance does not give."""
    check_value(folder, "unet", "class_embed_type", (None,), TEXT_TO_IMAGE)
    check_value(folder, "unet", "num_class_embeds", (None,), TEXT_TO_IMAGE)
    check_value(folder, "unet", "encoder_hid_dim_type", (None,), TEXT_TO_IMAGE)
    check_value(folder, "unet", "time_cond_proj_dim", (None,), f"it is distilled for few steps; {TEXT_TO_IMAGE}")


def check_latent_channels(folder: PipelineFolder) -> None:
    """Raise ModelError unless the network maps the VAE's latents to latents."""
    config, channels = folder.config(folder.network), folder.config("vae").get("latent_channels", 4)
    inputs, outputs = config.get("in_channels"), config.get("out_channels")
    if (inputs, outputs) != (channels, channels):
        raise ModelError(
            f"the {folder.network} of {folder.path} has {inputs} input and {outputs} output channels; allowed are "
            f"{channels} and {channels}, as its vae's latents have; inpainting models and mixed-up parts cannot be used"
        )


def chosen_latent_size(folder: PipelineFolder, own: int, factor: int, image_size: int, patch: int = 1) -> int:
    """Latents a side for images of `image_size` pixels, the model's own size for 0. Raises ConfigError."""
    if image_size == 0:
        return own
    step = factor * patch
    if image_size % step or image_size < 4 * step or image_size > 2 * own * factor:
        raise ConfigError(
            f"model.image_size {image_size}; allowed for {folder.path.name} are 0 (its own, {own * factor}) and "
            f"multiples of {step} from {4 * step} to {2 * own * factor}; change it"
        )
    return image_size // factor
