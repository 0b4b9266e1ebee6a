# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a model is loaded from, and those that are missing, by their names and by the pipeline's index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .clip_files import CONFIG, clip_files, clip_lacks, is_clip
from .download_record import read_record
from .families import BY_PIPELINE, MULTI_VIEW_LATENT, Family, pipeline_class, supported
from .json_files import parse_json
from .tokenizer_check import missing_tokenizer_files, tokenizer_files
from .unsafe_weights import unsafe_weights_found
from .weight_files import choose_weights, read_weight_sets, weight_base, weight_sets

INDEX = "model_index.json"
SCHEDULER = "scheduler_config.json"
# Licenses ask to be kept beside the weights.
ROOT_FILES = (INDEX, "domain.json", "LICENSE", "LICENSE.md", "LICENSE.txt")


def family_of(index: Mapping[str, Any], where: str) -> Family:
    """The family of a pipeline by its model_index.json. Raises ModelError for one that is not supported."""
    pipeline = pipeline_class(index)
    family = BY_PIPELINE.get(pipeline)
    if family is None:
        raise ModelError(f"{where} is a {pipeline}; allowed are {supported()}; choose another text-to-image model")
    if family is MULTI_VIEW_LATENT and any(index.get("image_encoder") or ()):
        raise ModelError(
            f"{where} is a {pipeline} with an image_encoder, so it is ImageDream, which starts from an image; allowed "
            "is MVDream, without one; `dreamwright models download mvdream` brings it"
        )
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
    """The files of a repository to download: one variant of each part's weights, half precision first, and no others.

    `index` is the content of model_index.json, or of a CLIP model's config.json. Raises ModelError: an unsupported
    pipeline, a part without safetensors weights or without its small files.
    """
    if is_clip(index):
        return _needed_clip_files(sorted(paths), where)
    family, paths = family_of(index, where), sorted(paths)
    needed = [path for path in paths if path in ROOT_FILES]
    for part in parts_of(family, index):
        names = [path.removeprefix(f"{part}/") for path in paths if path.startswith(f"{part}/")]
        names = [name for name in names if "/" not in name]
        if part in weight_parts(family):
            chosen = [*_needed_weights(names, weight_base(part), where, part), CONFIG]
            lacking = [] if CONFIG in names else [CONFIG]
        elif part == "scheduler":
            chosen, lacking = [SCHEDULER], [] if SCHEDULER in names else [SCHEDULER]
        else:
            chosen, lacking = tokenizer_files(names), missing_tokenizer_files(names)
        if lacking:
            raise ModelError(f"{where} lacks {part}/{lacking[0]}; choose another copy or revision of the model")
        needed += [f"{part}/{name}" for name in sorted(chosen)]
    return needed


def _needed_weights(names: list[str], base: str, where: str, part: str = "") -> list[str]:
    """The files of the best whole variant. Raises ModelError when none is whole."""
    sets = weight_sets(names, base)
    chosen = choose_weights(sets, half=True)
    if chosen is not None:
        return chosen.names
    if sets:
        nearest = min(sets, key=lambda weights: len(weights.missing))
        lacking = f"{part}/{nearest.missing[0]}" if part else nearest.missing[0]
        raise ModelError(f"{where} lacks {lacking}; choose another copy or revision of the model")
    raise ModelError(
        f"{where} holds {unsafe_weights_found(names, part)}; needed are .safetensors files; "
        "choose another copy or revision of the model"
    )


def _needed_clip_files(paths: list[str], where: str) -> list[str]:
    """The files that a CLIP model is loaded from. Raises ModelError when it lacks any."""
    weights = _needed_weights(paths, "model", where)
    if lacking := clip_lacks(paths):
        raise ModelError(f"{where} lacks {lacking[0]}; choose another copy or revision of the model")
    return sorted({*weights, *clip_files(paths), *(path for path in paths if path in ROOT_FILES)})


def is_clip_folder(folder: Path) -> bool:
    """Whether a folder holds a CLIP model rather than a pipeline, by its config.json."""
    if (folder / INDEX).is_file():
        return False
    try:
        return is_clip(parse_json(folder / CONFIG))
    except (OSError, ValueError):
        return False


def file_names(folder: Path) -> list[str]:
    """Names of the files in a folder, sorted; a link to a file that is gone is none. [] without the folder."""
    return sorted(file.name for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be loaded, as paths in it, from names alone; [] for nothing.

    Raises ModelError for a pipeline that is not supported.
    """
    record = read_record(folder)
    recorded = [] if record is None else [file.path for file in record.files if not (folder / file.path).is_file()]
    if record is not None and not (record.complete and (folder / INDEX).is_file()):
        return recorded or ([] if record.complete else ["the end of its download"])
    if is_clip_folder(folder):
        names = file_names(folder)
        return clip_lacks(names) + _missing_weights(folder, "model", "")
    try:
        index = parse_json(folder / INDEX)
    except (OSError, ValueError):
        return [INDEX]
    if not isinstance(index, dict):
        return [INDEX]
    family = family_of(index, str(folder))
    missing = recorded
    for part in parts_of(family, index):
        names = file_names(folder / part)
        if part in weight_parts(family):
            missing += _missing_weights(folder / part, weight_base(part), f"{part}/")
            missing += [] if CONFIG in names else [f"{part}/{CONFIG}"]
        elif part == "scheduler":
            missing += [] if SCHEDULER in names else [f"{part}/{SCHEDULER}"]
        else:
            missing += [f"{part}/{name}" for name in missing_tokenizer_files(names)]
    return list(dict.fromkeys(missing))


def _missing_weights(folder: Path, base: str, prefix: str) -> list[str]:
    """What the weights lack: nothing when a variant is whole, else what the nearest one lacks."""
    sets = read_weight_sets(folder, base)
    if any(not weights.missing for weights in sets):
        return []
    if not sets:
        return [f"{prefix}{base}.safetensors"]
    return [prefix + name for name in min(sets, key=lambda weights: len(weights.missing)).missing]


def loaded_files(folder: Path) -> list[str]:
    """Paths of the files in a folder that a model is loaded from, all variants of its weights among them.

    Raises ModelError for a folder without model_index.json or with a pipeline that is not supported.
    """
    if is_clip_folder(folder):
        names = file_names(folder)
        weights = [name for weights in read_weight_sets(folder, "model") for name in weights.names]
        return sorted({*clip_files(names), *weights, *(name for name in names if name == "domain.json")})
    try:
        content = parse_json(folder / INDEX)
    except FileNotFoundError:
        if read_record(folder) is not None:
            return []
        raise ModelError(
            f"{folder} has no {INDEX}, so it is no diffusers pipeline; give the folder that holds that file"
        ) from None
    except (OSError, ValueError):
        return [INDEX]
    if not isinstance(content, dict):
        return [INDEX]
    family = family_of(content, str(folder))
    found = [INDEX, *(["domain.json"] if (folder / "domain.json").is_file() else [])]
    for part in parts_of(family, content):
        names = file_names(folder / part)
        if part in weight_parts(family):
            sets = read_weight_sets(folder / part, weight_base(part))
            names = sorted({name for weights in sets for name in weights.names} | ({CONFIG} & set(names)))
        elif part == "scheduler":
            names = [name for name in names if name == SCHEDULER]
        else:
            names = tokenizer_files(names)
        found += [f"{part}/{name}" for name in names]
    return found
