# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's state as one safetensors file: JSON in its header, a checksum over everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError, one_line
from .interfaces import RunState

FORMAT = "dreamwright-checkpoint"
VERSION = 2
NEWEST, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"


class RunIdentity(Protocol):
    """What a state belongs to."""

    @property
    def prompt(self) -> str: ...

    def fingerprint(self) -> str:
        """Hash of everything that decides the result."""
        ...


class UnusableCheckpointError(Exception):
    """A file that is damaged, or that a newer dreamwright wrote; the checkpoint before it may serve."""


def disk_error(folder: Path, error: Exception) -> CheckpointError:
    """One line about an error of writing there."""
    reason = getattr(error, "strerror", None) or one_line(error)
    return CheckpointError(
        f"cannot write a checkpoint to {folder}: {reason}; free some space or choose another folder with --work"
    )


def write_state(path: Path, job: RunIdentity, state: RunState) -> None:
    """Write one file with its checksum. Raises OSError and SafetensorError."""
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "fingerprint": job.fingerprint(),
        "run": json.dumps({"step": state.step, "seed": state.seed, "restarts": state.restarts}),
        "prompt": job.prompt,
    }
    header["sha256"] = _digest(header, state.tensors)
    save_file({name: tensor.contiguous() for name, tensor in state.tensors.items()}, path, metadata=header)


def read_file(path: Path) -> tuple[Mapping[str, str], Mapping[str, Tensor]]:
    """Header and tensors of a file whose checksum holds.

    Raises UnusableCheckpointError, and CheckpointError for a file of another program.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(f"{path} is no checkpoint of dreamwright; give the --work folder of a run")
            if int(header.get("version", "0")) > VERSION:
                raise UnusableCheckpointError(
                    f"has version {header['version']}, this dreamwright reads up to {VERSION}; update dreamwright"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            # safetensors itself notices a short file, but no flipped bit.
            if "sha256" in header and header["sha256"] != _digest(header, tensors):
                raise ValueError("its contents do not match its checksum")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UnusableCheckpointError(f"is damaged ({one_line(error)})") from error
    return header, tensors


def read_state(path: Path, job: RunIdentity) -> RunState:
    """The state in a file of this job. Raises as `read_file`, and CheckpointError for the state of another job."""
    header, tensors = read_file(path)
    if header.get("fingerprint") != job.fingerprint():
        raise CheckpointError(
            f"{path} belongs to another run (prompt {header.get('prompt', '?')!r}, or other settings or model "
            "weights); give "
            "the prompt, model, seed and settings that it was made with, or start afresh without --resume"
        )
    try:
        step, seed, restarts = _run_numbers(json.loads(header["run"]))
    except (KeyError, ValueError) as error:
        raise UnusableCheckpointError(f"is damaged ({one_line(error)})") from error
    return RunState(step, seed, restarts, tensors)


def seed_of(header: Mapping[str, str]) -> int | None:
    """The seed of the run that wrote a header; None where it does not say."""
    try:
        return _run_numbers(json.loads(header["run"]))[1]
    except (KeyError, ValueError):
        return None


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header without the digest itself, and of every tensor's name, type, shape and bytes."""
    fields = {name: text for name, text in header.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _run_numbers(run: object) -> tuple[int, int, int]:
    """step, seed and restarts of a header. Raises ValueError for anything but integers from 0 on."""
    if isinstance(run, dict):
        step, seed, restarts = (run.get(name) for name in ("step", "seed", "restarts"))
        if type(step) is int and type(seed) is int and type(restarts) is int and min(step, seed, restarts) >= 0:
            return step, seed, restarts
    raise ValueError("its header has no step, seed and restarts")
