# SPDX-License-Identifier: GPL-3.0-or-later
"""The retry rule: why an attempt failed, and whether its job is retried, retried with less memory, or failed.

All functions are pure. `classify` (an exception in the worker) and `classify_status` (the exit status of a process)
name the cause; `decide` looks it up in `FAILURE_ACTIONS`.
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
    InsufficientMemoryError,
    ModelError,
    NonFiniteError,
    PromptError,
    is_device_fault,
    is_out_of_memory,
    one_line,
)


class FailureAction(Enum):
    """How a job whose attempt failed can be retried; both resume from its newest checkpoint."""

    RETRY_WITH_LESS_MEMORY = "retry-with-less-memory"  # with settings that change rounding errors only
    RETRY = "retry"  # up to a number of attempts in a row without progress


# Tried in order. When none applies the job fails, with a message that says what to do.
FAILURE_ACTIONS: Mapping[FailureCause, tuple[FailureAction, ...]] = {
    FailureCause.KILLED: (FailureAction.RETRY,),
    FailureCause.CRASHED: (FailureAction.RETRY,),
    FailureCause.HANG: (FailureAction.RETRY,),
    # Another program may have used the memory, so a plain retry can succeed as well.
    FailureCause.MACHINE_MEMORY: (FailureAction.RETRY_WITH_LESS_MEMORY, FailureAction.RETRY),
    FailureCause.MEMORY: (FailureAction.RETRY_WITH_LESS_MEMORY,),
    FailureCause.DEVICE_FAULT: (FailureAction.RETRY,),
    # A retry would compute the same numbers; the run has already tried other seeds (`run.max_restarts`).
    FailureCause.NOT_A_NUMBER: (),
    FailureCause.RUN_FAILED: (),
    FailureCause.BAD_INPUT: (),
    FailureCause.NO_SPACE: (),
    FailureCause.FAULT: (),
    FailureCause.NONE: (),
}
ADVICE: Mapping[FailureCause, str] = {
    FailureCause.KILLED: "find out what kills it; the worker's log in {logs} shows how far it got",
    FailureCause.CRASHED: "see the worker's log in {logs}; a driver or a library is the likeliest reason",
    FailureCause.HANG: "check the device and its driver, or allow more time with --hang-minutes",
    FailureCause.MACHINE_MEMORY: "give the machine more memory, run fewer workers, or choose a smaller model",
    FailureCause.DEVICE_FAULT: "see the worker's log in {logs}; restart the device or its driver",
}
# Signals that a process causes itself.
CRASH_SIGNALS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP")
MEMORY_SETTINGS = ("run.views_at_once", "model.vae_recompute")  # that `reduce_memory_settings` changes


@dataclass(frozen=True)
class RetryDecision:
    """What becomes of a job: retried or failed, with what message, and with which settings changed."""

    retry: bool
    message: str
    attempts: int  # in a row without progress, as counted from now on
    settings: Mapping[str, Any]  # to change; empty for none


def classify(error: BaseException) -> FailureCause:
    """The cause of an exception that ended a run."""
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
    """The message that a job fails with."""
    if isinstance(error, DreamwrightError):
        return str(error)
    if cause is FailureCause.MEMORY:
        return f"out of memory: {error}; use fewer views, samples or a smaller model"
    if cause is FailureCause.DEVICE_FAULT:
        return f"the device failed: {one_line(error)}"
    return f"{type(error).__name__}: {error} (a fault of Dreamwright; the server's log has more)"


def classify_status(status: int, oom_killed: bool) -> tuple[FailureCause, str]:
    """(cause, description) of a process that exited with `status` and without a result.

    A negative status is the number of a signal. `oom_killed`: the kernel has killed processes for lack of memory since
    the attempt began.
    """
    if status >= 0:
        return FailureCause.CRASHED, f"its worker process exited without a result (status {status})"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name in CRASH_SIGNALS:
        return FailureCause.CRASHED, f"its worker process crashed ({name})"
    if name == "SIGKILL" and oom_killed:
        reason = "its worker process was killed (SIGKILL) while the server's machine was out of memory"
        return FailureCause.MACHINE_MEMORY, reason
    return FailureCause.KILLED, f"its worker process was killed ({name})"


def reduce_memory_settings(config: Config, has_vae: bool) -> dict[str, str]:
    """Settings that lower a run's memory and change its rounding errors only; empty when none is left."""
    changes = {}
    if config.splits_further:
        changes["run.views_at_once"] = "1"
    if has_vae and not config.model.vae_recompute:
        changes["model.vae_recompute"] = "true"
    if config.guidance.rule == "vsd" and not config.guidance.lora_recompute:
        changes["guidance.lora_recompute"] = "true"
    return changes


def decide(
    cause: FailureCause, reason: str, attempts: int, limit: int, less_memory: Mapping[str, Any], logs: str
) -> RetryDecision:
    """What becomes of a job whose attempt failed.

    `attempts` in a row without progress, this one included; at `limit` the job fails. `less_memory`: the result of
    `reduce_memory_settings`. `logs`: the folder of the workers' logs.
    """
    for action in FAILURE_ACTIONS[cause]:
        if action is FailureAction.RETRY_WITH_LESS_MEMORY and less_memory:
            message = f"{reason}; it continues from its checkpoint with {format_settings(less_memory)}"
            return RetryDecision(True, message, 0, less_memory)
        if action is FailureAction.RETRY and attempts < limit:
            return RetryDecision(True, f"{reason}; it continues from its checkpoint", attempts, {})
    if FailureAction.RETRY in FAILURE_ACTIONS[cause]:
        reason = f"{reason}, {attempts} times; {ADVICE[cause].format(logs=logs)}"
    return RetryDecision(False, reason, attempts, {})


def memory_notice(cause: str, settings: Mapping[str, Any]) -> str:
    """A note on what an earlier attempt's lack of memory has changed; "" for nothing."""
    changed = {name: settings[name] for name in MEMORY_SETTINGS if name in settings}
    if cause not in (FailureCause.MEMORY, FailureCause.MACHINE_MEMORY) or not changed:
        return ""
    return f"after running out of memory it continues with {format_settings(changed)}, which changes only rounding"


def format_settings(settings: Mapping[str, Any]) -> str:
    """Settings as `--set` takes them, separated by commas."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())
