# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRA files of a run: found by path or name, checked against the pipeline, and added to its weights.

    W' = W + sum over LoRAs of weight * (alpha / rank) * B A        (Hu et al. 2021, eq 3)

The sum is taken in float32 and added once, so that a network that was loaded stays a plain one: it is compiled,
offloaded and sliced as without LoRAs, and a step costs the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import ModelError
from .fingerprint import file_digest
from .lora_choice import SEPARATOR, find_lora, parse_loras
from .lora_layout import LoraLayer, read_lora
from .pipeline_folder import PipelineFolder


@dataclass(frozen=True)
class Lora:
    """A LoRA that fits a pipeline, with the factor that multiplies it. `given`: as the user named it."""

    path: Path
    given: str
    weight: float
    layers: tuple[LoraLayer, ...]

    def changes(self, part: str) -> bool:
        """Whether a part of the pipeline gets other weights by it."""
        return self.weight != 0 and any(layer.part == part for layer in self.layers)


def open_loras(text: str, folder: PipelineFolder, names_only: bool = False) -> tuple[Lora, ...]:
    """The LoRAs of the setting `model.loras`, each proved to fit the pipeline; no weight is read.

    Raises ConfigError and the ModelErrors of `find_lora` and `read_lora`.
    """
    found = []
    for given, weight in parse_loras(text):
        path = find_lora(given, names_only)
        found.append(Lora(path, given, weight, read_lora(path, folder, given)))
    return tuple(found)


def lora_text(loras: Sequence[Lora]) -> str:
    """The setting that opens the same files from any folder."""
    return SEPARATOR.join(f"{lora.path.absolute()}:{lora.weight!r}" for lora in loras)


def text_digest(loras: Sequence[Lora], folder: PipelineFolder) -> str:
    """Identity of the LoRAs that change a text encoder, "" where none does: equal digests, equal embeddings."""
    changing = [lora for lora in loras if any(lora.changes(part) for part in folder.text_encoders)]
    lines = sorted(f"{file_digest(lora.path)} {lora.weight!r}" for lora in changing)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


@torch.no_grad()
def add_loras(model: torch.nn.Module, part: str, loras: Sequence[Lora]) -> None:
    """Add the LoRAs to the weights of a loaded part, in place. Raises ModelError for numbers that are not finite."""
    changes: dict[str, Tensor] = {}
    for lora in loras:
        if not lora.changes(part):
            continue
        with safe_open(lora.path, framework="pt") as content:
            for layer in lora.layers:
                if layer.part == part:
                    delta = lora.weight * _product(content, layer, _weight(model, layer.layer).device)
                    changes[layer.layer] = changes[layer.layer] + delta if layer.layer in changes else delta
        if not all(bool(delta.isfinite().all()) for delta in changes.values()):
            raise ModelError(f"the LoRA {lora.given} holds numbers that are not finite; choose another copy")
    for name, delta in changes.items():
        weight = _weight(model, name)
        weight.copy_(weight.float() + delta.reshape(weight.shape))


def _product(content: Any, layer: LoraLayer, device: torch.device) -> Tensor:
    """(alpha / rank) B A as a matrix (outputs, inputs times the kernel), float32."""
    down, up = (content.get_tensor(name).to(device, torch.float32).flatten(1) for name in (layer.down, layer.up))
    scale = float(content.get_tensor(layer.alpha)) / layer.rank if layer.alpha else layer.scale
    product: Tensor = scale * (up @ down)
    return product


def _weight(model: torch.nn.Module, layer: str) -> torch.nn.Parameter:
    """The weight of a layer; some versions of transformers wrap a text encoder's layers in `text_model`."""
    wrapped = getattr(model, "text_model", None)
    home = wrapped if wrapped is not None and not layer.startswith("text_projection") else model
    weight = home.get_submodule(layer).weight
    if not isinstance(weight, torch.nn.Parameter):
        raise ModelError(f"the layer {layer} has no weight that a LoRA can change; leave --lora out")
    return weight
