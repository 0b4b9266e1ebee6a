# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification of a model folder: files, sizes, safetensors headers, configurations, tokenizers, and known hashes.

No network is used: hashes come from the record of the download or import, or from what huggingface_hub left beside the
files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .download_record import hub_hash, read_record
from .import_record import read_import_record
from .json_files import json_error
from .model_files import is_clip_folder, loaded_files, missing_files
from .record_file import HubFile
from .safetensors_header import header_error
from .vocabulary_file import read_vocabulary


@dataclass(frozen=True)
class VerificationResult:
    """Faults that were found; `hashed` of the `checked` files had a known hash."""

    folder: Path
    faults: tuple[str, ...]
    checked: int
    hashed: int
    size: int  # bytes of the checked files

    @property
    def sound(self) -> bool:
        return not self.faults


def verify_folder(folder: Path, count: Callable[[int], object] = lambda read: None) -> VerificationResult:
    """Check every file that the pipeline in `folder` is loaded from; `count` is called with numbers of bytes hashed.

    Raises ModelError for a folder without model_index.json or with an unsupported pipeline, and for a record that
    cannot be read; everything else that is wrong is a fault in the result.
    """
    expected = expected_files(folder)
    faults = [f"{path}: is missing" for path in missing_files(folder)]
    files = sorted({*loaded_files(folder), *expected})
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
            header_error(path) if path.suffix == ".safetensors" else json_error(path) if path.suffix == ".json" else ""
        )
        faults += [f"{name}: {fault}"] if fault else []
    faults = list(dict.fromkeys(faults)) or _part_errors(folder)
    return VerificationResult(folder, tuple(faults), len(files), hashed, size)


def _part_errors(folder: Path) -> list[str]:
    """What a run would refuse in files that are all there and readable: parts that do not fit or state too little."""
    # Not at the top: these libraries take seconds to import, and a list of models needs none of them.
    from .clip_folder import clip_tokenizer, open_clip
    from .pipeline_folder import load_scheduler, load_tokenizer, open_pipeline

    try:
        if is_clip_folder(folder):
            clip_tokenizer(open_clip(folder))
        else:
            opened = open_pipeline(folder)
            load_scheduler(opened)
            for part in opened.classes:
                if part.startswith("tokenizer"):
                    load_tokenizer(opened, part)
        read_vocabulary(folder)
    except ModelError as error:
        return [str(error)]
    return []


def expected_files(folder: Path) -> dict[str, HubFile]:
    """Size and hash of each file whose hash is known, by path."""
    record = read_record(folder)
    if record is not None:
        return {file.path: file for file in record.files}
    imported = read_import_record(folder)
    if imported is not None:
        return {file.path: file for file in imported.files}
    found = (hub_hash(folder, folder / name) for name in loaded_files(folder))
    return {file.path: file for file in found if file is not None}
