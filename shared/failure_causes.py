# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an attempt at a job ended before its time: one word for server, client, panel, log and tests."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class FailureCause(str, Enum):
    """The value is what travels."""

    NONE = ""
    KILLED = "killed"  # a signal from outside ended its process
    CRASHED = "crashed"  # its process fell over: a segmentation fault, an abort, an exit without a word
    HANG = "hang"  # nothing was heard of it for too long, and the server ended its process
    MACHINE_MEMORY = "machine-memory"  # the kernel ended its process, since the machine's memory had run out
    MEMORY = "memory"  # it asked for more memory than the device or the machine gave
    DEVICE_FAULT = "device-fault"  # the device refuses everything further of this process
    NOT_A_NUMBER = "not-a-number"  # NaN or infinity, after the restarts that the run has of its own
    RUN_FAILED = "run-failed"  # an empty or full field, or no surface in it
    BAD_INPUT = "bad-input"  # a prompt, setting or model that cannot be used
    NO_SPACE = "no-space"  # the disk refused a file of the job
    FAULT = "fault"  # a fault of Dreamwright


# For people, after "the last attempt ended: ".
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
    FailureCause.BAD_INPUT: "it cannot be made as asked for",
    FailureCause.NO_SPACE: "no space on the disk",
    FailureCause.FAULT: "a fault of Dreamwright",
}
