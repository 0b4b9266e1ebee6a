# SPDX-License-Identifier: GPL-3.0-or-later
"""A checkpoint in a single file becomes a diffusers folder; no network is asked.

The folder is made beside its place under another name and renamed once it is whole: there is never half a model.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from ..errors import ModelError
from .clip_vocabulary import tokenizer_content
from .download_progress import Progress
from .import_record import ImportRecord, write_import_record
from .record_file import PRIVATE, HubFile
from .registry import BY_NAME
from .single_file_families import FAMILIES, Prediction, SingleFileFamily
from .single_file_kind import SingleFile, identify_single_file
from .user_folders import models_root
from .weight_files import weight_base

if TYPE_CHECKING:
    from .single_file_conversion import ConvertedPart

NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
SMALL_FILES = 4 * 2**20  # bytes; configurations and tokenizers take less
SPARE_BYTES = 64 * 2**20  # left free on the disk, so that the machine goes on working
BLOCK = 2**20


def name_from_file(path: Path) -> str:
    """The name that an import has by default: the file's, without what a name cannot have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip("-.") or "imported"


def named_folder(name: str) -> Path:
    """The folder of an import of that name. Raises ModelError for a name that cannot be one, or is another model's."""
    if not NAME.fullmatch(name):
        raise ModelError(
            f"the name {name!r} cannot be used; allowed are letters, digits, '.', '_' and '-', not first; choose "
            "another with --name"
        )
    if name in BY_NAME:
        raise ModelError(f"{name!r} is the name of a model that is downloaded; choose another with --name")
    return models_root() / name


def import_single_file(
    path: Path,
    folder: Path,
    progress: Progress,
    prediction: Prediction | None = None,
    families: Sequence[SingleFileFamily] = FAMILIES,
) -> ImportRecord:
    """Make the folder from the checkpoint at `path`.

    Raises ModelError, in one line with what to do and before a tensor is read: what `identify_single_file` and
    `plan_parts` refuse, a folder that holds something, no room on the disk; and for a disk that cannot be written.
    """
    single = identify_single_file(path, prediction, families)
    # Not at the top: these libraries take seconds to import, which a file that is refused need not cost.
    from .single_file_conversion import plan_parts

    planned = plan_parts(single)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ModelError(f"{folder} exists already; give another folder with --to or another name with --name")
    try:
        return _write(single, planned, folder, progress)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ModelError(f"the disk of {folder} is full; free some space, or use --to with another disk") from error
        raise ModelError(f"cannot write {folder} ({error.strerror or error}); give another folder with --to") from error


def _write(single: SingleFile, parts: Sequence[ConvertedPart], folder: Path, progress: Progress) -> ImportRecord:
    import diffusers

    from .safetensors_writer import write_safetensors
    from .single_file_conversion import model_index, read_part, scheduler_config

    size, needed = single.path.stat().st_size, sum(part.size for part in parts) + SMALL_FILES
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder.parent).free) < needed + SPARE_BYTES:
        raise ModelError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free and the import needs "
            f"{(needed + SPARE_BYTES) / 1e9:.1f} GB; free some space, or use --to with another disk"
        )
    with _staging(folder) as staging:
        files: list[HubFile] = []

        def text(name: str, content: str) -> None:
            file = staging / name
            file.parent.mkdir(parents=True, exist_ok=True)
            data = content.encode("utf-8")
            file.write_bytes(data)
            files.append(HubFile(name, len(data), sha256=hashlib.sha256(data).hexdigest()))

        progress.begin(size + needed - SMALL_FILES, 0)
        try:
            digest = _digest(single.path, progress)
            text("model_index.json", model_index(single))
            text("scheduler/scheduler_config.json", scheduler_config(single))
            for tokenizer, pad in single.family.pads.items():
                for name, content in tokenizer_content(pad).items():
                    text(f"{tokenizer}/{name}", content)
            for part in parts:
                text(f"{part.name}/config.json", part.config)
                name = f"{part.name}/{weight_base(part.name)}.safetensors"
                found = write_safetensors(staging / name, read_part(single, part), progress.advance)
                files.append(HubFile(name, (staging / name).stat().st_size, sha256=found))
        finally:
            progress.end()
        record = ImportRecord(
            source=single.path.name,
            sha256=digest,
            size=size,
            family=single.family.title,
            prediction=single.prediction,
            like=single.family.like,
            diffusers=diffusers.__version__,
            files=tuple(files),
        )
        write_import_record(staging, record)
        if folder.is_dir():
            folder.rmdir()  # an empty one, which may have been made for this
        os.rename(staging, folder)
    return record


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """The empty folder that an import is made in, removed unless it was renamed. Raises ModelError when in use."""
    staging = folder.with_name(f".{folder.name}.importing")
    (staging / PRIVATE).mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(staging / PRIVATE / "lock", timeout=0):
            try:
                for left in staging.iterdir():  # of an import that was killed
                    if left.name != PRIVATE:
                        shutil.rmtree(left) if left.is_dir() else left.unlink()
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except filelock.Timeout:
        raise ModelError(f"{folder} is being imported by another process; wait for it") from None


def _digest(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            progress.advance(len(block))
    return digest.hexdigest()
