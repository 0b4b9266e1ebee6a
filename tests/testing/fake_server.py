# SPDX-License-Identifier: GPL-3.0-or-later
"""A small server that speaks the protocol, makes a prop in no time, and misbehaves on request.

In a test: `server.step()` by hand. For Blender: `python -m tests.testing.fake_server` prints its address and serves.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from dreamwright.shared import limits
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.mesh_file import MeshFile, decode_mesh, encode_mesh
from dreamwright.shared.messages import (
    CancelJob,
    Chunk,
    DeleteJob,
    Done,
    FetchChunk,
    GetCapabilities,
    Hello,
    JobChanged,
    JobDeleted,
    JobList,
    JobReply,
    JobSummary,
    ListJobs,
    PauseJob,
    PinJob,
    PreviewAck,
    PreviewFrame,
    Refusal,
    ResumeJob,
    SetPriority,
    SubmitJob,
    Subscribe,
    UploadChunk,
    UploadProgress,
    Welcome,
)
from tests.testing.fake_capabilities import OFFER
from tests.testing.fake_props import RED, ball, picture, texture_of

ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Peer:
    """Somebody who subscribed."""

    previews_of: str
    count: int = 0
    credit: int = limits.PREVIEWS_IN_FLIGHT
    missed: int = 0  # the latest step whose picture waits for credit; 0: none does


@dataclass
class Faults:
    """What to do wrong; each number counts down."""

    lose_replies: int = 0  # of submits
    lose_events: int = 0
    lose_chunks: int = 0
    damage_chunks: int = 0
    version: int = limits.PROTOCOL_VERSION
    babble: bool = False  # answer with bytes that are no message
    lose_uploads: int = 0  # replies to pieces
    forget_uploads: int = 0  # whole meshes, when their submit comes
    refuse_submit: str = ""
    fail_at: int = 0  # the first job to come to this step fails there, and can be resumed


class FakeServer:
    """One ROUTER, one job at a time."""

    def __init__(
        self, address: str = "tcp://127.0.0.1:*", pace: int = 1, steps: int = 40, size: int = 16, rings: int = 16
    ) -> None:
        self.pace, self.steps, self.size, self.rings = pace, steps, size, rings
        self.faults = Faults()
        self.jobs: dict[str, JobSummary] = {}
        self.meshes: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}  # by SHA-256, as far as they have come
        self.tickets: dict[str, str] = {}
        self.peers: dict[bytes, Peer] = {}
        self.requests: list[Any] = []
        self.changes = 0
        self.leash_file: Path | None = None
        self._wanted = address
        self.address = ""
        self.open()

    def leash(self) -> int:
        """How far jobs may go: the number in the file that was named, so that a slow window misses nothing."""
        return int(self.leash_file.read_text() or 0) if self.leash_file else 1 << 30

    def open(self) -> None:
        """Start, or start anew on the same port with the jobs that there were."""
        self.epoch = f"{time.monotonic_ns():x}"
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(self.address or self._wanted)
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.peers.clear()

    def close(self) -> None:
        """Die without a word."""
        self._socket.close(0)
        self._context.destroy(linger=0)

    def step(self, wait_s: float = 0.0) -> None:
        """Answer what was asked, then work a little."""
        if self._socket.poll(int(1000 * wait_s)):
            while self._socket.poll(0):
                self._answer(*self._socket.recv_multipart())
        for route, peer in self.peers.items():
            if peer.missed and peer.credit:
                self._show(route, peer, peer.missed)
        self.work()

    def work(self) -> None:
        """Take the oldest queued job further, and tell about it."""
        running = next((job for job in self.jobs.values() if job.state == "running"), None)
        queued = [job for job in self.jobs.values() if job.state == "queued"]
        if running is None and queued:
            running = self.change(queued[0].job, state="running", queue_position=0)
            for place, job in enumerate(queued[1:], 1):
                self.change(job.job, queue_position=place)
        if running is None or not self.pace:
            return
        step = min(running.steps, running.step + self.pace, max(running.step, self.leash()))
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
            self.change(running.job, step=step, elapsed_s=float(step), eta_s=float(running.steps - step))
        else:
            self.finish(running.job, "succeeded")
        self._picture(running.job, step)

    def finish(self, job: str, state: str) -> None:
        """End a job with a mesh: of a refinement the one that was sent, lifted by its strength in metres, in red."""
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
        """What a refinement makes of what was sent: faces and order stay."""
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
        """Change a job and tell every subscriber."""
        self.changes += 1
        self.jobs[job] = replace(self.jobs[job], changed=self.changes, **fields)
        self._tell(lambda count: JobChanged(count, self.jobs[job]))
        return self.jobs[job]

    def _tell(self, make: Any) -> None:
        for route, peer in self.peers.items():
            peer.count += 1
            if self.faults.lose_events:
                self.faults.lose_events -= 1
            else:
                self._send(route, make(peer.count), 0)

    def _picture(self, job: str, step: int) -> None:
        for route, peer in self.peers.items():
            if peer.previews_of == job:
                self._show(route, peer, step)

    def _show(self, route: bytes, peer: Peer, step: int) -> None:
        """Send a picture, or keep its step until the client has seen what is on the way, as the real server does."""
        peer.missed = 0 if peer.credit else step
        if peer.credit:
            peer.credit -= 1
            self._send(route, PreviewFrame(peer.previews_of, step, self.size, self.size, picture(step, self.size)), 0)

    def _send(self, route: bytes, message: Any, number: int) -> None:
        data = pack(message, number)
        if self.faults.version != limits.PROTOCOL_VERSION:
            import msgpack

            data = msgpack.packb({**msgpack.unpackb(data), "version": self.faults.version})
        self._socket.send_multipart([route, b"\xc1 hello, I am a web server" if self.faults.babble else data])

    def _answer(self, route: bytes, data: bytes) -> None:
        try:
            number, request = unpack(data, limits.REQUEST_BYTES)
        except ProtocolError as error:
            return self._send(route, Refusal("bad-message", str(error)), 0)
        self.requests.append(request)
        reply = self._reply(route, request)
        if reply is not None:
            self._send(route, reply, number)

    def _reply(self, route: bytes, request: Any) -> Any:
        if isinstance(request, Hello):
            return Welcome("fake server", self.epoch)
        if isinstance(request, GetCapabilities):
            return OFFER
        if isinstance(request, SubmitJob):
            return self._submitted(request)
        if isinstance(request, UploadChunk):
            return self._uploaded(request)
        if isinstance(request, ListJobs):
            return self._list()
        if isinstance(request, Subscribe):
            watched = self.jobs.get(request.previews_of)
            self.peers[route] = Peer(
                request.previews_of, missed=watched.step if watched and watched.state == "running" else 0
            )
            return self._list()
        if isinstance(request, PreviewAck):
            if route in self.peers:
                self.peers[route].credit += request.count
            return None
        if request.job not in self.jobs:
            return Refusal("no-such-job", f"there is no job {request.job}")
        return self._about_job(request, self.jobs[request.job])

    def _list(self) -> JobList:
        return JobList(tuple(sorted(self.jobs.values(), key=lambda job: -job.changed)), self.changes)

    def _uploaded(self, request: UploadChunk) -> Any:
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

    def _submitted(self, request: SubmitJob) -> Any:
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
                job, "queued", request.prompt, request.negative, request.model, request.preset, request.seed, request.settings,
                0, int(request.settings.get("run.steps", self.steps)), 0.0, -1.0, waiting + 1, "", "", time.time(), 0, "", self.changes,
                parent_job=request.parent_job, mesh=request.mesh,
            )  # fmt: skip
            self._tell(lambda count: JobChanged(count, self.jobs[job]))
        if self.faults.lose_replies:
            self.faults.lose_replies -= 1
            return None
        return JobReply(self.jobs[self.tickets[request.ticket]])

    def _about_job(self, request: Any, job: JobSummary) -> Any:
        if isinstance(request, FetchChunk):
            return self._chunk(request)
        if isinstance(request, DeleteJob):
            if job.state not in ENDED:
                return Refusal("not-now", "the job has not ended")
            del self.jobs[job.job]
            self._tell(lambda count: JobDeleted(count, job.job))
            return Done()
        if isinstance(request, CancelJob) and job.state == "running":
            self.finish(job.job, "cancelled")
        elif isinstance(request, CancelJob) and job.state not in ENDED:
            self.change(job.job, state="cancelled", queue_position=0)
        elif isinstance(request, PauseJob) and job.state in ("queued", "running"):
            self.change(job.job, state="paused", queue_position=0)
        elif isinstance(request, ResumeJob) and (job.state == "paused" or job.resumable):
            self.change(job.job, state="queued", queue_position=1, resumable=False, cause="", message="")
        elif isinstance(request, PinJob):
            self.change(job.job, pinned=request.pinned)
        elif isinstance(request, SetPriority) and request.priority > 0:
            return Refusal(
                "not-allowed",
                f"the priority is {request.priority}; you may give up to 0; ask an admin of this server to raise it",
            )
        elif isinstance(request, SetPriority) and job.state not in ENDED:
            self.change(job.job, priority=request.priority)
        else:
            return Refusal("not-now", f"a {job.state} job cannot do that")
        return JobReply(self.jobs[job.job])

    def _chunk(self, request: FetchChunk) -> Any:
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


def main() -> None:
    """Serve until killed; the address is the first line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="tcp://127.0.0.1:*")
    parser.add_argument("--pace", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--rings", type=int, default=16)
    parser.add_argument("--wait", type=float, default=0.02)
    parser.add_argument("--fail-at", type=int, default=0)
    parser.add_argument("--leash", type=Path, help="a file with the step that jobs may reach, read before every step")
    options = parser.parse_args()
    server = FakeServer(options.address, options.pace, options.steps, options.size, options.rings)
    server.faults.fail_at, server.leash_file = options.fail_at, options.leash
    print(server.address, flush=True)
    while True:
        server.step(options.wait)
        time.sleep(options.wait)


if __name__ == "__main__":
    main()
