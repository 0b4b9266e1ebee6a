# SPDX-License-Identifier: GPL-3.0-or-later
"""Stable Diffusion XL class pipelines: two text encoders, and a U-Net conditioned on pooled text and image sizes."""

from __future__ import annotations

from torch import Tensor

from ...models.pipeline_folder import PipelineFolder
from .base import check_value, check_width, text_width
from .latent import (
    TEXT_TO_IMAGE,
    LatentDiffusion,
    check_latent_channels,
    check_plain_unet,
)

TIME_IDS = 6  # original height and width, crop's top and left, wanted height and width


class SdxlDiffusion(LatentDiffusion):
    """A latent denoiser that declares its views uncropped images of its own size, as the pipeline does by default."""

    def network_output(self, z: Tensor, time: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        ids = z.new_full(
            (len(z), TIME_IDS), float(z.shape[-1] * self.vae.factor)
        )  # created on the device: no copy and no synchronization
        ids[:, 2:4] = 0.0  # the crop's corner
        added = {"text_embeds": conditioning["pooled"], "time_ids": ids}
        return self.network(
            z, time, encoder_hidden_states=conditioning["hidden"], added_cond_kwargs=added, return_dict=False
        )[0]


def check_sdxl(folder: PipelineFolder) -> None:
    """Raise ModelError for a U-Net that is no SDXL base model's, or text encoders of other widths."""
    check_latent_channels(folder)
    check_plain_unet(folder)
    check_value(folder, "unet", "addition_embed_type", ("text_time",), TEXT_TO_IMAGE)
    config = folder.config("unet")
    widths = [text_width(folder, part) for part in ("text_encoder", "text_encoder_2")]
    known = [width for width in widths if isinstance(width, int)]
    if len(known) == len(widths):
        check_width(folder, "the pair of text encoders", sum(known), config.get("cross_attention_dim"))
    pooled, ids = folder.config("text_encoder_2").get("projection_dim"), config.get("addition_time_embed_dim")
    if isinstance(pooled, int) and isinstance(ids, int):
        added = pooled + TIME_IDS * ids
        check_width(folder, "pooled text and image sizes", added, config.get("projection_class_embeddings_input_dim"))
