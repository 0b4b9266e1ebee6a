# SPDX-License-Identifier: GPL-3.0-or-later
"""Common parts of all denoisers from a pipeline folder: a frozen network, its noise levels, its text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import ConfigError, ModelError
from ...models.pipeline_folder import PipelineFolder
from ...text.conditioning import Conditioning, TextEncoder
from ...text.tokenization import PromptTokenizer
from ..noise_schedule import NoiseSchedule
from ..prediction import PredictionType, noise_from


@dataclass(frozen=True)
class DenoiserParts:
    """Parts of a pipeline that guidance uses, and the device and dtype that it computes with."""

    network: torch.nn.Module
    schedule: NoiseSchedule
    text: TextEncoder
    reader: PromptTokenizer
    device: torch.device | str
    dtype: torch.dtype  # of the network


class DiffusersDenoiser:
    """Base of the denoisers; a family adds `predict_with_graph`. `prediction_type` is what it returns.

    `network` is called in `predict_with_graph` and nowhere else, so that it can be compiled or replaced.
    """

    image_size: int  # pixels a side

    def __init__(self, parts: DenoiserParts) -> None:
        self.device, self.dtype = parts.device, parts.dtype
        self.prediction_type: PredictionType = parts.schedule.prediction_type
        self.network = parts.network
        self._schedule = parts.schedule.to(parts.device)
        self.text = parts.text
        self._reader = parts.reader

    def time_index(self, t: Tensor) -> Tensor:
        """Index (n,) in 0..T-1 nearest to t (T - 1), for t (n,) in [0, 1]."""
        return self._schedule.index(t)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t, sigma_t, each (n,) float32, of the nearest training step."""
        index = self.time_index(t)
        return self._schedule.alpha[index], self._schedule.sigma[index]

    def model_timestep(self, t: Tensor) -> Tensor:
        """The network's time input (n,) for t: the training step of a diffusion model, 1000 sigma_t of a flow model."""
        return self._schedule.timesteps[self.time_index(t)]

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """The prompts' embeddings; each prompt is encoded once. Raises ModelError when an encoder cannot be loaded."""
        return self.text.embed(prompts).to(self.device)

    def free_text_encoder(self) -> None:
        """Release the text encoders' memory. Cached embeddings stay; a new prompt loads the encoders again."""
        self.text.free()

    def check_prompt(self, prompt: str) -> list[str]:
        """Warnings about a prompt that the model can use. Raises PromptError: empty, or unknown words."""
        return self._reader.check(prompt)

    @torch.no_grad()
    def predict_raw(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's own prediction for z_t (n, c, h, w) in the model's space, float32, without gradient."""
        return self.predict_with_graph(z_t, t, conditioning)

    def predict_with_graph(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The same with the graph of what is trained in the network, all in one call; z_t itself has no gradient."""
        raise NotImplementedError

    def predict_noise(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """eps_phi(z_t; y, t), like z_t, float32, without gradient, whatever the model predicts."""
        alpha, sigma = (c.view(-1, 1, 1, 1) for c in self.alpha_sigma(t))
        return noise_from(self.prediction_type, self.predict_raw(z_t, t, conditioning), z_t.detach(), alpha, sigma)

    def slice_attention(self) -> None:
        """Compute attention head by head. Raises ConfigError for networks without that option."""
        slicing = getattr(self.network, "set_attention_slice", None)
        if slicing is None:
            raise ConfigError(
                f"model.attention_slicing is on, but a {type(self.network).__name__} has none; allowed is false for "
                "this model; turn it off"
            )
        slicing("max")

    def offload(self, kind: Literal["blocks", "leaves"]) -> None:
        """Keep the weights in main memory; each block or layer is moved to the device while it computes."""
        level: dict[str, dict[str, Any]] = {
            "blocks": {"offload_type": "block_level", "num_blocks_per_group": 1},
            "leaves": {"offload_type": "leaf_level"},
        }
        network: Any = self.network
        network.enable_group_offload(torch.device(self.device), torch.device("cpu"), **level[kind])


def square_size(folder: PipelineFolder) -> int:
    """The network's `sample_size`. Raises ModelError unless it is one positive number."""
    size = folder.config(folder.network).get("sample_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ModelError(
            f"the {folder.network} of {folder.path} has sample_size {size!r}; needed is one number; "
            "choose a model of square images"
        )
    return size


def check_value(folder: PipelineFolder, part: str, key: str, allowed: tuple[object, ...], advice: str) -> None:
    """Raise ModelError unless the part's configuration has one of the allowed values, None standing for its absence."""
    value = folder.config(part).get(key)
    if value not in allowed:
        raise ModelError(
            f"the {part} of {folder.path} has {key} {value!r}; allowed are {', '.join(map(repr, allowed))}; {advice}"
        )


def check_width(folder: PipelineFolder, what: str, width: object, wanted: object) -> None:
    """Raise ModelError when two numbers that must agree are known and do not."""
    if isinstance(width, int) and isinstance(wanted, int) and width != wanted:
        raise ModelError(
            f"{what} of {folder.path} has width {width}, its {folder.network} wants {wanted}; they must match; "
            "its parts are mixed up, so download the model again, whole"
        )


def text_width(folder: PipelineFolder, part: str) -> object:
    """Width of the encoder's hidden states, from its configuration."""
    config = folder.config(part)
    return config.get("d_model", config.get("hidden_size"))
