# SPDX-License-Identifier: GPL-3.0-or-later
"""One attempt at a job: from its newest checkpoint to a mesh, inside the fence. Knows no sockets and no processes."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dreamwright.shared.failure_causes import FailureCause
from dreamwright.shared.limits import MESSAGE_CHARACTERS
from dreamwright.shared.messages import PreviewFrame

from ..monitoring.logging_setup import redact
from .fencing import SupersededError, check_fence, lock
from .worker_protocol import JobFinished, StatusReport, PreviewReport, Report, ProgressReport, RunJob

if TYPE_CHECKING:
    from ...scenes.initial_field import InitialField
    from ...training.events import Event, RunState
    from ...training.job import Job
    from ...training.pipeline import TextTo3DPipeline
    from ...training.refine_job import RefineJob
    from .refine_executor import SentRefinement

log = logging.getLogger(__name__)

REPORT_S = 0.2  # shortest time between two reports of steps
MESH_FILE = "mesh.dwm"
ORIGIN_FILE = "origin.safetensors"  # the field that the job begins from, in its own folder since it was submitted


class JobExecutor:
    """Makes a job once. `say` takes its reports, of which `JobFinished` is the last.

    `told_to_stop` is asked after every step, and while something is waited for: "pause", "cancel" or "" to go on.
    """

    def __init__(
        self, work: RunJob, device: str, say: Callable[[Report], None], told_to_stop: Callable[[], str]
    ) -> None:
        self._job, self._folder, self._device = work, Path(work.folder), device
        self._name, self._number = work.job, work.attempt
        self._say, self._told_to_stop = say, told_to_stop
        self._why = ""  # the last word of `told_to_stop`
        self._reported = 0.0
        self._mesh_sha256 = ""  # of the mesh file, once it is written

    def _should_stop(self) -> bool:
        self._why = self._told_to_stop() or self._why
        return bool(self._why)

    def run(self) -> FailureCause:
        """One job, from its newest checkpoint if there is one, to a mesh; every failure becomes a report, and its cause the answer.

        Whoever worked on it before must be gone first; a worker that finds its job given to a later attempt drops it.
        """
        from ...errors import StoppedError
        from .failure_policy import classify, describe

        redact(self._job.prompt, self._job.negative)
        try:
            with lock(self._folder, self._number, self._wait_for_the_one_before) as mine:
                ended = self._produce() if mine else self._ended(*self._unstarted())
        except SupersededError as error:
            ended = self._ended(
                "failed", str(error), cause=FailureCause.FAULT
            )  # the server ignores it, unless the fence itself is lost
        except _DiskRefuses as error:
            ended = self._ended(
                "paused",
                f"{error}; make room there, then resume: it continues from its checkpoint",
                cause=FailureCause.NO_SPACE,
            )
        except StoppedError:  # before the first step, so there is nothing to make a mesh of
            ended = self._ended(*self._unstarted())
        except Exception as error:
            cause = classify(error)
            if cause in (FailureCause.FAULT, FailureCause.DEVICE_FAULT):
                log.exception("attempt failed by a fault of Dreamwright or the device", extra=self._marks())
            ended = self._ended("failed", describe(error, cause), cause=cause)
        self._say(ended)
        return FailureCause(ended.cause)

    def _marks(self) -> dict[str, object]:
        """What every line of the log about it says."""
        return {"job": self._name, "attempt": self._number}

    def _wait_for_the_one_before(self) -> bool:
        """Asked while an earlier worker of this job is not gone yet; True when told to stop waiting."""
        self._note("waiting for the end of the worker that had this job before")
        return self._should_stop()

    def _unstarted(self) -> tuple[str, str]:
        """How a job ends that was told to stop before its first step."""
        return (
            ("paused", "") if self._why == "pause" else ("cancelled", "stopped before the first step; there is no mesh")
        )

    def _produce(self) -> JobFinished:
        from ...errors import CheckpointError, DreamwrightError
        from ...training.checkpoints import has_checkpoint, read_checkpoint
        from ...training.events import Checkpoint
        from ...training.pipeline import TextTo3DPipeline
        from ..requests import job_of
        from .failure_policy import memory_notice
        from .refine_executor import SentRefinement

        job, checkpoints, origin = job_of(self._job), self._folder / "checkpoints", self._origin()
        if origin is not None:
            job = replace(job, origin=origin.digest)
        make = (
            partial(SentRefinement, job, self._folder)
            if self._job.mesh
            else partial(TextTo3DPipeline, job, origin=origin)
        )
        production, told = None, list(filter(None, [memory_notice(self._job.cause, self._job.settings)]))
        if has_checkpoint(checkpoints):
            try:
                restored = read_checkpoint(checkpoints, job)
                if restored.notice:
                    told.append(restored.notice)
                self._note(*told, "loading the model")
                production = make(self._device, restored.state, self._should_stop)
            except CheckpointError as error:
                # No reason to lose the job: what it was asked for is known, only the work so far is lost.
                log.warning("checkpoints cannot be used", extra={**self._marks(), "why": str(error)})
                told = ["its checkpoints could not be used (the worker's log says why), so it began anew"]
        if production is None:
            self._note(*told, "loading the model")
            production = make(self._device, None, self._should_stop)
        log.info(
            "attempt begins", extra={**self._marks(), "step": production.step, "notices": "; ".join(production.notices)}
        )
        told += production.warnings
        self._note(*told)
        for event in production.events():
            if isinstance(event, Checkpoint):
                self._keep(job, event.state)
            else:
                self._report(event)
        if self._why == "pause" and production.step < job.config.run.steps:
            return self._ended("paused", *told)
        cancelled = self._why == "cancel"
        self._note(*told, "making the mesh", stage="meshing")
        try:
            told += self._write_mesh(
                production, lambda share: self._note(*told, f"baking the texture, {100 * share:.0f} %")
            )
        except DreamwrightError as error:
            if not cancelled:
                raise
            return self._ended("cancelled", *told, f"no mesh yet: {error}")
        told += [] if self._job.mesh else self._save_field(production)
        # The last checkpoint stays until the server has written down how it ended.
        return self._ended("cancelled" if cancelled else "succeeded", *told, meshed=True)

    def _origin(self) -> InitialField | None:
        """The field that the job begins from, if it refines another's prompt. Raises CheckpointError."""
        from ...errors import CheckpointError
        from ...scenes.initial_field import read_initial_field

        if not self._job.parent_job:
            return None
        try:
            origin = read_initial_field(self._folder / ORIGIN_FILE)
        except CheckpointError as error:
            told = f"the field of job {self._job.parent_job}, from which it begins, cannot be read: {str(error).partition(';')[0]}"
            raise CheckpointError(f"{told}; refine that job anew, or send the prompt without it") from error
        redact(self._job.prompt, self._job.negative, origin.prompt)
        return origin

    def _keep(self, job: Job | RefineJob, state: RunState) -> None:
        """Write a checkpoint, unless the job is another worker's by now. Raises SupersededError and _DiskRefuses."""
        from ...errors import CheckpointError
        from ...training.checkpoints import NEWEST, write_checkpoint

        check_fence(self._folder, self._number)
        try:
            write_checkpoint(self._folder / "checkpoints", job, state)
        except CheckpointError as error:
            _discard(self._folder / "checkpoints" / f"{NEWEST}.part")
            raise _DiskRefuses(str(error).partition(";")[0]) from error

    def _note(self, *messages: str, stage: str = "") -> None:
        self._say(StatusReport(self._name, "", "; ".join(messages)[:MESSAGE_CHARACTERS], self._number, stage))

    def _ended(
        self, how: str, *messages: str, meshed: bool = False, cause: FailureCause = FailureCause.NONE
    ) -> JobFinished:
        return JobFinished(
            self._name,
            how,
            "; ".join(filter(None, messages))[:MESSAGE_CHARACTERS],
            meshed,
            self._number,
            cause.value,
            self._mesh_sha256 if meshed else "",
        )

    def _write_mesh(
        self, production: TextTo3DPipeline | SentRefinement, progress: Callable[[float], None]
    ) -> list[str]:
        """Make and write the mesh; what there is to tell of it. Told to cancel once there are colors of vertices, it bakes no texture."""
        from dreamwright.shared.mesh_file import MeshFile, Texture, encode_mesh

        before = self._why

        def enough() -> bool:
            return self._should_stop() and self._why == "cancel" != before

        mesh, report = production.mesh(progress, enough)
        picture = None
        if mesh.texture is not None:
            picture = Texture(mesh.texture.png(), mesh.texture.unwrapping.uv, mesh.texture.unwrapping.corners)
        facts = {**production.provenance(), "triangles": report.triangles, "watertight": report.watertight}
        data = encode_mesh(MeshFile(mesh.vertices, mesh.faces, mesh.normals, mesh.albedo, facts, picture))
        self._mesh_sha256 = hashlib.sha256(data).hexdigest()
        temporary = self._folder / f"{MESH_FILE}.part"
        check_fence(self._folder, self._number)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # the server is about to write down that it is there
            check_fence(self._folder, self._number)  # again: on a slow shared disk the writing took its time
            os.replace(temporary, self._folder / MESH_FILE)
        except OSError as error:
            _discard(temporary)
            raise _DiskRefuses(f"cannot write the mesh to {self._folder}: {error.strerror or error}") from error
        stopped = production.job.config.mesh.texture and picture is None
        return ["stopped while its texture was baked, so it has vertex colors"] if stopped else []

    def _save_field(self, production: TextTo3DPipeline) -> list[str]:
        """Keep the field beside the mesh, for a job that refines the prompt; without it the mesh is as good."""
        from ...errors import CheckpointError
        from ...scenes.initial_field import FIELD_FILE, save_field

        check_fence(self._folder, self._number)
        try:
            save_field(self._folder, production.job, production.run.scene.state(production.run.restarts))
        except CheckpointError as error:
            _discard(self._folder / FIELD_FILE)
            log.warning("field not kept", extra={**self._marks(), "why": str(error)})
            return ["the disk had no room for its field, so its prompt cannot be refined"]
        return []

    def _report(self, event: Event) -> None:
        from ...training import events

        if isinstance(event, events.StepCompleted):
            now = time.monotonic()
            if now - self._reported >= REPORT_S or event.step == event.steps:
                self._reported = now
                self._say(
                    ProgressReport(self._name, event.step, event.steps, event.elapsed_s, event.eta_s, self._number)
                )
        elif isinstance(event, events.Preview):
            height, width = event.image.shape[:2]
            self._say(
                PreviewReport(
                    PreviewFrame(self._name, event.step, width, height, zlib.compress(event.image.tobytes(), 1)),
                    self._number,
                )
            )
        elif isinstance(event, events.Health):
            self._say(StatusReport(self._name, event.verdict, "", self._number))
        elif isinstance(event, events.Restarted):
            self._note(f"started again with seed {event.new_seed}: {event.reason}")


class _DiskRefuses(Exception):
    """A file of the job could not be written; the job waits until there is room."""


def _discard(path: Path) -> None:
    """Remove half a file, to leave what room there is to the others."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("half a file stays", extra={"path": str(path), "why": str(error)})


def file_hash(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        return file.tell(), digest.hexdigest()
