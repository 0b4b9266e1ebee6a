# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a LoRA file is one, and of a model's base, from its header and the model's JSON files alone.

It imports neither torch nor diffusers, so that a server can refuse a LoRA when a job is submitted. `lora_layout` looks
up each layer in the model's own weights besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .given_file import FLOATS, check_given_file
from .json_files import read_object
from .model_files import INDEX, family_of
from .safetensors_header import read_header

FAMILIES = ("latent", "sdxl")
BASES: Mapping[int, str] = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
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


@dataclass(frozen=True)
class LoraBase:
    """What a LoRA has to fit: the model as errors call it, its pipeline class, family, and its text's width."""

    name: str
    pipeline: str
    family: str
    width: int | None

    def __str__(self) -> str:
        return BASES.get(self.width, self.pipeline) if isinstance(self.width, int) else self.pipeline


def read_base(folder: Path, name: str) -> LoraBase:
    """The base of the model in a diffusers folder, from its index and the U-Net's configuration. Raises ModelError."""
    index = read_object(folder / INDEX)
    family = family_of(index, str(folder)).name
    config: Mapping[str, Any] = read_object(folder / "unet" / "config.json") if family in FAMILIES else {}
    return LoraBase(name, str(index.get("_class_name", "")), family, config.get("cross_attention_dim"))


@dataclass
class Factors:
    """Names of a layer's tensors in the file, "" for none."""

    down: str = ""
    up: str = ""
    alpha: str = ""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file's header, and its layers' tensors by the layer's name in the file. `called`: its name in errors."""

    path: Path
    called: str
    header: Mapping[str, Mapping[str, Any]]
    factors: Mapping[str, Factors]


def read_lora_file(path: Path, base: LoraBase, called: str) -> LoraFile:
    """The layers of a LoRA file, proved to be of the base.

    Raises ModelError, in one line with what to do: no safetensors, damaged, another kind of file, a family without
    LoRAs, another base.
    """
    if base.family not in FAMILIES:
        raise ModelError(
            f"{called} cannot change {base.name}, a {base.pipeline}; LoRAs are read for StableDiffusionPipeline "
            "and StableDiffusionXLPipeline; leave the LoRA out, or choose such a model"
        )
    header = _checked_header(path, called)
    file = LoraFile(path, called, header, _factors(called, header))
    _check_width(file, base)
    return file


def _checked_header(path: Path, called: str) -> Mapping[str, Mapping[str, Any]]:
    check_given_file(path, f"the LoRA {called}", "choose another copy")
    header = read_header(path)
    for mark, kind in OTHERS.items():
        if any(mark in name for name in header):
            raise ModelError(
                f"{called} is {kind}; allowed are LoRAs of Stable Diffusion 1.x, 2.x and XL with two factors a layer; "
                "choose such a file"
            )
    for name, entry in header.items():
        if entry["dtype"] not in FLOATS and not name.endswith(".alpha"):  # some files have whole numbers there
            raise ModelError(
                f"the LoRA {called} holds {entry['dtype']} numbers ({name}); allowed are {', '.join(FLOATS)}; choose "
                "another copy"
            )
    return header


def _factors(called: str, header: Iterable[str]) -> dict[str, Factors]:
    """The tensors of each layer by the layer's name in the file. Raises ModelError for others, and for half a layer."""
    found: dict[str, Factors] = {}
    for name in header:
        if match := _FACTOR.fullmatch(name):
            setattr(found.setdefault(match["layer"], Factors()), _SIDES[match["side"]], name)
        elif match := _ALPHA.fullmatch(name):
            found.setdefault(match["layer"], Factors()).alpha = name
        else:
            raise ModelError(
                f"{called} holds {name}, which is no factor of a LoRA; give a whole model to --model, or a checkpoint "
                "to `dreamwright models import`"
            )
    for layer, tensors in found.items():
        if not (tensors.down and tensors.up):
            side = "down" if tensors.up else "up"
            raise ModelError(f"the LoRA {called} lacks the {side} factor of {layer}; copy or download it again, whole")
    if not found:
        raise ModelError(f"the LoRA {called} holds no tensors; choose another copy")
    return found


def _check_width(file: LoraFile, base: LoraBase) -> None:
    """Raise ModelError when its cross-attention reads text of another width than the base's."""
    for name, tensors in file.factors.items():
        if re.search(r"attn2[._](?:processor[._])?to_[kv]$", name):
            shape = file.header[tensors.down]["shape"]
            width = shape[1] if len(shape) > 1 else 0
            if width != base.width:
                other = f"{BASES[width]}, whose text" if width in BASES else "a model whose text"
                raise ModelError(
                    f"{file.called} is a LoRA of {other} has width {width}; {base.name} is of {base}, of width "
                    f"{base.width}; choose a LoRA of that base, or the model that it was trained on"
                )
            return
