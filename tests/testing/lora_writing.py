# SPDX-License-Identifier: GPL-3.0-or-later
"""Random LoRA files in the naming styles of kohya's scripts, diffusers and peft, and what they must do to weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.testing.ldm_files import ldm_unet_name

Style = Literal["kohya", "kohya-ldm", "peft", "diffusers", "dotted-ldm"]


@dataclass(frozen=True)
class Factors:
    """(rank, inputs...) and (outputs, rank...) of one layer, and alpha."""

    down: Tensor
    up: Tensor
    alpha: float

    def change(self) -> Tensor:
        """alpha / rank B A in float64, a matrix, by a sum over ranks that is written out."""
        rank = self.down.shape[0]
        down, up = self.down.double().reshape(rank, -1), self.up.double().reshape(-1, rank)
        total = torch.zeros(len(up), down.shape[1], dtype=torch.float64)
        for r in range(rank):
            total += torch.outer(up[:, r], down[r])
        return self.alpha / rank * total


def random_factors(shape: tuple[int, ...], rank: int, alpha: float, seed: int) -> Factors:
    """Factors for a weight of that shape, as trainers lay them out."""
    numbers = torch.Generator().manual_seed(seed)
    kernel = (1,) * (len(shape) - 2)
    down = torch.randn(rank, *shape[1:], generator=numbers) / 4
    return Factors(down, torch.randn(shape[0], rank, *kernel, generator=numbers) / 4, alpha)


def tensor_names(style: Style, part: str, layer: str, config: Mapping[str, Any], single: bool) -> tuple[str, str, str]:
    """Names of the down factor, the up factor and alpha. `single`: the pipeline has one text encoder."""
    is_text = part.startswith("text_encoder")
    wrapped = f"text_model.{layer}" if is_text and layer != "text_projection" else layer
    if style in ("kohya", "kohya-ldm"):
        number = "" if single else ("2" if part.endswith("_2") else "1")
        own = ldm_unet_name(layer, config) if style == "kohya-ldm" and not is_text else wrapped
        base = f"lora_te{number}_{own}" if is_text else f"lora_unet_{own}"
        base = base.replace(".", "_")
        return f"{base}.lora_down.weight", f"{base}.lora_up.weight", f"{base}.alpha"
    if style == "dotted-ldm" and not is_text:
        base = f"diffusion_model.{ldm_unet_name(layer, config)}"
        return f"{base}.lora_down.weight", f"{base}.lora_up.weight", f"{base}.alpha"
    base = f"{part}.{wrapped}"
    if style == "diffusers":
        if is_text:
            return f"{base}.lora_linear_layer.down.weight", f"{base}.lora_linear_layer.up.weight", f"{base}.alpha"
        if ".attn" in base:  # its attention processors of old
            base = base.removesuffix(".0").replace("attn1.", "attn1.processor.").replace("attn2.", "attn2.processor.")
            return f"{base}_lora.down.weight", f"{base}_lora.up.weight", f"{base}_lora.alpha"
        return f"{base}.lora.down.weight", f"{base}.lora.up.weight", f"{base}.lora.alpha"
    return f"{base}.lora_A.weight", f"{base}.lora_B.weight", f"{base}.alpha"


def write_lora(
    path: Path,
    factors: Mapping[tuple[str, str], Factors],
    style: Style = "kohya",
    config: Mapping[str, Any] | None = None,
    single: bool = True,
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, str] | None = None,
    with_alpha: bool = True,
) -> Path:
    """A LoRA file with factors by (part, layer)."""
    tensors = {}
    for (part, layer), own in factors.items():
        down, up, alpha = tensor_names(style, part, layer, config or {}, single)
        tensors |= {down: own.down.to(dtype).contiguous(), up: own.up.to(dtype).contiguous()}
        if with_alpha:
            tensors[alpha] = torch.tensor(own.alpha)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=dict(metadata or {}))
    return path
