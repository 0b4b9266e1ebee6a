# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs, uploads and faults of the fake server, without its sockets."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dreamwright.shared import limits
from dreamwright.shared.mesh_file import MeshFile, decode_mesh, encode_mesh
from dreamwright.shared.messages import (
    Chunk,
    FetchChunk,
    JobChanged,
    JobReply,
    JobSummary,
    Refusal,
    SubmitJob,
    UploadChunk,
    UploadProgress,
)
from tests.testing.fake_props import RED, ball, texture_of


@dataclass
class Faults:
    """Faults to inject; each number counts down to 0."""

    lose_replies: int = 0  # to submissions
    lose_events: int = 0
    lose_chunks: int = 0
    damage_chunks: int = 0
    version: int = limits.PROTOCOL_VERSION
    malformed_replies: bool = False  # reply with malformed bytes
    lose_uploads: int = 0  # replies to upload chunks
    forget_uploads: int = 0  # uploaded meshes, when their submission arrives
    refuse_submit: str = ""
    fail_at: int = 0  # the first job to reach this step fails, and can be resumed


class FakeJobs:
    """Runs one job at a time, in steps of `pace`."""

    def __init__(self, pace: int, steps: int, rings: int) -> None:
        self.pace, self.steps, self.rings = pace, steps, rings
        self.faults = Faults()
        self.jobs: dict[str, JobSummary] = {}
        self.meshes: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}  # by SHA-256, as far as received
        self.tickets: dict[str, str] = {}
        self.changes = 0
        self.step_limit_file: Path | None = None

    def publish(self, make: Callable[[int], Any]) -> None:
        """Send an event to all subscribers, built from each subscriber's event count."""
        raise NotImplementedError

    def publish_preview(self, job: str, step: int) -> None:
        """Send a preview to the subscribers of a job's previews."""
        raise NotImplementedError

    def publish_live_mesh(self, job: str, step: int) -> None:
        """Send a live mesh to those who watch a job."""
        raise NotImplementedError

    def _step_limit(self) -> int:
        """The step that jobs may reach, read from a file, so that tests with slow windows see each step."""
        return int(self.step_limit_file.read_text() or 0) if self.step_limit_file else 1 << 30

    def work(self) -> None:
        """Advance the oldest queued job."""
        running = next((job for job in self.jobs.values() if job.state == "running"), None)
        queued = [job for job in self.jobs.values() if job.state == "queued"]
        if running is None and queued:
            running = self.change(queued[0].job, state="running", queue_position=0)
            for place, job in enumerate(queued[1:], 1):
                self.change(job.job, queue_position=place)
        if running is None or not self.pace:
            return
        step = min(running.steps, running.step + self.pace, max(running.step, self._step_limit()))
        if step == running.step:
            return
        if 0 < self.faults.fail_at <= step:
            self.faults.fail_at = 0
            self.change(
                running.job,
                state="failed",
                step=step,
                cause="memory",
                message="out of memory; lower something",
                resumable=True,
            )
            return
        if step < running.steps:
            left = float(running.steps - step)
            self.change(running.job, step=step, elapsed_s=float(step), eta_s=left, preview_step=step)
        else:
            self.change(running.job, preview_step=step)
            self.finish(running.job, "succeeded")
        self.publish_preview(running.job, step)
        if step < running.steps:
            self.publish_live_mesh(running.job, step)

    def finish(self, job: str, state: str) -> None:
        """End a job with a mesh. A refinement moves the uploaded mesh up by its strength in meters and makes it red."""
        mesh = (
            self.refined(self.jobs[job])
            if self.jobs[job].mesh
            else ball(self.rings, float(self.jobs[job].settings.get("mesh.height_m", 1.0)))
        )
        if self.jobs[job].settings.get("mesh.texture"):
            mesh = replace(mesh, texture=texture_of(mesh, self.jobs[job].settings["mesh.texture"]))
        self.meshes[job] = encode_mesh(mesh)
        digest = hashlib.sha256(self.meshes[job]).hexdigest()
        step = self.jobs[job].steps if state == "succeeded" else self.jobs[job].step
        self.change(
            job,
            state=state,
            step=step,
            mesh_bytes=len(self.meshes[job]),
            mesh_sha256=digest,
            eta_s=-1.0,
            has_field=True,
        )

    def refined(self, job: JobSummary) -> MeshFile:
        """The result of a refinement; faces and vertex order stay."""
        sent, strength = decode_mesh(bytes(self.uploads[job.mesh])), float(job.settings["refine.strength"])
        facts = {name: value for name, value in sent.facts.items() if name.startswith("source_")}
        red = (
            np.tile(np.float32(RED), (len(sent.vertices), 1))
            if job.settings.get("refine.colors", True)
            else sent.albedo
        )
        return replace(
            sent,
            vertices=sent.vertices + np.float32([0, 0, strength]),
            albedo=red,
            facts={**facts, "refined_sha256": job.mesh},
        )

    def change(self, job: str, **fields: Any) -> JobSummary:
        """Change fields of a job and publish it."""
        self.changes += 1
        self.jobs[job] = replace(self.jobs[job], changed=self.changes, **fields)
        self.publish(lambda count: JobChanged(count, self.jobs[job]))
        return self.jobs[job]

    def receive_chunk(self, request: UploadChunk) -> Any:
        have = self.uploads.get(request.sha256, bytearray())
        if request.offset <= len(have) < request.total and request.data:
            have = self.uploads.setdefault(request.sha256, have)
            have += request.data[len(have) - request.offset :]
        if len(have) == request.total and hashlib.sha256(have).hexdigest() != request.sha256:
            del self.uploads[request.sha256]
            return Refusal("not-ready", "the mesh arrived damaged; send it again from its beginning")
        if self.faults.lose_uploads and request.data:
            self.faults.lose_uploads -= 1
            return None
        return UploadProgress(len(have))

    def submit(self, request: SubmitJob) -> Any:
        if self.faults.refuse_submit:
            return Refusal("bad-input", self.faults.refuse_submit)
        if request.mesh and self.faults.forget_uploads:
            self.faults.forget_uploads -= 1
            self.uploads.pop(request.mesh)
        if request.mesh and hashlib.sha256(self.uploads.get(request.mesh, b"")).hexdigest() != request.mesh:
            return Refusal("not-ready", "send the mesh first, then submit again")
        if request.ticket not in self.tickets:
            if request.parent_job and request.parent_job not in self.jobs:
                return Refusal("no-such-job", f"there is no job {request.parent_job}")
            self.changes += 1
            job = f"job-{len(self.jobs) + 1}"
            self.tickets[request.ticket] = job
            waiting = sum(other.state == "queued" for other in self.jobs.values())
            self.jobs[job] = JobSummary(
                job=job, state="queued", prompt=request.prompt, negative=request.negative, model=request.model,
                preset=request.preset, seed=request.seed, settings=request.settings, step=0,
                steps=int(request.settings.get("run.steps", self.steps)), elapsed_s=0.0, eta_s=-1.0,
                queue_position=waiting + 1, health="", message="", submitted_at=time.time(), mesh_bytes=0,
                mesh_sha256="", changed=self.changes, parent_job=request.parent_job, mesh=request.mesh,
                group=request.group, group_index=request.group_index,
            )  # fmt: skip
            self.publish(lambda count: JobChanged(count, self.jobs[job]))
        if self.faults.lose_replies:
            self.faults.lose_replies -= 1
            return None
        return JobReply(self.jobs[self.tickets[request.ticket]])

    def read_chunk(self, request: FetchChunk) -> Any:
        data = self.meshes.get(request.job)
        if data is None:
            return Refusal("not-ready", "there is no mesh yet")
        if self.faults.lose_chunks:
            self.faults.lose_chunks -= 1
            return None
        piece = data[request.offset : request.offset + request.size]
        if self.faults.damage_chunks:
            self.faults.damage_chunks -= 1
            piece = piece[:-1] + bytes([piece[-1] ^ 255])
        return Chunk(request.offset, piece, len(data), hashlib.sha256(data).hexdigest())
