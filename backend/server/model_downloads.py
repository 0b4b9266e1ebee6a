# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads of models to this machine on request: one at a time, each in a child process, so that the server goes on.

What was received stays on the disk, where the next download of that model continues, also after a restart of the
server. A child that is told to stop and does not is killed.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from dreamwright.shared import limits
from dreamwright.shared.errors import RequestError
from dreamwright.shared.model_messages import ModelDownload
from dreamwright.shared.numbers import number_text

from ..io.child_process import close_stdin, start_child
from ..models.disk_use import SPARE_BYTES, free_bytes, received_bytes
from ..models.hub_access import users_environment
from ..models.local import download_folder, find
from ..models.registry import BY_NAME, MODELS, RegisteredModel
from .offered_models import NOT_ALLOWED, download_fault

log = logging.getLogger(__name__)

CHILD_MODULE = "dreamwright.backend.models.download_process"
KILL_AFTER_S = 0.7  # of a child that was told to stop; with the server's step it has ended within a second
READ_BYTES, READS_PER_STEP = 65536, 16
LINE_BYTES = 65536  # of a report; a longer line is not one
RATE_WINDOW_S = 5.0
STALL_S = 1.0  # without a report, after which the rate falls


class DownloadListener(Protocol):
    """What is told of downloads."""

    def publish_download(self, download: ModelDownload) -> None:
        """A download changed."""

    def publish_capabilities(self, revision: int) -> None:
        """The server offers something else."""


