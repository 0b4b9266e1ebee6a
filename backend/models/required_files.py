# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of a pipeline are needed, which are missing, and what a thing is that is no pipeline: from names alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .clip_files import CONFIG, clip_files, clip_lacks, is_clip
from .download_record import read_record
from .families import BY_PIPELINE, Family, supported
from .safetensors_header import read_header
from .unsafe_weights import PICKLED, refused_kind, unsafe_weights_found

INDEX = "model_index.json"
ROOT_FILES = (
    INDEX,
    "domain.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
)  # licences ask to be kept beside the weights
SMALL = (".json", ".txt", ".model")  # a tokenizer's and a scheduler's files
LORA_FILES = ("adapter_config.json", "pytorch_lora_weights.safetensors")


def family_of(index: Mapping[str, Any], where: str) -> Family:
    """The family of a pipeline by its model_index.json. Raises ModelError for one that is not supported."""
    pipeline = str(index.get("_class_name", "pipeline without a class name"))
    family = BY_PIPELINE.get(pipeline)
    if family is None:
        raise ModelError(f"{where} is a {pipeline}; allowed are {supported()}; choose another text-to-image model")
    return family


def parts_of(family: Family, index: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that the pipeline has, without optional ones that its index leaves empty."""

    def empty(part: str) -> bool:
        return part in family.optional and not any(index.get(part) or ())

    return tuple(part for part in family.parts if not empty(part))


def weight_parts(family: Family) -> frozenset[str]:
    """The parts that hold weights."""
    return frozenset(
        part for part in family.parts if part in (family.network, "vae") or part.startswith("text_encoder")
    )


def needed_files(paths: Iterable[str], index: Mapping[str, Any], where: str) -> list[str]:
    """The files of a repository that the pipeline is loaded from: of each part's weights one safetensors variant, half
    precision first, and nothing else.

    `index` is the model_index.json, or a CLIP model's config.json.
    Raises ModelError: an unsupported pipeline, a part without safetensors or without its small files.
    """
    if is_clip(index):
        return _needed_clip_files(sorted(paths), where)
    family, paths = family_of(index, where), sorted(paths)
    needed = [path for path in paths if path in ROOT_FILES]
    for part in parts_of(family, index):
        names = [path.removeprefix(f"{part}/") for path in paths if path.startswith(f"{part}/")]
        names = [name for name in names if "/" not in name]
        if part in weight_parts(family):
            base = "diffusion_pytorch_model" if part in (family.network, "vae") else "model"
            chosen = _variant(names, base)
            if not chosen:
                raise ModelError(
                    f"{where} holds {unsafe_weights_found(names, part)}; needed are .safetensors files; choose another copy or revision of the model"
                )
            chosen.append("config.json")
        elif part == "scheduler":
            chosen = ["scheduler_config.json"]
        else:
            chosen = [name for name in names if name.endswith(SMALL)]
        if not chosen or not set(chosen) <= set(names):
            lacking = next((name for name in chosen if name not in names), "files")
            raise ModelError(f"{where} lacks {part}/{lacking}; choose another copy or revision of the model")
        needed += [f"{part}/{name}" for name in sorted(chosen)]
    return needed


def _needed_clip_files(paths: list[str], where: str) -> list[str]:
    """The files that a CLIP model is loaded from. Raises ModelError when it lacks any."""
    weights = _variant(paths, "model")
    if not weights:
        raise ModelError(
            f"{where} holds {unsafe_weights_found(paths)}; needed are .safetensors files; choose another copy or revision of the model"
        )
    lacking = clip_lacks(paths)
    if lacking:
        raise ModelError(f"{where} lacks {lacking[0]}; choose another copy or revision of the model")
    return sorted({*weights, *clip_files(paths), *(path for path in paths if path in ROOT_FILES)})


def is_clip_folder(folder: Path) -> bool:
    """Whether a folder holds a CLIP model rather than a pipeline, by its config.json."""
    if (folder / INDEX).is_file():
        return False
    try:
        return is_clip(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _variant(names: list[str], base: str) -> list[str]:
    """One variant of a part's weights: a single file, or a whole set of shards with its index; [] for none."""
    for half in (".fp16", ""):
        single = f"{base}{half}.safetensors"
        if single in names:
            return [single]
        table = f"{base}.safetensors.index{half}.json"
        shard = re.compile(
            rf"{re.escape(base)}{re.escape(half)}-\d+-of-(\d+)\.safetensors|{re.escape(base)}-\d+-of-(\d+){re.escape(half)}\.safetensors"
        )
        shards = [(name, match) for name in names if (match := shard.fullmatch(name))]
        if table in names and shards and len(shards) == int(next(filter(None, shards[0][1].groups()))):
            return [table, *(name for name, _ in shards)]
    return []


def missing_files(folder: Path) -> list[str]:
    """What the folder lacks to be loaded, by a look at names only; [] for nothing. Raises ModelError: unsupported.

    A half-finished download of ours is told by its record, another folder by its own index files.
    """
    record = read_record(folder)
    if record is not None and not (record.complete and (folder / INDEX).is_file()):
        lacking = [file.path for file in record.files if not (folder / file.path).is_file()]
        return lacking or ([] if record.complete else ["the end of its download"])
    if is_clip_folder(folder):
        names = [file.name for file in folder.iterdir()]
        return clip_lacks(names) + ([] if any(name.endswith(".safetensors") for name in names) else ["*.safetensors"])
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [INDEX]
    if not isinstance(index, dict):
        return [INDEX]
    family = family_of(index, str(folder))
    missing = [] if record is None else [file.path for file in record.files if not (folder / file.path).is_file()]
    for part in parts_of(family, index):
        if part not in weight_parts(family):
            found = (folder / part).is_dir() and any((folder / part).iterdir())
            missing += [] if found else [f"{part}/"]
            continue
        weights = sorted((folder / part).glob("*.safetensors"))
        missing += [] if weights else [f"{part}/*.safetensors"]
        missing += [] if (folder / part / "config.json").is_file() else [f"{part}/config.json"]
        missing += missing_shards(folder / part)
    return list(dict.fromkeys(missing))


def missing_shards(part: Path) -> list[str]:
    """Shards that a part's weights need and lack, as "part/name".

    Judged for each set of shards of which one is there (another variant's index may lie beside a single file), by the
    set's own count: "...-00001-of-00002".
    """
    missing = []
    sets: dict[tuple[str, str, int], set[int]] = {}
    for file in part.glob("*-of-*.safetensors"):
        match = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})(\..+)", file.name)
        if match:
            sets.setdefault((match[1], match[4], int(match[3])), set()).add(int(match[2]))
    for (base, tail, count), there in sets.items():
        missing += [f"{part.name}/{base}-{i:05d}-of-{count:05d}{tail}" for i in range(1, count + 1) if i not in there]
    return missing


