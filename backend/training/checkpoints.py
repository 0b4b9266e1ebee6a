# SPDX-License-Identifier: GPL-3.0-or-later
"""The checkpoints of a run's work folder: written whole, the one before kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from ..errors import CheckpointError
from ..scenes.interfaces import RunState
from ..scenes.state_file import (
    FORMAT,
    NEWEST,
    PREVIOUS,
    VERSION,
    RunIdentity,
    UnusableCheckpointError,
    disk_error,
    read_state,
    write_state,
)

__all__ = [
    "FORMAT",
    "NEWEST",
    "PREVIOUS",
    "VERSION",
    "Restored",
    "check_work_folder",
    "has_checkpoint",
    "read_checkpoint",
    "remove_checkpoints",
    "write_checkpoint",
]


@dataclass(frozen=True)
class Restored:
    """A state from disk, and a notice when the newest file could not be used ("" otherwise)."""

    state: RunState
    notice: str


def write_checkpoint(folder: Path, job: RunIdentity, state: RunState) -> Path:
    """Write beside, rename, keep the one before. Raises CheckpointError when the disk refuses."""
    newest, previous = folder / NEWEST, folder / PREVIOUS
    partial = folder / f"{NEWEST}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_state(partial, job, state)
        if newest.is_file():
            os.replace(newest, previous)
        os.replace(partial, newest)
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error in one of its own
        raise disk_error(folder, error) from error
    return newest


def remove_checkpoints(folder: Path) -> None:
    """Delete what `write_checkpoint` wrote, and the folder if that leaves it empty: it may hold files of the user."""
    for name in (NEWEST, PREVIOUS, f"{NEWEST}.part"):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError:
            continue  # a leftover is no reason to fail a run whose mesh is written
    try:
        folder.rmdir()
    except OSError:
        return  # not empty, or not there


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder holds anything to resume."""
    return any((folder / name).is_file() for name in (NEWEST, PREVIOUS))


def check_work_folder(folder: Path, resume: bool) -> None:
    """Raise CheckpointError for a work folder that holds a checkpoint although `resume` is False."""
    if has_checkpoint(folder) and not resume:
        raise CheckpointError(
            f"{folder} holds the checkpoint of an unfinished run; add --resume to continue it, or delete the folder to "
            "start afresh"
        )


def read_checkpoint(folder: Path, job: RunIdentity) -> Restored:
    """The newest readable state of this job. Raises CheckpointError: none, corrupt, newer version, another job."""
    problems = []
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            state = read_state(path, job)
        except UnusableCheckpointError as damage:
            problems.append(f"{path.name} {damage}")
            continue
        notice = f"{problems[0]}; went back to the one before, step {state.step}" if problems else ""
        return Restored(state, notice)
    found = "; ".join(problems) or f"no checkpoint in {folder}"
    raise CheckpointError(f"{found}; start afresh without --resume, or give the folder of another run")
