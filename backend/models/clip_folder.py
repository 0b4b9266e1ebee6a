# SPDX-License-Identifier: GPL-3.0-or-later
"""A CLIP folder as the hub keeps them: config.json, preprocessor, tokenizer and safetensors weights side by side.

Read and checked before a weight is loaded; nothing is fetched, nothing pickled is read, and only the classes named here
are constructed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from ..errors import ModelError, one_line
from .clip_files import CONFIG, PROCESSOR, TOKENIZER, clip_lacks, is_clip
from .families import CLIP_TOKENIZERS
from .json_object import read_object
from .pipeline_folder import load_checked
from .unsafe_weights import unsafe_weights_found

BICUBIC = 3  # PIL's number of the filter


@dataclass(frozen=True)
class Preprocessing:
    """What CLIP's processor does to a picture: bicubic to `shortest` pixels, the middle `crop` of it, (x - mean) / std."""

    shortest: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class ClipFolder:
    """A checked folder: its configuration, how it takes pictures, and the class of its tokenizer."""

    path: Path
    config: Mapping[str, Any]
    preprocessing: Preprocessing
    tokenizer_class: str


def open_clip(folder: str | Path) -> ClipFolder:
    """Check a folder without loading weights.

    Raises ModelError: no folder, another kind of model, files missing or unreadable, a preprocessing that CLIP does not
    use, no safetensors.
    """
    path = Path(folder)
    if not (path / CONFIG).is_file():
        raise ModelError(f"{path} has no {CONFIG}, so it is no CLIP model; give the folder that holds that file")
    config = read_object(path / CONFIG)
    if not is_clip(config):
        raise ModelError(
            f"{path} is a model of type {config.get('model_type')!r}; allowed is 'clip' (transformers' CLIPModel); choose such a model"
        )
    lacking = clip_lacks(file.name for file in path.iterdir())
    if lacking:
        raise ModelError(f"{path} lacks {', '.join(lacking)}; download the model again, whole")
    if not any(path.glob("*.safetensors")):
        held = unsafe_weights_found(file.name for file in path.iterdir())
        raise ModelError(
            f"{path} holds {held}; needed are .safetensors files; choose another copy or revision of the model"
        )
    size = config.get("vision_config", {}).get("image_size", 224)
    return ClipFolder(path, config, _preprocessing(path, size), _tokenizer_class(path))


def clip_tokenizer(folder: ClipFolder) -> Any:
    """The folder's tokenizer. Raises ModelError when its files cannot be read."""
    try:
        return getattr(transformers, folder.tokenizer_class).from_pretrained(folder.path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"cannot load the tokenizer of {folder.path}: {one_line(error)}; download the model again, whole"
        ) from error


def clip_network(folder: ClipFolder, dtype: torch.dtype, device: torch.device | str) -> transformers.CLIPModel:
    """The network in eval mode, frozen. Raises ModelError for weights that are damaged or do not fit the configuration."""
    names = [file.name for file in folder.path.glob("*.safetensors")]
    half = all(".fp16" in name for name in names)

    def load() -> tuple[torch.nn.Module, Mapping[str, Any]]:
        return transformers.CLIPModel.from_pretrained(
            folder.path,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            variant="fp16" if half else None,
            output_loading_info=True,
        )

    return load_checked("network", folder.path, load).to(device).eval().requires_grad_(False)


def _preprocessing(path: Path, image_size: Any) -> Preprocessing:
    said = read_object(path / PROCESSOR)
    shortest, crop = _side(said.get("size", 224), "shortest_edge"), _side(said.get("crop_size", 224), "height")
    wrong = [name for name in ("do_resize", "do_center_crop", "do_normalize") if said.get(name, True) is not True]
    if wrong or said.get("resample", BICUBIC) != BICUBIC or crop != image_size or shortest is None or shortest < crop:
        raise ModelError(
            f"{path / PROCESSOR} asks for another preprocessing than CLIP's (size {said.get('size')}, crop {said.get('crop_size')}, "
            f"resample {said.get('resample')}, off: {', '.join(wrong) or 'nothing'}) for pictures of {image_size} pixels; allowed is "
            "bicubic to the shortest edge, a crop from the middle to the network's size, and normalizing; download the model again, whole"
        )
    mean, std = (said.get(f"image_{name}") for name in ("mean", "std"))
    if not _three(mean) or not _three(std) or min(std) <= 0:
        raise ModelError(
            f"{path / PROCESSOR} has image_mean {mean} and image_std {std}; needed are three numbers each; download the model again, whole"
        )
    return Preprocessing(shortest, crop, tuple(map(float, mean)), tuple(map(float, std)))


def _side(said: Any, key: str) -> int | None:
    """Pixels of an edge, written as a number or as a mapping."""
    value = said.get(key) if isinstance(said, dict) else said
    return value if isinstance(value, int) else None


def _three(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 3 and all(isinstance(v, (int, float)) for v in values)


def _tokenizer_class(path: Path) -> str:
    said = (
        read_object(path / TOKENIZER).get("tokenizer_class", "CLIPTokenizer")
        if (path / TOKENIZER).is_file()
        else "CLIPTokenizer"
    )
    if said not in CLIP_TOKENIZERS:
        raise ModelError(
            f"{path} has a tokenizer of class {said!r}; allowed are {', '.join(CLIP_TOKENIZERS)}; choose another model"
        )
    return str(said)
