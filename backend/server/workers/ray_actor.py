# SPDX-License-Identifier: GPL-3.0-or-later
"""The process on a node of a Ray cluster: a detached actor that runs one attempt and keeps its reports.

It outlives the server, which polls it again when it is back. torch is imported only after Ray has chosen the GPU.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dreamwright.shared import __version__

from ..monitoring.logging_setup import inherit_log
from .fencing import FENCE_FILE
from .job_executor import JobExecutor
from .worker_protocol import JobFinished, RunJob, StatusReport, pack_order, unpack_order

# A finished actor keeps its GPU this long for a server that does not poll it; then its job resumes from a checkpoint.
UNPOLLED_S = 600.0
FOLDER_TIMEOUT_S = 60.0  # NFS may show a node the content of a folder as it was up to a minute ago (acdirmax)
NO_SECRET = ""  # reports travel inside Ray; packing them validates them at the other end


class Mailbox:
    """The newest report of each kind, numbered. Its size is bounded however long nobody polls; no kind is lost."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[int, bytes]] = {}
        self._count = 0
        self._changed = threading.Condition()

    def put(self, report: Any) -> None:
        """Keep a report in place of the earlier one of its kind."""
        kind = "health" if isinstance(report, StatusReport) and report.health else type(report).__name__
        with self._changed:
            self._count += 1
            self._reports[kind] = self._count, pack_order(NO_SECRET, report)
            self._changed.notify_all()

    def after(self, number: int, wait_s: float) -> tuple[int, list[bytes]]:
        """(number for the next call, reports later than `number` in order); waits for one, at most `wait_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > number, wait_s)
            return self._count, [data for count, data in sorted(self._reports.values()) if count > number]


class JobActor:
    """One attempt, in a thread of its own. The constructor cannot fail, so that every failure becomes a report.

    `compute`: "cuda", or "cpu" for clusters that only declare GPUs. `version`: the server's Dreamwright.
    """

    def __init__(self, job: str, attempt: int, order: bytes, compute: str, version: str) -> None:
        self._job, self._attempt, self._order, self._compute, self._version = job, attempt, order, compute, version
        self._mailbox = Mailbox()
        self._is_watched = False
        self._stop_mode, self._stop_seen, self._polled_at = "", False, time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def poll(self, after: int, wait_s: float) -> tuple[int, bool, list[bytes]]:
        """(number for the next call, whether the job has seen the stop, reports since `after`)."""
        self._polled_at = time.monotonic()
        number, reports = self._mailbox.after(after, wait_s)
        return number, self._stop_seen, reports

    def stop(self, mode: str) -> None:
        """See `Runner.stop`."""
        self._stop_mode = mode

    def watch(self, is_watched: bool) -> None:
        """See `Runner.watch`."""
        self._is_watched = is_watched

    def _requested_stop(self) -> str:
        self._stop_seen = bool(self._stop_mode)
        return self._stop_mode

    def _run(self) -> None:
        inherit_log()
        try:
            fault = node_error(self._version, self._compute)  # first: an order of another version may not be readable
            if not fault:
                order: RunJob = unpack_order(NO_SECRET, self._order)
                fault = job_folder_error(Path(order.folder), self._attempt)
            if fault:
                self._mailbox.put(JobFinished(self._job, "failed", fault, False, self._attempt))
            else:
                device = "cuda:0" if self._compute == "cuda" else "cpu"
                JobExecutor(order, device, self._mailbox.put, self._requested_stop, lambda: self._is_watched).run()
            while time.monotonic() - self._polled_at < UNPOLLED_S:
                time.sleep(1.0)
        except BaseException:
            traceback.print_exc()  # into Ray's log of this worker
            raise
        finally:
            os._exit(0)  # an actor whose thread has ended must not look alive


def node_error(version: str, compute: str) -> str:
    """Why this node cannot run jobs of a server of this version, or "". The first function that imports torch."""
    node = socket.gethostname()
    if version != __version__:
        return (
            f"the cluster's node {node} has dreamwright {__version__}, the server has {version}; "
            "install the same version on all machines, then send the job again"
        )
    if compute == "cuda":
        import torch

        if not torch.cuda.is_available():
            return (
                f"the cluster's node {node} declares a GPU that PyTorch does not see there; install the driver and a "
                "PyTorch with CUDA on it, or start its Ray with --num-gpus=0, then send the job again"
            )
    return ""


def job_folder_error(
    folder: Path, attempt: int, timeout_s: float = FOLDER_TIMEOUT_S, sleep: Callable[[float], None] = time.sleep
) -> str:
    """Why this node does not see a job's folder as the server does, or "". Its fence must show it."""
    waited = 0.0
    while True:
        try:
            if int((folder / FENCE_FILE).read_text(encoding="ascii")) >= attempt:
                return ""
            found = "an older state of it"
        except (OSError, ValueError) as error:
            found = getattr(error, "strerror", None) or "an unreadable fence"
        if waited >= timeout_s:
            return (
                f"the cluster's node {socket.gethostname()} does not see the job's folder {folder} as the server does "
                f"({found}); mount the storage that holds the server's --state at the same path on every node, "
                "then send the job again"
            )
        sleep(1.0)
        waited += 1.0
