# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way in which an attempt at a job can end before its time, and what becomes of the job: one table.

Both are pure functions: `classify` (an error in the worker) and `classify_status` (a dead process) name the cause,
`decide` says what is done about it.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dreamwright.shared.failure_causes import FailureCause

from ...config.schema import Config
from ...errors import (
    ConfigError,
    DreamwrightError,
    ModelError,
    NonFiniteError,
    PromptError,
    InsufficientMemoryError,
    is_device_fault,
    is_out_of_memory,
    one_line,
)

__all__ = [
    "FAILURE_ACTIONS",
    "FailureCause",
    "FailureAction",
    "RetryDecision",
    "classify",
    "classify_status",
    "decide",
    "describe",
    "memory_notice",
    "reduce_memory_settings",
]


class FailureAction(Enum):
    """What can be done about a failed attempt."""

    SMALLER = "smaller"  # again from its checkpoint, with settings that take less memory and change roundings only
    AGAIN = "again"  # again from its checkpoint, until so many attempts in a row got no further


# In order; where none applies any more the job fails with a sentence that says what to do.
FAILURE_ACTIONS: Mapping[FailureCause, tuple[FailureAction, ...]] = {
    FailureCause.KILLED: (FailureAction.AGAIN,),
    FailureCause.CRASHED: (FailureAction.AGAIN,),
    FailureCause.HANG: (FailureAction.AGAIN,),
    FailureCause.MACHINE_MEMORY: (
        FailureAction.SMALLER,
        FailureAction.AGAIN,
    ),  # it may have been another program that took the memory
    FailureCause.MEMORY: (FailureAction.SMALLER,),
    FailureCause.DEVICE_FAULT: (FailureAction.AGAIN,),
    # The same numbers would come out again; a run has tried other seeds by itself (`run.max_restarts`).
    FailureCause.NOT_A_NUMBER: (),
    FailureCause.RUN_FAILED: (),
    FailureCause.BAD_INPUT: (),
    FailureCause.NO_SPACE: (),
    FailureCause.FAULT: (),
    FailureCause.NONE: (),
}
ADVICE: Mapping[FailureCause, str] = {
    FailureCause.KILLED: "find out what kills it; the worker's log in {logs} says how far it came",
    FailureCause.CRASHED: "see the worker's log in {logs}; a driver or a library is the likeliest reason",
    FailureCause.HANG: "look at the device and its driver, or allow more time with --hang-minutes",
    FailureCause.MACHINE_MEMORY: "give the machine more memory, run fewer workers, or choose a smaller model",
    FailureCause.DEVICE_FAULT: "see the worker's log in {logs}; restart the device or its driver",
}
FALLS = (
    "SIGSEGV",
    "SIGBUS",
    "SIGFPE",
    "SIGILL",
    "SIGABRT",
    "SIGSYS",
    "SIGTRAP",
)  # signals that a process brings on itself


@dataclass(frozen=True)
class RetryDecision:
    """What becomes of a job: `retry` or failed, what it says, attempts without getting on, and settings to change."""

    retry: bool
    message: str
    attempts: int
    settings: Mapping[str, Any]


def classify(error: BaseException) -> FailureCause:
    """The cause of an error that ended a run."""
    if isinstance(error, InsufficientMemoryError) or is_out_of_memory(error):
        return FailureCause.MEMORY
    if is_device_fault(error):
        return FailureCause.DEVICE_FAULT
    if isinstance(error, NonFiniteError):
        return FailureCause.NOT_A_NUMBER
    if isinstance(error, (ConfigError, PromptError, ModelError)):
        return FailureCause.BAD_INPUT
    return FailureCause.RUN_FAILED if isinstance(error, DreamwrightError) else FailureCause.FAULT


def describe(error: BaseException, cause: FailureCause) -> str:
    """The sentence that a job ends with."""
    if isinstance(error, DreamwrightError):
        return str(error)
    if cause is FailureCause.MEMORY:
        return f"out of memory: {error}; use fewer views, samples or a smaller model"
    if cause is FailureCause.DEVICE_FAULT:
        return f"the device failed: {one_line(error)}"
    return f"{type(error).__name__}: {error} (a fault of Dreamwright; the server's log has more)"


def classify_status(status: int, memory_ran_out: bool) -> tuple[FailureCause, str]:
    """(cause, what happened in words) of a process that ended with this status without a report.

    A negative status is a signal's number. `memory_ran_out`: the kernel has ended processes for want of memory meanwhile.
    """
    if status >= 0:
        return FailureCause.CRASHED, f"its worker process ended without a word (status {status})"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name in FALLS:
        return FailureCause.CRASHED, f"its worker process crashed ({name})"
    if name == "SIGKILL" and memory_ran_out:
        return (
            FailureCause.MACHINE_MEMORY,
            "its worker process was killed (SIGKILL) while the server's machine ended processes for want of memory",
        )
    return FailureCause.KILLED, f"its worker process was killed ({name})"


def reduce_memory_settings(config: Config, has_vae: bool) -> dict[str, str]:
    """Settings that lower the memory of a run and change only its roundings; {} when none is left."""
    run, found = config.run, {}
    if run.views_per_step > 1 and run.views_at_once != 1:
        found["run.views_at_once"] = "1"
    if has_vae and not config.model.vae_recompute:
        found["model.vae_recompute"] = "true"
    return found


def decide(
    cause: FailureCause, reason: str, attempts: int, limit: int, lower: Mapping[str, Any], logs: str
) -> RetryDecision:
    """What becomes of a job whose attempt ended so.

    `attempts`: those in a row that got no further, this one included; `limit` of them end the job. `lower`: what `smaller`
    found. `logs`: the folder of the workers' logs.
    """
    for remedy in FAILURE_ACTIONS[cause]:
        if remedy is FailureAction.SMALLER and lower:
            return RetryDecision(True, f"{reason}; it goes on from its checkpoint with {listed(lower)}", 0, lower)
        if remedy is FailureAction.AGAIN and attempts < limit:
            return RetryDecision(True, f"{reason}; it goes on from its checkpoint", attempts, {})
    if FailureAction.AGAIN in FAILURE_ACTIONS[cause]:
        reason = f"{reason}, {attempts} times; {ADVICE[cause].format(logs=logs)}"
    return RetryDecision(False, reason, attempts, {})


def memory_notice(cause: str, settings: Mapping[str, Any]) -> str:
    """A word at the job's end about what an earlier attempt's want of memory changed; "" for nothing."""
    changed = {name: settings[name] for name in ("run.views_at_once", "model.vae_recompute") if name in settings}
    if cause not in (FailureCause.MEMORY, FailureCause.MACHINE_MEMORY) or not changed:
        return ""
    return f"memory ran out once, so it goes on with {listed(changed)}, which changes nothing but roundings"


def listed(settings: Mapping[str, Any]) -> str:
    """Settings in the words of --set."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())
