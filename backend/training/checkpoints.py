# SPDX-License-Identifier: GPL-3.0-or-later
"""Run states on disk: one safetensors file with JSON in its header; written whole, the previous one kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError, one_line
from .events import RunState

FORMAT = "dreamwright-checkpoint"
VERSION = 1
NEWEST, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"


class Job(Protocol):
    """What a checkpoint belongs to: `job.Job`, or a refinement's."""

    @property
    def prompt(self) -> str: ...

    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Restored:
    """A state from disk, and a word about it when the newest file could not be used ("" otherwise)."""

    state: RunState
    notice: str


def write_checkpoint(folder: Path, job: Job, state: RunState) -> Path:
    """Write beside, rename, keep the one before. Raises CheckpointError when the disk refuses."""
    newest, previous = folder / NEWEST, folder / PREVIOUS
    partial = folder / f"{NEWEST}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_state(partial, job, state)
        if newest.is_file():
            os.replace(newest, previous)
        os.replace(partial, newest)
    except (OSError, SafetensorError) as error:  # safetensors wraps what the disk says in an error of its own
        raise refused_by_disk(folder, error) from error
    return newest


def refused_by_disk(folder: Path, error: Exception) -> CheckpointError:
    """What to tell about an error of writing there."""
    reason = getattr(error, "strerror", None) or one_line(error)
    return CheckpointError(
        f"cannot write a checkpoint to {folder}: {reason}; free some space or choose another folder with --work"
    )


def write_state(path: Path, job: Job, state: RunState) -> None:
    """One file with its checksum, as `read_whole` reads it. Raises OSError and SafetensorError."""
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "fingerprint": job.fingerprint(),
        "run": json.dumps({"step": state.step, "seed": state.seed, "restarts": state.restarts}),
        "prompt": job.prompt,
    }
    header["sha256"] = _digest(header, state.tensors)
    save_file({name: tensor.contiguous() for name, tensor in state.tensors.items()}, path, metadata=header)


def remove_checkpoints(folder: Path) -> None:
    """Delete what `write_checkpoint` wrote, and the folder if that leaves it empty: it may be somebody's own."""
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


def read_checkpoint(folder: Path, job: Job) -> Restored:
    """The newest readable state of this job. Raises CheckpointError: none, corrupt, newer version, another job."""
    problems = []
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            state = _read(path, job)
        except UnusableCheckpointError as damage:
            problems.append(f"{path.name} {damage}")
            continue
        notice = f"{problems[0]}; went back to the one before, step {state.step}" if problems else ""
        return Restored(state, notice)
    found = "; ".join(problems) or f"no checkpoint in {folder}"
    raise CheckpointError(f"{found}; start afresh without --resume, or give the folder of another run")


class UnusableCheckpointError(Exception):
    """What is wrong with a file that cannot be read whole, or that a newer dreamwright wrote; the one before may serve."""


def read_whole(path: Path) -> tuple[Mapping[str, str], Mapping[str, Tensor]]:
    """Header and tensors of a file whose checksum holds. Raises UnusableCheckpointError, and CheckpointError for a foreign file."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(f"{path} is no checkpoint of dreamwright; give the --work folder of a run")
            if int(header.get("version", "0")) > VERSION:
                raise UnusableCheckpointError(
                    f"has version {header['version']}, this dreamwright reads up to {VERSION}; update dreamwright"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            # safetensors itself notices a short file, but no flipped bit.
            if "sha256" in header and header["sha256"] != _digest(header, tensors):
                raise ValueError("its contents do not match its checksum")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UnusableCheckpointError(f"is damaged ({one_line(error)})") from error
    return header, tensors


def _read(path: Path, job: Job) -> RunState:
    header, tensors = read_whole(path)
    if header.get("fingerprint") != job.fingerprint():
        raise CheckpointError(
            f"{path} belongs to another run (prompt {header.get('prompt', '?')!r}, or other settings); give the "
            "prompt, model, seed and settings that it was made with, or start afresh without --resume"
        )
    try:
        step, seed, restarts = _whole_numbers(json.loads(header["run"]))
    except (KeyError, ValueError) as error:
        raise UnusableCheckpointError(f"is damaged ({one_line(error)})") from error
    return RunState(step, seed, restarts, tensors)


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a checkpoint: its header without the digest itself, and every tensor's name, type, shape and bytes."""
    told = {name: text for name, text in header.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _whole_numbers(run: object) -> tuple[int, int, int]:
    """step, seed and restarts of a header. Raises ValueError for anything else than whole numbers from 0 on."""
    numbers = tuple(run.get(name) for name in ("step", "seed", "restarts")) if isinstance(run, dict) else ()
    if len(numbers) != 3 or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("its header has no step, seed and restarts")
    return numbers
