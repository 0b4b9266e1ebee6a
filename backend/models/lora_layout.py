# SPDX-License-Identifier: GPL-3.0-or-later
"""Which layers of a pipeline a LoRA file changes, from headers alone (Hu et al. 2021: W + alpha / rank B A).

Names of kohya's scripts (lora_unet_..., also in the order of the latent diffusion code), of diffusers and of peft are
read. Every layer is looked up in the headers of the pipeline's own weights, so that a LoRA of another base is found
before a weight is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .given_file import FLOATS, check_given_file
from .latent_diffusion_names import diffusers_name, flat_diffusers_name
from .parameter_counts import tensor_shapes
from .pipeline_folder import PipelineFolder
from .safetensors_header import read_header, read_metadata

FAMILIES = ("latent", "sdxl")
BASES: Mapping[int, str] = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
WRAPPER = "text_model."  # around a text encoder's layers in files; transformers has it or not by version
# Parts of names that are no LoRA of a U-Net, and what they are.
OTHERS: Mapping[str, str] = {
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "oft_": "an OFT",
    "glora": "a GLoRA",
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "lora_mid": "a LoRA of three factors",
    "motion_modules": "a LoRA of a video model",
    "double_blocks": "a LoRA of FLUX",
    "single_blocks": "a LoRA of FLUX",
    "single_transformer_blocks": "a LoRA of FLUX",
    "joint_blocks": "a LoRA of Stable Diffusion 3",
    "transformer.transformer_blocks": "a LoRA of a transformer, such as Stable Diffusion 3's",
    "emb_params": "a textual inversion embedding",
    "bundle_emb": "a LoRA with textual inversion embeddings in it",
}
_FACTOR = re.compile(
    r"(?P<layer>.+?)[._](?:lora_|lora\.|lora_linear_layer\.)(?P<side>down|up|A|B)(?:\.default)?\.weight"
)
_ALPHA = re.compile(r"(?P<layer>.+?)(?:[._]lora)?\.alpha")
_SIDES: Mapping[str, str] = {"down": "down", "A": "down", "up": "up", "B": "up"}
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


@dataclass
class _Found:
    down: str = ""
    up: str = ""
    alpha: str = ""


def read_lora(path: Path, folder: PipelineFolder) -> tuple[LoraLayer, ...]:
    """The layers that a file changes in a pipeline.

    Raises ModelError, in one line with what to do: no file, no safetensors, damaged, another kind of file, a family
    without LoRAs, another base, layers that the pipeline does not have, factors that do not fit.
    """
    if folder.family.name not in FAMILIES:
        raise ModelError(
            f"{path} cannot change {folder.path.name}, a {folder.pipeline}; LoRAs are read for StableDiffusionPipeline "
            "and StableDiffusionXLPipeline; leave --lora out, or choose such a --model"
        )
    header = _checked_header(path)
    found = _factors(path, header)
    _check_base(path, header, found, folder)
    shapes = {part: _layer_shapes(folder, part) for part in (folder.network, *folder.text_encoders)}
    flat = _flat_names(folder, shapes)
    layers_per_block = int(folder.config(folder.network).get("layers_per_block", 2))
    stated = _stated_alphas(path)
    layers: dict[tuple[str, str], LoraLayer] = {}
    for name, tensors in found.items():
        part, layer = _place(name, flat, shapes, layers_per_block)
        wanted = shapes.get(part, {}).get(layer)
        if wanted is None:
            raise ModelError(
                f"{path} changes {name}, which {folder.path.name} does not have; choose a LoRA of "
                f"{_base(folder)}, or the --model that it was trained on"
            )
        if (part, layer) in layers:
            raise ModelError(f"{path} changes {part}.{layer} twice, under two names; choose another copy of it")
        down, up = (header[tensor]["shape"] for tensor in (tensors.down, tensors.up))
        rank = _rank(path, name, down, up, wanted, folder)
        scale = 1.0 if tensors.alpha else stated.scale(part, layer, rank)
        layers[part, layer] = LoraLayer(part, layer, tensors.down, tensors.up, tensors.alpha, rank, scale)
    return tuple(layers.values())


def _checked_header(path: Path) -> Mapping[str, Mapping[str, Any]]:
    check_given_file(path, f"the LoRA {path}", "choose another copy")
    header = read_header(path)
    for mark, kind in OTHERS.items():
        if any(mark in name for name in header):
            raise ModelError(
                f"{path} is {kind}; allowed are LoRAs of Stable Diffusion 1.x, 2.x and XL with two factors a layer; "
                "choose such a file"
            )
    for name, entry in header.items():
        if entry["dtype"] not in FLOATS and not name.endswith(".alpha"):  # some files have whole numbers there
            raise ModelError(
                f"the LoRA {path} holds {entry['dtype']} numbers ({name}); allowed are {', '.join(FLOATS)}; choose "
                "another copy"
            )
    return header


def _factors(path: Path, header: Iterable[str]) -> dict[str, _Found]:
    """The tensors of each layer by the layer's name in the file. Raises ModelError for others, and for half a layer."""
    found: dict[str, _Found] = {}
    for name in header:
        if match := _FACTOR.fullmatch(name):
            setattr(found.setdefault(match["layer"], _Found()), _SIDES[match["side"]], name)
        elif match := _ALPHA.fullmatch(name):
            found.setdefault(match["layer"], _Found()).alpha = name
        else:
            raise ModelError(
                f"{path} holds {name}, which is no factor of a LoRA; give a whole model to --model, or a checkpoint "
                "to `dreamwright models import`"
            )
    for layer, tensors in found.items():
        if not (tensors.down and tensors.up):
            side = "down" if tensors.up else "up"
            raise ModelError(f"the LoRA {path} lacks the {side} factor of {layer}; copy or download it again, whole")
    if not found:
        raise ModelError(f"the LoRA {path} holds no tensors; choose another copy")
    return found


