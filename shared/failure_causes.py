# SPDX-License-Identifier: GPL-3.0-or-later
"""Causes of a failed attempt at a job: one code for server, client, panel, log and tests."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class FailureCause(str, Enum):
    """The value is sent over the wire."""

    NONE = ""
    KILLED = "killed"  # an external signal ended the worker process
    CRASHED = "crashed"  # segmentation fault, abort, or exit without a report
    HANG = "hang"  # no heartbeat for too long; the server killed the worker
    MACHINE_MEMORY = "machine-memory"  # the kernel's out-of-memory killer ended the worker
    MEMORY = "memory"  # an allocation failed, on the device or in main memory
    DEVICE_FAULT = "device-fault"  # the device is unusable for this process
    NOT_A_NUMBER = "not-a-number"  # NaN or infinity, after the run's own restarts
    RUN_FAILED = "run-failed"  # an empty or full field, or a field without a surface
    BAD_INPUT = "bad-input"  # an unusable prompt, setting or model
    NO_SPACE = "no-space"  # the disk is full
    FAULT = "fault"  # a defect of Dreamwright


# For people, to follow "the last attempt ended: ".
CAUSE_DESCRIPTIONS: Mapping[FailureCause, str] = {
    FailureCause.NONE: "",
    FailureCause.KILLED: "its worker was killed",
    FailureCause.CRASHED: "its worker crashed",
    FailureCause.HANG: "its worker hung",
    FailureCause.MACHINE_MEMORY: "the machine ran out of memory",
    FailureCause.MEMORY: "out of memory",
    FailureCause.DEVICE_FAULT: "the device failed",
    FailureCause.NOT_A_NUMBER: "not a number",
    FailureCause.RUN_FAILED: "the run failed",
    FailureCause.BAD_INPUT: "its input cannot be used",
    FailureCause.NO_SPACE: "no space on the disk",
    FailureCause.FAULT: "a defect of Dreamwright",
}