class TransferRate:
    """Bytes per second over the last RATE_WINDOW_S seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, time_s: float, received: int) -> None:
        """Note how many bytes had been received at a time."""
        self._samples.append((time_s, received))
        while self._samples[0][0] < time_s - RATE_WINDOW_S:
            self._samples.popleft()

    def note_stall(self, time_s: float) -> bool:
        """Count a time without a report as one in which nothing was received; whether it was long enough."""
        is_stalled = bool(self._samples) and time_s - self._samples[-1][0] >= STALL_S
        if is_stalled:
            self.add(time_s, self._samples[-1][1])
        return is_stalled

    @property
    def per_second(self) -> float:
        """(b1 - b0) / (t1 - t0); 0 while unknown."""
        (begin, before), (end, after) = self._samples[0], self._samples[-1]
        return max(0.0, (after - before) / (end - begin)) if end > begin else 0.0


@dataclass
class _Running:
    """The child of the download that is under way."""

    model: RegisteredModel
    child: subprocess.Popen[bytes]
    unread: bytes = b""  # the beginning of a line
    rate: TransferRate = field(default_factory=TransferRate)
    kill_at: float | None = None  # it was told to stop
    is_done: bool = False
    error: str = ""


class ModelDownloads:
    """The downloads of one server; `step` follows them. `revision` grows whenever what the server offers changes."""

    def __init__(
        self,
        listener: DownloadListener,
        clock: Callable[[], float] = time.monotonic,
        environment: Callable[[], dict[str, str]] = users_environment,
    ) -> None:
        self._listener, self._clock, self._environment = listener, clock, environment
        self._running: _Running | None = None
        self.revision = 0
        self._downloads = {model.name: unfinished for model in MODELS if (unfinished := _unfinished(model))}

    @property
    def downloads(self) -> tuple[ModelDownload, ...]:
        """The newest state of each download, those of earlier servers that can be continued among them."""
        return tuple(self._downloads.values())

    def start(self, name: str, may_manage: bool) -> ModelDownload:
        """Begin or continue a download; the one that runs is left as it is. Raises RequestError."""
        if not may_manage:
            raise RequestError("not-allowed", NOT_ALLOWED)
        model = BY_NAME.get(name)
        if model is None:
            raise RequestError("bad-input", f"there is no registered model {name!r}; allowed are {', '.join(BY_NAME)}")
        if self._running is not None:
            if self._running.model is model and self._running.kill_at is None:
                return self._downloads[name]
            raise RequestError(
                "not-now", f"the server is downloading {self._running.model.name}; stop that first, or wait for its end"
            )
        if fault := download_fault(model, find(model), may_manage):
            raise RequestError("not-now", fault)
        folder = download_folder(model)
        received, total = received_bytes(folder)
        _check_space(model, (total or round(1e9 * model.download_gb)) - received, free_bytes(folder))
        try:
            child = start_child(CHILD_MODULE, {"model": name}, subprocess.PIPE, environment=self._environment())
        except OSError as error:
            raise RequestError("internal", f"the download was not started: {error.strerror or error}") from error
        if child.stdout is not None:
            os.set_blocking(child.stdout.fileno(), False)
        self._running = _Running(model, child)
        log.info("model download started", extra={"model": name, "received": received})
        self._set(ModelDownload(name, "running", received, total, message="Asking the hub"))
        return self._downloads[name]

    def stop(self, name: str, may_manage: bool) -> ModelDownload:
        """Stop a download within a second; what was received is kept. Raises RequestError."""
        if not may_manage:
            raise RequestError("not-allowed", NOT_ALLOWED)
        running = self._running
        if running is not None and running.model.name == name:
            self._tell_to_stop(running)
        elif name not in self._downloads:
            raise RequestError("not-now", f"the server is not downloading {name!r}")
        return self._downloads[name]

    def _tell_to_stop(self, running: _Running) -> None:
        if running.kill_at is None:
            running.kill_at = self._clock() + KILL_AFTER_S
            running.child.terminate()
            self._change(running, state="stopping", rate=0.0, eta_s=-1.0)

    def step(self) -> None:
        """Read the child's reports, tell the listener of the newest, and notice the child's end."""
        running = self._running
        if running is None:
            return
        code = running.child.poll()  # before reading, so that nothing is left in the pipe of an ended child
        before = self._downloads[running.model.name]
        after = self._read(running, before)
        if after == before and after.file and running.rate.note_stall(self._clock()):
            after = _timed(after, running.rate.per_second)
        if after != before:
            self._set(after)
        if code is not None:
            self._end(running, code)
        elif running.kill_at is not None and self._clock() > running.kill_at:
            running.child.kill()

    def close(self) -> None:
        """End the child; its download can be continued."""
        running = self._running
        if running is None:
            return
        self._tell_to_stop(running)
        try:
            running.child.wait(KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            running.child.kill()
        self._end(running, running.child.wait())

    # --- the child

    def _read(self, running: _Running, download: ModelDownload) -> ModelDownload:
        """The download after all reports that have come."""
        if running.child.stdout is None:
            return download
        for _ in range(READS_PER_STEP):
            try:
                data = os.read(running.child.stdout.fileno(), READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            *lines, running.unread = (running.unread + data).split(b"\n")
            running.unread = running.unread[:LINE_BYTES]
            for line in lines:
                download = self._take(running, download, line)
        return download

    def _take(self, running: _Running, download: ModelDownload, line: bytes) -> ModelDownload:
        try:
            report = json.loads(line)
        except ValueError:
            report = None
        if not isinstance(report, dict):
            log.debug("output of a download", extra={"line": line[:500].decode("utf-8", "replace")})
            return download
        if "error" in report:
            running.error = _bounded(report["error"], limits.MESSAGE_CHARACTERS)
        elif "result" in report:
            running.is_done = True
        elif "message" in report:
            return replace(download, message=_bounded(report["message"], limits.MESSAGE_CHARACTERS))
        elif running.kill_at is None and "state" in report:
            running.rate = TransferRate()
            return replace(download, state="checking", file="", rate=0.0, eta_s=-1.0, message="")
        elif running.kill_at is None:
            return self._counted(running, download, report)
        return download

    def _counted(self, running: _Running, download: ModelDownload, report: dict[str, Any]) -> ModelDownload:
        done, total, file = int(report["done"]), int(report["total"]), str(report["file"])
        # While the hub's list is compared with the disk and while files are checked, nothing is received.
        running.rate.add(self._clock(), int(report["received"]) if download.state == "running" else done)
        rate = running.rate.per_second if file or download.state == "checking" else 0.0
        counted = replace(
            download, received_bytes=done, total_bytes=total, file=_bounded(file, limits.VALUE_CHARACTERS)
        )
        return _timed(counted, rate)

    def _end(self, running: _Running, code: int) -> None:
        self._running = None
        self._set(self._ended(running, self._read(running, self._downloads[running.model.name]), code))
        close_stdin(running.child)
        if running.child.stdout is not None:
            running.child.stdout.close()
        ended = self._downloads[running.model.name]
        log.info("model download ended", extra={"model": ended.model, "state": ended.state})
        self.revision += 1
        self._listener.publish_capabilities(self.revision)

    def _ended(self, running: _Running, download: ModelDownload, code: int) -> ModelDownload:
        download = replace(download, rate=0.0, eta_s=-1.0, file="", message="")
        if running.is_done:
            return replace(download, state="done")
        received, total = received_bytes(download_folder(running.model))
        download = replace(download, received_bytes=received, total_bytes=total)
        if running.kill_at is not None:
            return replace(download, state="stopped")
        fallback = f"the download ended with status {code}; start it again, it continues"
        return replace(download, state="failed", message=running.error or fallback)

    def _change(self, running: _Running, **changes: Any) -> None:
        self._set(replace(self._downloads[running.model.name], **changes))

    def _set(self, download: ModelDownload) -> None:
        self._downloads[download.model] = download
        self._listener.publish_download(download)


def _timed(download: ModelDownload, rate: float) -> ModelDownload:
    """The download with its rate and the time left."""
    left = download.total_bytes - download.received_bytes
    return replace(download, rate=rate, eta_s=left / rate if rate > 0 else -1.0)


def _unfinished(model: RegisteredModel) -> ModelDownload | None:
    """The download of a model that an earlier server, or the command line, has left; None when there is none."""
    found = find(model) if model.sources else None
    if found is None or not found.resumable or found.partial is None:
        return None
    return ModelDownload(model.name, "stopped", *received_bytes(found.partial))


def _check_space(model: RegisteredModel, needed: int, free: int) -> None:
    if needed + SPARE_BYTES > free:
        raise RequestError(
            "no-space",
            f"{model.name} needs about {number_text(round((needed + SPARE_BYTES) / 1e9, 1))} GB more and the server's "
            f"disk has {number_text(round(free / 1e9, 1))} GB free; make room there, then download again",
        )


def _bounded(text: Any, characters: int) -> str:
    """A child's text as a message may carry it."""
    return str(text).replace("\0", "").encode("utf-8", "replace").decode()[:characters]
