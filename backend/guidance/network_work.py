# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of a model's networks, counted on the device "meta" from its folder's configurations; no weight is read."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from ..cameras.poses import POSE_NUMBERS
from ..models.json_files import read_object
from ..models.pipeline_folder import PipelineFolder
from ..models.tokenizer_check import CONFIG as TOKENIZER
from ..runtime.operation_count import Work, count_work
from ..text.conditioning import Conditioning
from .denoisers.base import DenoiserParts
from .denoisers.loading import LATENT_CLASSES, PIXEL_CLASSES
from .denoisers.multi_view import MultiViewPixelDiffusion
from .denoisers.multi_view_latent import VIEWS
from .denoisers.pixel import PixelDiffusion
from .denoisers.sdxl import TIME_IDS
from .noise_schedule import NoiseSchedule

META = torch.device("meta")


def views_together(folder: PipelineFolder) -> int:
    """Views that the network sees at once: those of a set, or 1."""
    if folder.family.name == "multi-view-latent":
        return VIEWS
    return int(folder.options["views"]) if folder.family.name == "multi-view" else 1


def network_work(folder: PipelineFolder, latent_size: int, dtype: torch.dtype) -> Work:
    """One forward pass on a set of views (`views_together` rows), without gradient.

    latent_size: pixels or latents a side of the network's input before its patches are cut.
    """
    config = {**folder.config(folder.network), "_class": _class_of(folder)}
    return _network_work(
        folder.family.name, json.dumps(config), views_together(folder), _text_tokens(folder), latent_size, dtype
    )


def encoder_work(folder: PipelineFolder, size: int, dtype: torch.dtype) -> Work:
    """The VAE's encoder on one image of `size` pixels a side, with the gradient of its latents in the image."""
    return _encoder_work(json.dumps(folder.config("vae")), size, dtype)


def image_tower_work(config: Mapping[str, Any], dtype: torch.dtype) -> Work:
    """CLIP's image tower on one image, with the gradient of its embedding in the image. `config`: of config.json."""
    return _image_tower_work(json.dumps(dict(config["vision_config"])), dtype)


@functools.lru_cache(maxsize=64)
def _network_work(family: str, config: str, rows: int, tokens: int, size: int, dtype: torch.dtype) -> Work:
    described = json.loads(config)
    kind = getattr(diffusers, described.pop("_class"))
    network = _on_meta(lambda: kind.from_config(described), dtype)
    schedule = NoiseSchedule(torch.ones(1), torch.zeros(1), torch.zeros(1), "epsilon")
    nothing: Any = None  # no prompt is embedded
    parts = DenoiserParts(network, schedule, nothing, nothing, META, dtype)
    tensors = _conditioning(family, described, rows, tokens, dtype)
    time = torch.empty(rows, device=META)
    if family in PIXEL_CLASSES:
        pixel = MultiViewPixelDiffusion(parts, rows) if family == "multi-view" else PixelDiffusion(parts)
        side = size * pixel.shuffle
        images = torch.empty(rows, 3, side, side, dtype=dtype, device=META)
        return _without_gradient(lambda: pixel.network_output(images, time, Conditioning(tensors)))
    vae: Any = _NoEncoder(int(described["in_channels"]))
    latent = LATENT_CLASSES[family](parts, vae, size)
    latents = torch.empty(rows, latent.channels, size, size, dtype=dtype, device=META)
    return _without_gradient(lambda: latent.network_output(latents, time, tensors))


@functools.lru_cache(maxsize=64)
def _encoder_work(config: str, size: int, dtype: torch.dtype) -> Work:
    vae: Any = _on_meta(lambda: diffusers.AutoencoderKL.from_config(json.loads(config)), dtype)
    image = torch.empty(1, 3, size, size, dtype=dtype, device=META, requires_grad=True)
    return count_work(lambda: vae.encode(image).latent_dist.mode().sum().backward())


@functools.lru_cache(maxsize=64)
def _image_tower_work(config: str, dtype: torch.dtype) -> Work:
    described = transformers.CLIPVisionConfig(**json.loads(config))
    tower: Any = _on_meta(lambda: transformers.CLIPVisionModel(described), dtype)
    size = json.loads(config).get("image_size", 224)
    image = torch.empty(1, 3, size, size, dtype=dtype, device=META, requires_grad=True)
    return count_work(lambda: tower(pixel_values=image).pooler_output.sum().backward())


def _class_of(folder: PipelineFolder) -> str:
    """diffusers' class of the network; MVDream's is read as a U-Net of diffusers'."""
    name = folder.classes[folder.network]
    return name if hasattr(diffusers, name) else "UNet2DConditionModel"


def _on_meta(build: Callable[[], Any], dtype: torch.dtype) -> Any:
    with META:
        built = build()
    return torch.nn.Module.to(built, dtype).eval().requires_grad_(False)


def _without_gradient(run: Callable[[], Tensor]) -> Work:
    with torch.no_grad():
        return count_work(run)


def _text_tokens(folder: PipelineFolder) -> int:
    """Tokens to which prompts are padded; those of T5 follow those of two CLIPs side by side."""
    lengths = []
    for part in folder.family.text:
        path = folder.path / part.tokenizer / TOKENIZER
        stated = read_object(path).get("model_max_length", part.max_tokens) if path.is_file() else part.max_tokens
        lengths.append(min(int(stated), part.max_tokens))
    return lengths[0] + lengths[-1] if folder.family.name == "flow" else lengths[0]


def _conditioning(
    family: str, config: Mapping[str, Any], rows: int, tokens: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Tensors like those that a prompt and cameras give."""

    def like(*shape: int) -> Tensor:
        return torch.empty(rows, *shape, dtype=dtype, device=META)

    if family == "flow":
        width = int(config.get("joint_attention_dim", 4096))
        return {"hidden": like(tokens, width), "pooled": like(int(config.get("pooled_projection_dim", 2048)))}
    width = config.get("encoder_hid_dim") or config.get("cross_attention_dim", 1280)
    tensors = {"hidden": like(tokens, int(width[0] if isinstance(width, list) else width))}
    if family == "sdxl":
        ids = TIME_IDS * int(config["addition_time_embed_dim"])
        tensors["pooled"] = like(int(config["projection_class_embeddings_input_dim"]) - ids)
    if family in ("multi-view", "multi-view-latent"):
        # On the CPU, as the number of views decides what is run.
        tensors |= {"pose": like(POSE_NUMBERS), "together": torch.full((rows,), rows)}
    return tensors


class _NoEncoder:
    """Stands in for a VAE, of which a network's denoiser asks these numbers."""

    factor = 8

    def __init__(self, channels: int) -> None:
        self.channels = channels
