# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that reach a person: one line saying what was given, what is allowed and what to do."""

from __future__ import annotations


class DreamwrightError(Exception):
    """Base of every expected failure; the command line prints it without a traceback and exits with `exit_code`."""

    exit_code: int = 2  # 2: the input cannot be used; 1: the run itself failed


class ConfigError(DreamwrightError, ValueError):
    """A setting that cannot be used."""


class InsufficientMemoryError(ConfigError):
    """Settings with which a run needs more memory than is free."""


class PromptError(DreamwrightError, ValueError):
    """A prompt that cannot be used with the chosen model."""


class ModelError(DreamwrightError):
    """A model that is unknown, missing, incomplete or of an unsupported kind."""


class CheckpointError(DreamwrightError):
    """A checkpoint that is corrupt, foreign or made by another configuration."""


class ExportError(DreamwrightError):
    """A mesh or image that cannot be written where or how it was asked for."""


class RunError(DreamwrightError):
    """A run that failed while running: empty, diverged, or fed NaN by its guidance."""

    exit_code = 1


class OutOfMemoryError(RunError):
    """A run that asked for more memory than the device or the machine had left."""


class NonFiniteError(RunError):
    """A run that met NaN or infinity, and again after its restarts where it has any."""


class StoppedError(DreamwrightError):
    """The caller asked to stop before there was anything to keep."""

    exit_code = 130


SHORTAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def one_line(error: BaseException) -> str:
    """An error's first line, or its kind where it says nothing; at most 200 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's, torch's or CUDA's says that memory ran out; by name, since torch may not be loaded.

    torch's allocator for the CPU raises a plain RuntimeError with one of two texts (c10/core/impl/alloc_cpu.cpp); CUDA
    itself and its libraries, when they cannot have what torch's allocator left, one with the name of their error.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in SHORTAGES)


def is_device_fault(error: BaseException) -> bool:
    """Whether CUDA says that something went wrong on the device: it then refuses everything further of this process."""
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "AcceleratorError" or "CUDA error:" in str(error)
    )
