# SPDX-License-Identifier: GPL-3.0-or-later
"""The field of an earlier run, from which a run of another prompt begins: fine-tuning (the paper's figure 4)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from ..config.schema import RunConfig
from ..errors import CheckpointError
from .interfaces import RunState
from .state_file import (
    NEWEST,
    PREVIOUS,
    RunIdentity,
    UnusableCheckpointError,
    disk_error,
    read_file,
    seed_of,
    write_state,
)

FIELD_FILE = "field.safetensors"
PARTS = (
    "field.",
    "background.",
)  # a run of another prompt takes these over; its optimizer, cameras and noise are fresh


@dataclass(frozen=True)
class InitialField:
    """Tensors of a field and its background by name, the prompt that they were made for, and the file's checksum.

    seed: of the run that made them; None where the file does not say.
    """

    tensors: Mapping[str, Tensor]
    prompt: str
    digest: str
    seed: int | None = None


def first_step(run: RunConfig) -> int:
    """The step at which the schedules of a fine-tuning run begin; one step at least is left to take."""
    return min(round(run.finetune_share * run.steps), run.steps - 1)


def save_field(folder: Path, job: RunIdentity, state: RunState) -> Path:
    """Write the field alone beside a finished run's mesh: a third of a checkpoint, on disk when this returns.

    Raises CheckpointError when the disk refuses.
    """
    path = folder / FIELD_FILE
    partial = path.with_suffix(".part")
    field = {name: tensor for name, tensor in state.tensors.items() if name.startswith(PARTS)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_state(partial, job, replace(state, tensors=field))
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # the first error is the one to report
            partial.unlink(missing_ok=True)
        raise disk_error(folder, error) from error
    return path


def read_initial_field(place: Path) -> InitialField:
    """The field in a file, or in a run's folder. Raises CheckpointError when none can be read there."""
    paths = [place / name for name in (FIELD_FILE, NEWEST, PREVIOUS)] if place.is_dir() else [place]
    problems = []
    for path in paths:
        if not path.is_file():
            continue
        try:
            header, tensors = read_file(path)
        except UnusableCheckpointError as damage:
            problems.append(f"{path.name} {damage}")
            continue
        field = {name: tensor for name, tensor in tensors.items() if name.startswith(PARTS)}
        if field and "sha256" in header:
            return InitialField(field, header.get("prompt", ""), header["sha256"], seed_of(header))
        problems.append(f"{path.name} holds no field")
    found = "; ".join(problems) or f"no field in {place}"
    raise CheckpointError(f"{found}; give the folder of a run that was made with --keep-work, or its {FIELD_FILE}")