def _check_base(
    path: Path, header: Mapping[str, Mapping[str, Any]], found: Mapping[str, _Found], folder: PipelineFolder
) -> None:
    """Raise ModelError when its cross-attention reads text of another width than the pipeline's."""
    own = folder.config(folder.network).get("cross_attention_dim")
    for name, tensors in found.items():
        if re.search(r"attn2[._](?:processor[._])?to_[kv]$", name):
            shape = header[tensors.down]["shape"]
            width = shape[1] if len(shape) > 1 else 0
            if width != own:
                base = f"{BASES[width]}, whose text" if width in BASES else "a model whose text"
                raise ModelError(
                    f"{path} is a LoRA of {base} has width {width}; {folder.path.name} is of {_base(folder)}, of width "
                    f"{own}; choose a LoRA of that base, or the --model that it was trained on"
                )
            return


def _base(folder: PipelineFolder) -> str:
    width = folder.config(folder.network).get("cross_attention_dim")
    return BASES.get(width, folder.pipeline) if isinstance(width, int) else folder.pipeline


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


def _rank(
    path: Path, name: str, down: list[int], up: list[int], wanted: tuple[int, ...], folder: PipelineFolder
) -> int:
    """The rank of a layer's factors. Raises ModelError unless their product has the shape of the layer's weight."""
    fits = (
        len(down) in (2, 4)
        and len(up) in (2, 4)
        and down[0] >= 1
        and up[1:] in ([down[0]], [down[0], 1, 1])
        and up[0] == wanted[0]
        and math.prod(down[1:]) == math.prod(wanted[1:])
    )
    if not fits:
        raise ModelError(
            f"{path} has factors of shapes {down} and {up} for {name}, whose weight in {folder.path.name} has "
            f"{list(wanted)}; choose a LoRA of {_base(folder)}, or the --model that it was trained on"
        )
    return int(down[0])


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


def _stated_alphas(path: Path) -> _StatedAlphas:
    text = read_metadata(path).get("lora_adapter_metadata", "")
    try:
        content = json.loads(text) if text else {}
    except ValueError as error:
        raise ModelError(
            f"the LoRA {path} states its alpha in a form that cannot be read; choose another copy"
        ) from error
    return _StatedAlphas(content if isinstance(content, dict) else {})
