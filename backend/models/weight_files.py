# SPDX-License-Identifier: GPL-3.0-or-later
"""Safetensors files of a part's weights: one file, or shards with their index, plain or of a variant.

Names are those that diffusers and transformers write, for a `base` of "diffusion_pytorch_model" or "model":
"base.safetensors", "base.fp16.safetensors", and for shards "base.fp16-00001-of-00002.safetensors" or
"base-00001-of-00002.fp16.safetensors" with "base.safetensors.index.fp16.json".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .json_files import read_object
from .safetensors_header import header_error, read_header
from .unsafe_weights import unsafe_weights_found

HALF = "fp16"
LAST_CHOICES = ("non_ema",)  # weights without the moving average make worse images


@dataclass(frozen=True)
class WeightSet:
    """One variant of a part's weights, "" for the plain one; `missing` names what it lacks to be whole."""

    variant: str
    files: tuple[str, ...]  # safetensors files that are there
    index: str = ""  # the file that maps tensors to shards, "" for a single file
    missing: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All files that are read, the index first."""
        return [*([self.index] if self.index else []), *self.files]


def weight_base(library_part: str) -> str:
    """What weight files of a part are called: diffusers' networks and VAEs have another name than text encoders."""
    is_text = library_part.startswith("text_encoder")
    return "model" if is_text else "diffusion_pytorch_model"


def weight_sets(names: Iterable[str], base: str) -> list[WeightSet]:
    """All variants of which a file is among the names, the plain one first, then by name."""
    shard = re.compile(
        rf"{re.escape(base)}(?:\.([\w-]+?))?-(\d{{5}})-of-(\d{{5}})(?:\.([\w-]+))?\.safetensors", re.ASCII
    )
    single = re.compile(rf"{re.escape(base)}(?:\.([\w-]+))?\.safetensors", re.ASCII)
    table = re.compile(rf"{re.escape(base)}(?:\.([\w-]+))?\.safetensors\.index(?:\.([\w-]+))?\.json", re.ASCII)
    singles: dict[str, str] = {}
    tables: dict[str, str] = {}
    shards: dict[str, list[tuple[str, int, int]]] = {}
    for name in sorted(names):
        if match := shard.fullmatch(name):
            variant = match[1] or match[4] or ""
            shards.setdefault(variant, []).append((name, int(match[2]), int(match[3])))
        elif match := single.fullmatch(name):
            singles[match[1] or ""] = name
        elif match := table.fullmatch(name):
            tables[match[1] or match[2] or ""] = name
    sets = []
    for variant in sorted({*singles, *shards}):
        index = tables.get(variant, "")
        if variant in singles:
            sets.append(WeightSet(variant, (singles[variant],)))
        if variant in shards and (variant not in singles or index):
            found = shards[variant]
            there = {number for _, number, _ in found}
            lacking = [_shard_name(found[0][0], n) for n in range(1, found[0][2] + 1) if n not in there]
            if not index:
                lacking.append(f"{base}.safetensors.index{f'.{variant}' if variant else ''}.json")
            sets.append(WeightSet(variant, tuple(name for name, _, _ in found), index, tuple(lacking)))
    return sets


def choose_weights(sets: Sequence[WeightSet], half: bool) -> WeightSet | None:
    """The variant to load among those that are whole, None when there is none.

    With `half` float16 weights are preferred, else the plain ones; then any other variant by name, "non_ema" last.
    """
    preferred = (HALF, "") if half else ("", HALF)

    def rank(weights: WeightSet) -> tuple[int, str]:
        if weights.variant in preferred:
            return preferred.index(weights.variant), ""
        return (3 if weights.variant in LAST_CHOICES else 2), weights.variant

    return min((weights for weights in sets if not weights.missing), key=rank, default=None)


def read_weight_sets(folder: Path, base: str) -> list[WeightSet]:
    """The variants in a folder of this disk; a link to nothing is no file."""
    if not folder.is_dir():
        return []
    return weight_sets((file.name for file in folder.iterdir() if file.is_file()), base)


def check_weights(folder: Path, base: str, label: str) -> list[WeightSet]:
    """The whole variants in a folder, each with sound headers and an index that agrees with its shards.

    `label` names the part in errors. Raises ModelError that names what is missing, cut off or unreadable.
    """
    sets = read_weight_sets(folder, base)
    whole = [weights for weights in sets if not weights.missing]
    if not whole:
        raise ModelError(_no_weights(folder, base, sets))
    for index in sorted(folder.glob(f"{base}*.index*.json")):
        # The libraries prefer an index to a single file beside it, or the other way round: both must be usable.
        if index.is_file():
            _check_shards_of(index, label)
    for weights in whole:
        for name in weights.files:
            fault = header_error(folder / name)
            if fault:
                raise ModelError(f"cannot load {label}: {name} {fault}; download the model again, whole")
            if not read_header(folder / name):
                raise ModelError(f"cannot load {label}: {name} holds no tensors; download the model again, whole")
    return whole


def _check_shards_of(index: Path, label: str) -> None:
    """Raise ModelError unless every tensor of an index is in the shard that it names."""
    mapped = read_object(index).get("weight_map")
    if not isinstance(mapped, dict) or not mapped:
        raise ModelError(f"{index} has no weight_map from tensors to shards; download the model again, whole")
    tensors: dict[str, set[str]] = {}
    for tensor, name in mapped.items():
        shard = index.parent / str(name)
        if not shard.is_file():
            raise ModelError(f"{index} names {name}, which is missing; download the model again, whole")
        if fault := "" if name in tensors else header_error(shard):
            raise ModelError(f"cannot load {label}: {name} {fault}; download the model again, whole")
        if tensor not in tensors.setdefault(name, set(read_header(shard))):
            raise ModelError(f"{index} places {tensor} in {name}, which lacks it; download the model again, whole")


def _no_weights(folder: Path, base: str, sets: Sequence[WeightSet]) -> str:
    if sets:
        nearest = min(sets, key=lambda weights: len(weights.missing))
        return f"{folder} lacks {', '.join(nearest.missing[:3])}; download the model again, whole"
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    dangling = [name for name in names if name.endswith(".safetensors") and not (folder / name).exists()]
    if dangling:
        return f"{folder / dangling[0]} is a link to a file that is gone; download the model again, whole"
    other = [name for name in names if name.endswith(".safetensors")]
    if other:
        return (
            f"{folder} holds {other[0]}; allowed are {base}.safetensors, {base}.VARIANT.safetensors and shards with "
            "their index; rename the file, or download the model again, whole"
        )
    return (
        f"{folder} holds {unsafe_weights_found(names)}; needed are .safetensors files; download the model again, "
        "whole, with its safetensors"
    )


def _shard_name(like: str, number: int) -> str:
    return re.sub(r"-\d{5}-of-", f"-{number:05d}-of-", like)
