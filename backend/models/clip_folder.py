# SPDX-License-Identifier: GPL-3.0-or-later
"""A CLIP folder in the hub's layout: config.json, preprocessor, tokenizer and safetensors weights side by side.

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

from ..errors import ModelError
from .clip_files import CONFIG, PROCESSOR, TOKENIZER, clip_lacks, is_clip
from .config_fields import check_fields
from .families import CLIP_TOKENIZERS
from .json_files import read_object
from .model_files import file_names
from .pipeline_folder import load_checked
from .tokenizer_check import check_tokenizer_files, load_checked_tokenizer
from .weight_files import check_weights, choose_weights, read_weight_sets

BICUBIC = 3  # PIL's number of the filter
# Every published CLIP states these; transformers has a default for each.
PROCESSOR_FIELDS = (
    "size", "crop_size", "resample", "do_resize", "do_center_crop", "do_normalize", "image_mean", "image_std",
)  # fmt: skip


@dataclass(frozen=True)
class Preprocessing:
    """CLIP's image preprocessing: bicubic resize to `shortest` pixels, center crop to `crop`, (x - mean) / std."""

    shortest: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class ClipFolder:
    """A checked folder: its configuration, its image preprocessing, and the class of its tokenizer."""

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
            f"{path} is a model of type {config.get('model_type')!r}; allowed is 'clip' (transformers' CLIPModel); "
            "choose such a model"
        )
    lacking = clip_lacks(file_names(path))
    if lacking:
        raise ModelError(f"{path} lacks {', '.join(lacking)}; download the model again, whole")
    check_fields(path / CONFIG, "CLIPModel", config)
    check_tokenizer_files(path)
    check_weights(path, "model", f"the network of {path}")
    size = config["vision_config"].get("image_size", 224)
    return ClipFolder(path, config, _preprocessing(path, size), _tokenizer_class(path))


def clip_tokenizer(folder: ClipFolder) -> Any:
    """The folder's tokenizer, proved to fit its text tower. Raises ModelError when it does not or cannot be read."""
    rows = folder.config["text_config"].get("vocab_size")
    return load_checked_tokenizer(folder.path, folder.tokenizer_class, f"the tokenizer of {folder.path}", rows)


def clip_network(folder: ClipFolder, dtype: torch.dtype, device: torch.device | str) -> torch.nn.Module:
    """The network in eval mode, frozen. Raises ModelError for weights that are damaged or do not fit config.json."""
    chosen = choose_weights(read_weight_sets(folder.path, "model"), half=dtype == torch.float16)

    def load() -> tuple[torch.nn.Module, Mapping[str, Any]]:
        from_pretrained: Any = transformers.CLIPModel.from_pretrained  # its stub knows one of its two return types
        loaded: tuple[torch.nn.Module, Mapping[str, Any]] = from_pretrained(
            folder.path,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            variant=chosen.variant or None if chosen else None,
            output_loading_info=True,
        )
        return loaded

    return load_checked("network", folder.path, load).to(device).eval().requires_grad_(False)


def _preprocessing(path: Path, image_size: Any) -> Preprocessing:
    stated = read_object(path / PROCESSOR)
    if lacking := [name for name in PROCESSOR_FIELDS if name not in stated]:
        raise ModelError(f"{path / PROCESSOR} lacks {', '.join(lacking)}; download the model again, whole")
    shortest, crop = _side(stated["size"], "shortest_edge"), _side(stated["crop_size"], "height")
    wrong = [name for name in ("do_resize", "do_center_crop", "do_normalize") if stated[name] is not True]
    if (
        wrong
        or stated["resample"] != BICUBIC
        or crop is None
        or crop != image_size
        or shortest is None
        or shortest < crop
    ):
        raise ModelError(
            f"{path / PROCESSOR} asks for another preprocessing than CLIP's (size {stated['size']}, crop "
            f"{stated['crop_size']}, resample {stated['resample']}, off: {', '.join(wrong) or 'nothing'}) for images "
            f"of {image_size} pixels; allowed is bicubic to the shortest edge, a center crop to the network's size, "
            "and normalization; download the model again, whole"
        )
    mean, std = _three_numbers(stated["image_mean"]), _three_numbers(stated["image_std"])
    if mean is None or std is None or min(std) <= 0:
        raise ModelError(
            f"{path / PROCESSOR} has image_mean {stated['image_mean']} and image_std {stated['image_std']}; "
            "needed are three numbers each; download the model again, whole"
        )
    return Preprocessing(shortest, crop, mean, std)


def _side(stated: Any, key: str) -> int | None:
    """Pixels of an edge that is stated as a number or as a mapping."""
    value = stated.get(key) if isinstance(stated, dict) else stated
    return value if isinstance(value, int) else None


def _three_numbers(values: Any) -> tuple[float, float, float] | None:
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, (int, float)) for v in values):
        return None
    return float(values[0]), float(values[1]), float(values[2])


def _tokenizer_class(path: Path) -> str:
    kind = (
        read_object(path / TOKENIZER).get("tokenizer_class", "CLIPTokenizer")
        if (path / TOKENIZER).is_file()
        else "CLIPTokenizer"
    )
    if kind not in CLIP_TOKENIZERS:
        raise ModelError(
            f"{path} has a tokenizer of class {kind!r}; allowed are {', '.join(CLIP_TOKENIZERS)}; choose another model"
        )
    return str(kind)
