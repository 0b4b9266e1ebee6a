# SPDX-License-Identifier: GPL-3.0-or-later
"""Stable Diffusion 3 class pipelines: a flow-matching transformer, z_t = (1 - sigma_t) x + sigma_t eps, u = eps - x."""

from __future__ import annotations

from torch import Tensor

from ...errors import ConfigError
from ...models.pipeline_folder import PipelineFolder
from .base import check_width, text_width
from .latent import LatentDiffusion, check_latent_channels


class FlowTransformer(LatentDiffusion):
    """A latent denoiser of prediction kind "flow"; its timestep is 1000 sigma_t, after the scheduler's shift."""

    def network_output(self, z: Tensor, time: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        return self.network(
            hidden_states=z, timestep=time, encoder_hidden_states=conditioning["hidden"],
            pooled_projections=conditioning["pooled"], return_dict=False,
        )[0]  # fmt: skip


def check_transformer(folder: PipelineFolder, latent_size: int) -> None:
    """Raise ModelError for text encoders of other widths, ConfigError for images beyond its positions."""
    check_latent_channels(folder)
    config = folder.config("transformer")
    wanted = config.get("joint_attention_dim")
    clips = [folder.config(part) for part in ("text_encoder", "text_encoder_2")]
    pooled = [width for clip in clips if isinstance(width := clip.get("projection_dim"), int)]
    if len(pooled) == len(clips):
        check_width(folder, "pooled text", sum(pooled), config.get("pooled_projection_dim"))
    if "text_encoder_3" in folder.classes:
        check_width(folder, "text_encoder_3", text_width(folder, "text_encoder_3"), wanted)
    side = sum(clip.get("hidden_size", 0) for clip in clips)
    if isinstance(wanted, int) and side > wanted:
        check_width(folder, "the pair of text encoders", side, wanted)
    patch, most = int(config.get("patch_size", 2)), int(config.get("pos_embed_max_size", 96))
    if latent_size > patch * most:
        raise ConfigError(
            f"model.image_size makes {latent_size} latents a side for {folder.path.name}; allowed are at most "
            f"{patch * most}; choose a smaller one"
        )