def foreign_kind(names: Iterable[str]) -> str:
    """What a repository or folder without model_index.json is, in words, by its files' names; "" when nothing tells."""
    names = sorted(names)
    gguf = next((name for name in names if name.lower().endswith(".gguf")), "")
    if gguf:
        return f"holds GGUF weights ({gguf}), quantized for other programs"
    lora = next((n for n in names if n in LORA_FILES or ("lora" in n.lower() and n.endswith(".safetensors"))), "")
    if lora:
        return f"is a LoRA ({lora}): a small change to another model, which is not applied here"
    single = next((n for n in names if "/" not in n and n.endswith((".safetensors", ".ckpt"))), "")
    if single and not any("/" in name and name.endswith(".safetensors") for name in names):
        return f"is a checkpoint in a single file ({single}), not a pipeline folder"
    return ""


def foreign_file(path: Path) -> str:
    """What a single file is that was given as a model, in words."""
    if path.suffix.lower() == ".gguf":
        return "is a GGUF file, quantized for other programs"
    if path.suffix.lower() == ".safetensors":
        try:
            names = read_header(path)
        except ValueError as error:
            return f"is a file that {error}"
        if any(mark in name for name in names for mark in ("lora_", ".lora.", "lokr_", "hada_")):
            return "is a LoRA file: a small change to another model, which is not applied here"
        return "is a checkpoint in a single file"
    kind = refused_kind(path.name)
    danger = ", which can run programs when read" if kind == PICKLED else ""
    return f"is a file of {kind}{danger}" if kind else "is a file"
