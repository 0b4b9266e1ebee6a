# SPDX-License-Identifier: GPL-3.0-or-later
"""Pixel-space diffusers pipelines as denoisers: DeepFloyd IF, the built-in starter, and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from ...cameras.poses import POSE_NUMBERS
from ...errors import ModelError
from ...models.families import FamilyName
from ...models.pipeline_folder import PipelineFolder, load_model, open_pipeline
from ...text.conditioning import Conditioning, TextEncoder
from ...text.encoder import PipelineTextEncoder
from ...text.tokenization import PromptTokenizer
from ..noise_schedule import read_schedule
from ..patch_grid import grid_offsets, mean_of_rows, rolled
from .base import (
    DenoiserParts,
    DiffusersDenoiser,
    check_value,
    check_width,
    square_size,
    text_width,
)

SHUFFLE_FACTORS = (1, 2, 4)  # pixel-unshuffle factors k: the U-Net sees 3 k^2 channels
STAGE_I = "choose a text-to-image model (stage I)"
POSED = "choose a multi-view model that is given camera-to-world matrices"


class PixelDiffusion(DiffusersDenoiser):
    """A frozen U-Net, its text encoder and noise schedule. Implements `NativeDenoiser`; `image_size` is in pixels."""

    family: ClassVar[FamilyName] = "pixel"

    def __init__(self, parts: DenoiserParts) -> None:
        super().__init__(parts)
        config: Any = parts.network.config
        self.shuffle = _shuffle_factor(int(config.in_channels))
        self.image_size = int(config.sample_size) * self.shuffle

    @property
    def unet(self) -> torch.nn.Module:
        """The network."""
        return self.network

    @unet.setter
    def unet(self, unet: torch.nn.Module) -> None:
        self.network = unet

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        cache: str | Path | None = None,
        text: TextEncoder | None = None,
        stored: torch.device | str | None = None,
    ) -> Self:
        """Load a pipeline folder from disk, never from a network; `dtype` None means float32.

        `cache` is a folder for text embeddings (None: none on disk). The text encoder's weights are loaded by the
        first `embed` that needs them, or by `text` if given. The network's weights are kept on `stored` where that is
        given. Raises ModelError naming what is wrong and what is supported.
        """
        opened = open_pipeline(folder)
        dtype = torch.float32 if dtype is None else dtype
        if opened.family.name != cls.family:
            raise ModelError(
                f"{opened.path} is a {opened.pipeline}, which is of the family {opened.family.name}; allowed here is "
                f"the family {cls.family}; choose another model"
            )
        _check_unet(opened)
        schedule = read_schedule(opened)
        if text is None:
            text = PipelineTextEncoder(opened, device, dtype, cache)
        reader = text.reader if isinstance(text, PipelineTextEncoder) else PromptTokenizer(opened)
        network = load_model(opened, "unet", dtype, device if stored is None else stored)
        return cls._of(opened, DenoiserParts(network, schedule, text, reader, device, dtype))

    @classmethod
    def _of(cls, folder: PipelineFolder, parts: DenoiserParts) -> Self:
        """The denoiser of a folder's parts."""
        return cls(parts)

    def predict_with_graph(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The U-Net's own prediction for z_t (n, 3, h, w) in the model's space, float32.

        A U-Net of pixel-unshuffled images predicts on a patch grid that moves with t (`patch_grid`).
        """
        z, timesteps = z_t.detach().to(self.device, self.dtype), self.model_timestep(t).expand(len(z_t))
        if self.shuffle == 1:
            return self.network_output(z, timesteps, conditioning)
        views = self.views_together(conditioning)
        rows, offsets = grid_offsets(timesteps, len(self._schedule.timesteps), self.shuffle, views)
        there = rows.to(self.device)
        output = self.network_output(rolled(z[there], offsets), timesteps[there], conditioning[there])
        return mean_of_rows(rolled(output, -offsets), rows, len(z_t))

    def views_together(self, conditioning: Conditioning) -> int:
        """How many rows in a row are one object and predicted together."""
        return 1

    def network_inputs(self, conditioning: Conditioning) -> dict[str, Any]:
        """The network's inputs beside z_t and t, for n rows of conditioning."""
        return {"encoder_hidden_states": conditioning.tensors["hidden"].to(self.dtype)}

    def network_output(self, z: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        patches = functional.pixel_unshuffle(z, self.shuffle)
        output = self.network(patches, timesteps, return_dict=False, **self.network_inputs(conditioning))[0]
        # DeepFloyd IF also learns the variance, in the second half of its channels.
        return functional.pixel_shuffle(output[:, : patches.shape[1]].float(), self.shuffle)


def _shuffle_factor(channels: int) -> int:
    """k for 3 k^2 channels, 0 where no supported k fits."""
    return next((k for k in SHUFFLE_FACTORS if channels == 3 * k * k), 0)


def _check_unet(folder: PipelineFolder) -> None:
    """Raise ModelError for a U-Net that wants other inputs than z_t, t and text, or a text encoder of another width.

    That of a multi-view model wants poses besides.
    """
    config = folder.config("unet")
    inputs, outputs = config.get("in_channels"), config.get("out_channels")
    allowed = [3 * k * k for k in SHUFFLE_FACTORS]
    if inputs not in allowed or outputs not in (inputs, 2 * inputs):
        raise ModelError(
            f"the unet of {folder.path} has {inputs} input and {outputs} output channels; allowed are "
            f"{', '.join(map(str, allowed))} in and as many or twice as many out; {STAGE_I}"
        )
    square_size(folder)
    if folder.family.name == "multi-view":
        check_value(folder, "unet", "class_embed_type", ("projection",), POSED)
        check_value(folder, "unet", "projection_class_embeddings_input_dim", (POSE_NUMBERS,), POSED)
    else:
        check_value(folder, "unet", "class_embed_type", (None,), STAGE_I)
    check_value(folder, "unet", "addition_embed_type", (None, "text"), STAGE_I)
    check_value(folder, "unet", "num_class_embeds", (None,), STAGE_I)
    wanted = config.get("encoder_hid_dim") or config.get("cross_attention_dim")
    check_width(folder, "the text encoder", text_width(folder, "text_encoder"), wanted)
