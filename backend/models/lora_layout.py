# SPDX-License-Identifier: GPL-3.0-or-later
"""Which layers of a pipeline a LoRA file changes, from headers alone (Hu et al. 2021: W + alpha / rank B A).

Names of kohya's scripts (lora_unet_..., also in the order of the latent diffusion code), of diffusers and of peft are
read. Every layer is looked up in the headers of the pipeline's own weights, so that a LoRA of another model is found
before a weight is read. `lora_base` has the checks that need no pipeline.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .latent_diffusion_names import diffusers_name, flat_diffusers_name
from .lora_base import LoraBase, read_lora_file
from .parameter_counts import tensor_shapes
from .pipeline_folder import PipelineFolder
from .safetensors_header import read_metadata

WRAPPER = "text_model."  # around a text encoder's layers in files; transformers has it or not by version
_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True)
class LoraLayer:
    """One changed layer: its part and name in the pipeline, and its tensors in the file.

    The factors' shapes are (rank, inputs) and (outputs, rank), with a convolution's kernel in the first. alpha: the
    tensor's name, "" where there is none. scale: alpha / rank where no tensor says it.
    """

    part: str
    layer: str
    down: str
    up: str
    alpha: str
    rank: int
    scale: float = 1.0


def read_lora(path: Path, folder: PipelineFolder, called: str = "") -> tuple[LoraLayer, ...]:
    """The layers that a file changes in a pipeline. `called`: the file in errors, by default its path.

    Raises ModelError, in one line with what to do: those of `read_lora_file`, layers that the pipeline does not have,
    factors that do not fit.
    """
    called = called or str(path)
    width = folder.config(folder.network).get("cross_attention_dim")
    base = LoraBase(folder.path.name, folder.pipeline, folder.family.name, width)
    file = read_lora_file(path, base, called)
    shapes = {part: _layer_shapes(folder, part) for part in (folder.network, *folder.text_encoders)}
    flat = _flat_names(folder, shapes)
    layers_per_block = int(folder.config(folder.network).get("layers_per_block", 2))
    stated = _stated_alphas(path, called)
    layers: dict[tuple[str, str], LoraLayer] = {}
    for name, tensors in file.factors.items():
        part, layer = _place(name, flat, shapes, layers_per_block)
        wanted = shapes.get(part, {}).get(layer)
        if wanted is None:
            raise ModelError(
                f"{called} changes {name}, which {base.name} does not have; choose a LoRA of {base}, or the model "
                "that it was trained on"
            )
        if (part, layer) in layers:
            raise ModelError(f"{called} changes {part}.{layer} twice, under two names; choose another copy of it")
        down, up = (file.header[tensor]["shape"] for tensor in (tensors.down, tensors.up))
        if not _fits(down, up, wanted):
            raise ModelError(
                f"{called} has factors of shapes {down} and {up} for {name}, whose weight in {base.name} has "
                f"{list(wanted)}; choose a LoRA of {base}, or the model that it was trained on"
            )
        rank = int(down[0])
        scale = 1.0 if tensors.alpha else stated.scale(part, layer, rank)
        layers[part, layer] = LoraLayer(part, layer, tensors.down, tensors.up, tensors.alpha, rank, scale)
    return tuple(layers.values())


def _layer_shapes(folder: PipelineFolder, part: str) -> dict[str, tuple[int, ...]]:
    """The shape of every weight that a LoRA may change, by the layer's name without transformers' wrapper."""
    return {
        name.removesuffix(".weight").removeprefix(WRAPPER): shape
        for name, shape in tensor_shapes(folder, part).items()
        if name.endswith(".weight") and len(shape) in (2, 4)
    }


def _flat_names(
    folder: PipelineFolder, shapes: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> dict[str, tuple[str, str]]:
    """kohya's name of every layer, dots made underscores, with its part and name."""
    texts = folder.text_encoders
    flat: dict[str, tuple[str, str]] = {}
    for part, layers in shapes.items():
        prefixes = ["lora_unet"]
        if part in texts:
            prefixes = [f"lora_te{texts.index(part) + 1}", *(["lora_te"] if len(texts) == 1 else [])]
        for layer in layers:
            name = layer if part == folder.network or layer == "text_projection" else WRAPPER + layer
            flat |= {f"{prefix}_{name}".replace(".", "_"): (part, layer) for prefix in prefixes}
    return flat


def _place(
    name: str,
    flat: Mapping[str, tuple[str, str]],
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
    layers_per_block: int,
) -> tuple[str, str]:
    """Part and name of the layer that a file calls `name`; ("", "") for one that the pipeline does not have."""
    if name.startswith("lora_"):
        if name in flat:
            return flat[name]
        own = name.removeprefix("lora_unet_")
        return flat.get(f"lora_unet_{flat_diffusers_name(own, layers_per_block)}", ("", ""))
    name = name.removeprefix("base_model.model.")
    part, _, layer = name.partition(".")
    if part in ("diffusion_model", "model"):  # the latent diffusion code's own names
        own = layer.removeprefix("diffusion_model.")
        return "unet", diffusers_name(f"{own}.weight", layers_per_block).removesuffix(".weight")
    if part not in ("unet", "text_encoder", "text_encoder_2"):
        part, layer = "unet", name
    layer = layer.replace(".processor.", ".").removeprefix(WRAPPER)
    stem, _, last = layer.rpartition(".")
    if part != "unet":
        last = _TEXT_NAMES.get(last, last)
    elif last == "to_out":
        last = "to_out.0"
    return part, f"{stem}.{last}" if stem else last


def _fits(down: list[int], up: list[int], wanted: tuple[int, ...]) -> bool:
    """Whether the factors' product has the shape of the layer's weight."""
    return (
        len(down) in (2, 4)
        and len(up) in (2, 4)
        and down[0] >= 1
        and up[1:] in ([down[0]], [down[0], 1, 1])
        and up[0] == wanted[0]
        and math.prod(down[1:]) == math.prod(wanted[1:])
    )


@dataclass(frozen=True)
class _StatedAlphas:
    """What diffusers' and peft's own files say of alpha in their metadata, by part."""

    by_part: Mapping[str, Any]

    def scale(self, part: str, layer: str, rank: int) -> float:
        """alpha / rank, or alpha / sqrt(rank) where the file says so; 1 where it says nothing."""
        alpha = self.by_part.get(f"{part}.lora_alpha")
        patterns = self.by_part.get(f"{part}.alpha_pattern")
        if isinstance(patterns, Mapping):
            for pattern, value in patterns.items():
                if layer == pattern or layer.endswith(f".{pattern}"):
                    alpha = value
        if not isinstance(alpha, (int, float)) or isinstance(alpha, bool):
            return 1.0
        return float(alpha) / (math.sqrt(rank) if self.by_part.get(f"{part}.use_rslora") is True else rank)


def _stated_alphas(path: Path, called: str) -> _StatedAlphas:
    text = read_metadata(path).get("lora_adapter_metadata", "")
    try:
        content = json.loads(text) if text else {}
    except ValueError as error:
        raise ModelError(
            f"the LoRA {called} states its alpha in a form that cannot be read; choose another copy"
        ) from error
    return _StatedAlphas(content if isinstance(content, dict) else {})
