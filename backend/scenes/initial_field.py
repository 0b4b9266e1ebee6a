# SPDX-License-Identifier: GPL-3.0-or-later
"""The field of an earlier run, from which a run of another prompt begins (the paper's figure 4)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from ..config.schema import RunConfig
from ..errors import CheckpointError
from ..training.checkpoints import (
    NEWEST,
    PREVIOUS,
    UnusableCheckpointError,
    read_whole,
    refused_by_disk,
    write_state,
)
from ..training.events import RunState
from ..training.job import Job

FIELD_FILE = "field.safetensors"
PARTS = (
    "field.",
    "background.",
)  # what a run of another prompt takes over; its optimizer, cameras and noise are its own


@dataclass(frozen=True)
class InitialField:
    """Tensors of a field and its background by name, the prompt that they were made for, and the file's checksum."""

    tensors: Mapping[str, Tensor]
    prompt: str
    digest: str


def first_step(run: RunConfig) -> int:
    """Where a run that begins from an origin stands in its schedules before its first step; a step is always left to take."""
    return min(round(run.finetune_share * run.steps), run.steps - 1)


def save_field(folder: Path, job: Job, state: RunState) -> Path:
    """Write the field alone beside a finished run's mesh: a third of a checkpoint, on disk when this returns.

    Raises CheckpointError when the disk refuses.
    """
    path = folder / FIELD_FILE
    partial = path.with_suffix(".part")
    field = {name: tensor for name, tensor in state.tensors.items() if name.startswith(PARTS)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_state(partial, job, RunState(state.step, state.seed, state.restarts, field))
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # the disk has its say already
            partial.unlink(missing_ok=True)
        raise refused_by_disk(folder, error) from error
    return path


def read_initial_field(place: Path) -> InitialField:
    """The field in a file, or in a run's folder. Raises CheckpointError when none can be read there."""
    paths = [place / name for name in (FIELD_FILE, NEWEST, PREVIOUS)] if place.is_dir() else [place]
    problems = []
    for path in paths:
        if not path.is_file():
            continue
        try:
            header, tensors = read_whole(path)
        except UnusableCheckpointError as damage:
            problems.append(f"{path.name} {damage}")
            continue
        field = {name: tensor for name, tensor in tensors.items() if name.startswith(PARTS)}
        if field and "sha256" in header:
            return InitialField(field, header.get("prompt", ""), header["sha256"])
        problems.append(f"{path.name} holds no field")
    found = "; ".join(problems) or f"no field in {place}"
    raise CheckpointError(f"{found}; give the folder of a run that was made with --keep-work, or its {FIELD_FILE}")
