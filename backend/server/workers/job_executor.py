# SPDX-License-Identifier: GPL-3.0-or-later
"""One attempt at a job of any kind, inside the fence: from its newest checkpoint to a mesh. Opens no sockets."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dreamwright.shared.failure_causes import FailureCause
from dreamwright.shared.limits import MESSAGE_CHARACTERS
from dreamwright.shared.live_mesh_messages import LiveMeshFrame
from dreamwright.shared.messages import PreviewFrame

from ..jobs.preview_file import write_preview
from ..monitoring.logging_setup import redact
from .fencing import SupersededError, check_fence, lock
from .worker_protocol import (
    JobFinished,
    LiveMeshReport,
    PreviewReport,
    ProgressReport,
    Report,
    RunJob,
    StatusReport,
)

if TYPE_CHECKING:
    from ...scenes.interfaces import RunState
    from ...training.events import Event
    from ...training.job import Job
    from ...training.pipeline import TextTo3DPipeline
    from .job_inputs import JobInputs

log = logging.getLogger(__name__)

REPORT_S = 0.2  # shortest time between two reports of steps
MESH_FILE = "mesh.dwm"
INITIAL_FIELD_FILE = "initial_field.safetensors"  # in the job's folder since it was submitted with a parent job


class JobExecutor:
    """Runs a job once. `send` takes its reports, of which `JobFinished` is the last.

    `requested_stop` is asked after every step, and while the attempt waits: "pause", "cancel" or "" to go on.
    `is_watched`: whether live meshes are wanted, asked after every step.
    """

    def __init__(
        self,
        order: RunJob,
        device: str,
        send: Callable[[Report], None],
        requested_stop: Callable[[], str],
        is_watched: Callable[[], bool] = lambda: False,
    ) -> None:
        self._order, self._folder, self._device = order, Path(order.folder), device
        self._checkpoints = self._folder / "checkpoints"
        self._send, self._requested_stop, self._is_watched = send, requested_stop, is_watched
        self._stop_mode = ""  # the newest answer of `requested_stop` but ""
        self._reported = 0.0
        self._mesh_sha256 = ""  # of the mesh file, once it is written
        self._preview: PreviewFrame | None = None  # the newest
        self._notes: list[str] = []  # what the job says to its end

    def _should_stop(self) -> bool:
        self._stop_mode = self._requested_stop() or self._stop_mode
        return bool(self._stop_mode)

    def run(self) -> FailureCause:
        """Run the attempt and report how it ended; returns the cause of a failure, NONE otherwise.

        Waits until the worker of an earlier attempt has ended. Ends without writing when a later attempt began.
        """
        from ...errors import StoppedError
        from .failure_policy import classify, describe

        redact(self._order.prompt, self._order.negative)
        try:
            with lock(self._folder, self._order.attempt, self._wait_for_lock) as is_held:
                try:
                    finished = self._train() if is_held else self._not_started()
                finally:
                    self._keep_preview()
        except SupersededError as error:  # ignored by the server, unless the fence itself is lost
            finished = self._finished("failed", str(error), cause=FailureCause.FAULT)
        except _DiskFullError as error:
            message = f"{error}; make room there, then resume: it goes on from its checkpoint"
            finished = self._finished("paused", message, cause=FailureCause.NO_SPACE)
        except StoppedError:
            finished = self._not_started()
        except Exception as error:
            cause = classify(error)
            if cause in (FailureCause.FAULT, FailureCause.DEVICE_FAULT):
                log.exception("attempt failed by a fault of Dreamwright or the device", extra=self._log_fields())
            finished = self._finished("failed", describe(error, cause), cause=cause)
        self._send(finished)
        return FailureCause(finished.cause)

    def _log_fields(self) -> dict[str, object]:
        return {"job": self._order.job, "attempt": self._order.attempt}

    def _wait_for_lock(self) -> bool:
        """Asked while an earlier worker of this job still runs; whether to stop waiting."""
        self._report_status("waiting for the end of the worker that had this job before")
        return self._should_stop()

    def _not_started(self) -> JobFinished:
        """The end of a job that was stopped before its first step."""
        if self._stop_mode == "pause":
            return self._finished("paused")
        return self._finished("cancelled", "stopped before the first step; there is no mesh")

    def _train(self) -> JobFinished:
        """Take the job's steps and make its mesh."""
        from ...errors import DreamwrightError
        from ...training.events import Checkpoint
        from .job_inputs import read_inputs

        inputs = read_inputs(self._order)
        if inputs.initial_field is not None:
            redact(self._order.prompt, self._order.negative, inputs.initial_field.prompt)
        pipeline = self._load(inputs)
        notices = "; ".join(pipeline.notices)
        log.info("attempt begins", extra={**self._log_fields(), "step": pipeline.step, "notices": notices})
        self._notes += pipeline.warnings
        self._report_status(*self._notes, *pipeline.needs)  # until a step or a stage has more to say
        for event in pipeline.events():
            if isinstance(event, Checkpoint):
                self._write_checkpoint(pipeline.job, event.state)
            else:
                self._report_event(event)
        if self._stop_mode == "pause" and not pipeline.is_done:
            return self._finished("paused", *self._notes)
        is_cancelled = self._stop_mode == "cancel"
        self._report_status(*self._notes, "making the mesh", stage="meshing")
        try:
            self._write_mesh(pipeline, inputs)
        except DreamwrightError as error:
            if not is_cancelled:
                raise
            return self._finished("cancelled", *self._notes, f"no mesh yet: {error}")
        if pipeline.scene.has_field:
            self._save_field(pipeline)
        # The server removes the last checkpoint once it has recorded the end.
        return self._finished("cancelled" if is_cancelled else "succeeded", *self._notes, meshed=True)

    def _load(self, inputs: JobInputs) -> TextTo3DPipeline:
        """The pipeline at the job's newest usable checkpoint, or at its beginning."""
        from ...errors import CheckpointError
        from ...training.checkpoints import has_checkpoint, read_checkpoint
        from ...training.job import identify_model
        from ...training.pipeline import TextTo3DPipeline
        from ..requests import job_of
        from .failure_policy import memory_notice

        job = job_of(self._order)
        if inputs.initial_field is not None:
            job = replace(job, initial_field=inputs.initial_field.digest)
        self._notes = list(filter(None, [memory_notice(self._order.cause, self._order.settings)]))
        self._report_status(*self._notes, "loading the model")
        job = identify_model(job)

        def pipeline(resume: RunState | None) -> TextTo3DPipeline:
            return TextTo3DPipeline(
                job,
                self._device,
                resume,
                self._should_stop,
                initial_field=inputs.initial_field,
                input_mesh=inputs.input_mesh,
                is_watched=self._is_watched,
            )

        if not has_checkpoint(self._checkpoints):
            return pipeline(None)
        before = list(self._notes)
        try:
            restored = read_checkpoint(self._checkpoints, job)
            if restored.notice:
                self._notes.append(restored.notice)
                self._report_status(*self._notes, "loading the model")
            return pipeline(restored.state)
        except CheckpointError as error:
            # The job itself is known, so only the steps so far are lost.
            log.warning("checkpoints cannot be used", extra={**self._log_fields(), "why": str(error)})
        self._notes = [*before, "its checkpoints could not be used (the worker's log says why), so it began anew"]
        self._report_status(*self._notes, "loading the model")
        return pipeline(None)

    def _write_checkpoint(self, job: Job, state: RunState) -> None:
        """Write a checkpoint. Raises SupersededError and _DiskFullError."""
        from ...errors import CheckpointError
        from ...training.checkpoints import NEWEST, write_checkpoint

        check_fence(self._folder, self._order.attempt)
        try:
            write_checkpoint(self._checkpoints, job, state)
        except CheckpointError as error:
            _discard(self._checkpoints / f"{NEWEST}.part")
            raise _DiskFullError(str(error).partition(";")[0]) from error

    def _write_mesh(self, pipeline: TextTo3DPipeline, inputs: JobInputs) -> None:
        """Make the mesh and write its file. A cancel while its texture is baked leaves the texture out.

        Raises SupersededError, _DiskFullError, and RunError when there is no surface.
        """
        from dreamwright.shared.mesh_file import MeshFile, Texture, encode_mesh

        before = self._stop_mode

        def stop_baking() -> bool:
            return self._should_stop() and self._stop_mode == "cancel" != before

        def report_share(share: float) -> None:
            self._report_status(*self._notes, f"baking the texture, {100 * share:.0f} %")

        mesh, report = pipeline.mesh(report_share, stop_baking)
        texture = None
        if mesh.texture is not None:
            texture = Texture(mesh.texture.png(), mesh.texture.unwrapping.uv, mesh.texture.unwrapping.corners)
        facts = {
            **inputs.facts,
            **pipeline.provenance(),
            "triangles": report.triangles,
            "watertight": report.watertight,
        }
        data = encode_mesh(MeshFile(mesh.vertices, mesh.faces, mesh.normals, mesh.albedo, facts, texture))
        self._mesh_sha256 = hashlib.sha256(data).hexdigest()
        partial = self._folder / f"{MESH_FILE}.part"
        check_fence(self._folder, self._order.attempt)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # on disk before the server records it
            check_fence(self._folder, self._order.attempt)  # again, since a slow shared disk takes its time
            os.replace(partial, self._folder / MESH_FILE)
        except OSError as error:
            _discard(partial)
            raise _DiskFullError(f"cannot write the mesh to {self._folder}: {error.strerror or error}") from error
        if pipeline.job.scene == "field" and pipeline.job.config.mesh.texture and texture is None:
            self._notes.append("stopped while its texture was baked, so it has vertex colors")
        self._notes.extend(report.warnings)

    def _save_field(self, pipeline: TextTo3DPipeline) -> None:
        """Keep the field beside the mesh, for a job that starts from it; the mesh is complete without it."""
        from ...errors import CheckpointError
        from ...scenes.initial_field import FIELD_FILE, save_field

        check_fence(self._folder, self._order.attempt)
        try:
            save_field(self._folder, pipeline.job, pipeline.state())
        except CheckpointError as error:
            _discard(self._folder / FIELD_FILE)
            log.warning("field not kept", extra={**self._log_fields(), "why": str(error)})
            self._notes.append("the disk had no room for its field, so no other prompt can start from it")

    def _report_status(self, *messages: str, stage: str = "") -> None:
        message = "; ".join(messages)[:MESSAGE_CHARACTERS]
        self._send(StatusReport(self._order.job, "", message, self._order.attempt, stage))

    def _finished(
        self, how: str, *messages: str, meshed: bool = False, cause: FailureCause = FailureCause.NONE
    ) -> JobFinished:
        message = "; ".join(filter(None, messages))[:MESSAGE_CHARACTERS]
        sha256 = self._mesh_sha256 if meshed else ""
        return JobFinished(self._order.job, how, message, meshed, self._order.attempt, cause.value, sha256)

    def _keep_preview(self) -> None:
        """Write the newest preview beside the mesh, for lists of jobs; a job is none the worse without it."""
        if self._preview is None:
            return
        try:
            check_fence(self._folder, self._order.attempt)
            write_preview(self._folder, self._preview)
        except (OSError, SupersededError) as error:
            log.warning("preview not kept", extra={**self._log_fields(), "why": str(error)})

    def _report_event(self, event: Event) -> None:
        from dreamwright.shared.live_mesh import encode_live_mesh

        from ...training import events

        job, attempt = self._order.job, self._order.attempt
        if isinstance(event, events.StepCompleted):
            now = time.monotonic()
            if now - self._reported >= REPORT_S or event.step == event.steps:
                self._reported = now
                self._send(ProgressReport(job, event.step, event.steps, event.elapsed_s, event.eta_s, attempt))
        elif isinstance(event, events.Preparing):
            # Before its first step ends, the long work counts as the making of a mesh, which may take its time.
            self._report_status(*self._notes, *filter(None, [event.what]), stage="meshing" if event.what else "")
        elif isinstance(event, events.Preview):
            height, width = event.image.shape[:2]
            self._preview = PreviewFrame(job, event.step, width, height, zlib.compress(event.image.tobytes(), 1))
            self._send(PreviewReport(self._preview, attempt))
        elif isinstance(event, events.LiveMeshMade):
            mesh = event.mesh
            data = encode_live_mesh(mesh.vertices, mesh.colors, mesh.faces)
            self._send(
                LiveMeshReport(LiveMeshFrame(job, event.step, len(mesh.vertices), len(mesh.faces), data), attempt)
            )
        elif isinstance(event, events.Health):
            self._send(StatusReport(job, event.verdict, "", attempt))
        elif isinstance(event, events.Restarted):
            self._report_status(f"started again with seed {event.new_seed}: {event.reason}")


class _DiskFullError(Exception):
    """A file of the job could not be written; the job waits until there is room."""


def _discard(path: Path) -> None:
    """Remove an incomplete file, to make room for others."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("incomplete file stays", extra={"path": str(path), "why": str(error)})


def file_hash(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        return file.tell(), digest.hexdigest()
