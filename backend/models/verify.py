# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a model folder is whole and sound: files, sizes, safetensors headers, and hashes where they are known.

Asks no network: hashes come from the download's record, or from what huggingface_hub left beside the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .clip_files import clip_files
from .download_record import HubFile, hub_hash, read_record
from .required_files import (
    INDEX,
    family_of,
    is_clip_folder,
    missing_files,
    parts_of,
    weight_parts,
)
from .safetensors_header import header_fault


@dataclass(frozen=True)
class VerificationResult:
    """What was found: each fault is "path: what is wrong"; `hashed` of the `checked` files had a known hash."""

    folder: Path
    faults: tuple[str, ...]
    checked: int
    hashed: int
    size: int  # bytes of the checked files

    @property
    def sound(self) -> bool:
        return not self.faults


def verify_folder(folder: Path, count: Callable[[int], object] = lambda read: None) -> VerificationResult:
    """Check every file that the pipeline in `folder` is loaded from; `count` hears of bytes hashed.

    Raises ModelError for a folder without model_index.json or with an unsupported pipeline, and for a record that
    cannot be read; everything else that is wrong is a fault in the verdict.
    """
    expected = expected_files(folder)
    faults = [f"{path}: is missing" for path in missing_files(folder)]
    files = sorted({*present_files(folder), *expected})
    hashed = size = 0
    for name in files:
        path, known = folder / name, expected.get(name)
        if not path.is_file():
            faults += [] if f"{name}: is missing" in faults else [f"{name}: is missing"]
            continue
        size += path.stat().st_size
        hashed += known is not None
        fault = known.mismatch(path, count) if known is not None else ""
        fault = fault or (
            header_fault(path) if path.suffix == ".safetensors" else json_fault(path) if path.suffix == ".json" else ""
        )
        faults += [f"{name}: {fault}"] if fault else []
    return VerificationResult(folder, tuple(dict.fromkeys(faults)), len(files), hashed, size)


def expected_files(folder: Path) -> dict[str, HubFile]:
    """Size and hash of each file whose hash is known, by path."""
    record = read_record(folder)
    if record is not None:
        return {file.path: file for file in record.files}
    found = (hub_hash(folder, folder / name) for name in present_files(folder))
    return {file.path: file for file in found if file is not None}


def present_files(folder: Path) -> list[str]:
    """The files there that a pipeline is loaded from, by path. Raises ModelError as `verify_folder` does."""
    index = folder / INDEX
    if is_clip_folder(folder):
        names = sorted(file.name for file in folder.iterdir())
        return [*clip_files(names), *(name for name in names if name.endswith(".safetensors"))]
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
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
    names = [INDEX]
    for part in parts_of(family, content):
        endings = (".json", ".safetensors") if part in weight_parts(family) else (".json", ".txt", ".model")
        names += [f"{part}/{file.name}" for file in sorted((folder / part).glob("*")) if file.name.endswith(endings)]
    return names


def json_fault(path: Path) -> str:
    """What is wrong with a JSON file, "" for nothing."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return "is no readable JSON"
    return ""
