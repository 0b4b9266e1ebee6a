# SPDX-License-Identifier: GPL-3.0-or-later
"""MVDream's published weights read into diffusers' U-Net, tensor by tensor (`mvdream_layout`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import safe_open

from .latent_diffusion_names import diffusers_name
from .safetensors_header import read_header

Report = Mapping[str, Sequence[str]]
Places = dict[str, tuple[Path, str]]


def read_network(
    config: Mapping[str, Any], files: Sequence[Path], dtype: torch.dtype
) -> tuple[torch.nn.Module, Report]:
    """The UNet2DConditionModel of `config` with the weights of the files in `dtype`, and the report of `misfits`.

    Where something does not fit, no weight is read.
    """
    network, places, report = _compared(config, files)
    if not any(report.values()):
        network.load_state_dict(_read(places, dtype), assign=True)
    return network, report


def misfits(config: Mapping[str, Any], files: Sequence[Path]) -> Report:
    """Missing, mismatched and unexpected tensors, as `from_pretrained` names them, from the files' headers alone."""
    return _compared(config, files)[2]


def _compared(config: Mapping[str, Any], files: Sequence[Path]) -> tuple[torch.nn.Module, Places, Report]:
    """The network without numbers, file and published name of each of its tensors, and what does not fit."""
    with torch.device("meta"):
        network = diffusers.UNet2DConditionModel.from_config(dict(config))
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    places: Places = {}
    unexpected, mismatched = [], []
    for file in files:
        for published, entry in read_header(file).items():
            name = diffusers_name(published, config["layers_per_block"])
            if name not in wanted or name in places:
                unexpected.append(published)
            elif tuple(entry["shape"]) != wanted[name]:
                mismatched.append(published)
            places[name] = file, published
    missing = [name for name in wanted if name not in places]
    return network, places, {"missing_keys": missing, "mismatched_keys": mismatched, "unexpected_keys": unexpected}


def _read(places: Places, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors by diffusers' names; each file is opened once."""
    tensors = {}
    for file in dict.fromkeys(file for file, _ in places.values()):
        with safe_open(file, framework="pt") as content:
            for name, (home, published) in places.items():
                if home == file:
                    tensors[name] = content.get_tensor(published).to(dtype)
    return tensors
