# SPDX-License-Identifier: GPL-3.0-or-later
"""A small server that implements the protocol, makes a prop at once, and injects faults on request.

Tests call `server.step()`. For Blender: `python -m tests.testing.fake_server` prints its address and serves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import zmq

from dreamwright.shared import limits
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.live_mesh_messages import LiveMeshAck, LiveMeshFrame
from dreamwright.shared.messages import (
    CancelGroup,
    CancelJob,
    DeleteJob,
    DiscardGroup,
    Done,
    FetchChunk,
    GetCapabilities,
    GetPreview,
    Hello,
    JobDeleted,
    JobList,
    JobReply,
    JobSummary,
    ListJobs,
    PauseJob,
    PinJob,
    PreviewAck,
    PreviewFrame,
    PreviewReply,
    Refusal,
    ResumeJob,
    SetPriority,
    SubmitJob,
    Subscribe,
    UploadChunk,
    Welcome,
)
from tests.testing.fake_capabilities import OFFER
from tests.testing.fake_jobs import FakeJobs
from tests.testing.fake_props import ball, live_mesh_frame, preview_bytes

ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Peer:
    """A subscriber."""

    previews_of: str
    count: int = 0
    credit: int = limits.PREVIEWS_IN_FLIGHT
    missed: int = 0  # the latest step whose preview waits for an acknowledgement; 0 for none
    meshes_of: str = ""
    mesh_credit: int = limits.LIVE_MESHES_IN_FLIGHT
    mesh_missed: int = 0  # the latest step whose live mesh waits for an acknowledgement; 0 for none


class FakeServer(FakeJobs):
    """One ROUTER socket, and one job at a time."""

    def __init__(
        self, address: str = "tcp://127.0.0.1:*", pace: int = 1, steps: int = 40, size: int = 16, rings: int = 16
    ) -> None:
        super().__init__(pace, steps, rings)
        self.size, self.live_rings = size, 0  # rings of the balls that are sent as live meshes; 0: none are
        self.peers: dict[bytes, Peer] = {}
        self.requests: list[Any] = []
        self._requested_address = address
        self.address = ""
        self.open()

    def open(self) -> None:
        """Start, or restart on the same port with the same jobs."""
        self.epoch = f"{time.monotonic_ns():x}"
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(self.address or self._requested_address)
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.peers.clear()

    def close(self) -> None:
        """Stop at once, without a shutdown notice."""
        self._socket.close(0)
        self._context.destroy(linger=0)

    def step(self, wait_s: float = 0.0) -> None:
        """Answer requests, then advance a job."""
        if self._socket.poll(int(1000 * wait_s)):
            while self._socket.poll(0):
                self._answer(*self._socket.recv_multipart())
        for route, peer in self.peers.items():
            if peer.missed and peer.credit:
                self._show(route, peer, peer.missed)
        self._send_live_meshes()
        self.work()

    def publish(self, make: Callable[[int], Any]) -> None:
        for route, peer in self.peers.items():
            peer.count += 1
            if self.faults.lose_events:
                self.faults.lose_events -= 1
            else:
                self._send(route, make(peer.count), 0)

    def publish_preview(self, job: str, step: int) -> None:
        for route, peer in self.peers.items():
            if peer.previews_of == job:
                self._show(route, peer, step)

    def publish_live_mesh(self, job: str, step: int) -> None:
        for peer in self.peers.values():
            if self.live_rings and peer.meshes_of == job:
                peer.mesh_missed = step
        self._send_live_meshes()

    def _send_live_meshes(self) -> None:
        for route, peer in self.peers.items():
            if peer.mesh_missed and peer.mesh_credit and peer.meshes_of in self.jobs:
                peer.mesh_credit -= 1
                self._send(route, self.live_mesh_of(peer.meshes_of, peer.mesh_missed), 0)
                peer.mesh_missed = 0

    def live_mesh_of(self, job: str, step: int) -> LiveMeshFrame:
        """The live mesh of a job after a step: its ball, which grows to its height."""
        shown = self.jobs[job]
        height = float(shown.settings.get("mesh.height_m", 1.0)) * (0.5 + 0.5 * step / shown.steps)
        return live_mesh_frame(job, step, ball(self.live_rings, height))

    def _show(self, route: bytes, peer: Peer, step: int) -> None:
        """Send a preview, or store its step until the client acknowledges earlier ones, as the server does."""
        peer.missed = 0 if peer.credit else step
        if peer.credit:
            peer.credit -= 1
            self._send(route, self.frame_of(peer.previews_of, step), 0)

    def frame_of(self, job: str, step: int) -> PreviewFrame:
        """The preview of a job after a step."""
        return PreviewFrame(job, step, self.size, self.size, preview_bytes(step, self.size))

    def _send(self, route: bytes, message: Any, number: int) -> None:
        data = pack(message, number)
        if self.faults.version != limits.PROTOCOL_VERSION:
            data = msgpack.packb({**msgpack.unpackb(data), "version": self.faults.version})
        self._socket.send_multipart(
            [route, b"\xc1 hello, I am a web server" if self.faults.malformed_replies else data]
        )

    def _answer(self, route: bytes, data: bytes) -> None:
        try:
            number, request = unpack(data, limits.REQUEST_BYTES)
        except ProtocolError as error:
            self._send(route, Refusal("bad-message", str(error)), 0)
            return
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
            return self.submit(request)
        if isinstance(request, UploadChunk):
            return self.receive_chunk(request)
        if isinstance(request, ListJobs):
            return self._list()
        if isinstance(request, Subscribe):
            job, watched = self.jobs.get(request.previews_of), self.jobs.get(request.meshes_of)
            is_running = self.live_rings > 0 and watched is not None and watched.state == "running"
            self.peers[route] = Peer(
                request.previews_of,
                missed=job.step if job and job.state == "running" else 0,
                meshes_of=request.meshes_of,
                mesh_missed=watched.step if watched is not None and is_running else 0,
            )
            return self._list()
        if isinstance(request, PreviewAck):
            if route in self.peers:
                self.peers[route].credit += request.count
            return None
        if isinstance(request, LiveMeshAck):
            if route in self.peers:
                self.peers[route].mesh_credit += request.count
            return None
        if isinstance(request, (CancelGroup, DiscardGroup)):
            return self._about_group(request)
        if request.job not in self.jobs:
            return Refusal("no-such-job", f"there is no job {request.job}")
        return self._about_job(request, self.jobs[request.job])

    def _list(self) -> JobList:
        return JobList(tuple(sorted(self.jobs.values(), key=lambda job: -job.changed)), self.changes)

    def _about_group(self, request: CancelGroup | DiscardGroup) -> JobList:
        for job in [job for job in self.jobs.values() if job.group == request.group]:
            if isinstance(request, DiscardGroup) and (job.job == request.keep or job.pinned):
                continue
            if job.state not in ENDED:
                self._about_job(CancelJob(job.job), job)
            if isinstance(request, DiscardGroup):
                self._about_job(DeleteJob(job.job), self.jobs[job.job])
        return self._list()

    def _about_job(self, request: Any, job: JobSummary) -> Any:
        if isinstance(request, FetchChunk):
            return self.read_chunk(request)
        if isinstance(request, GetPreview):
            if not job.preview_step:
                return Refusal("not-ready", "there is no preview")
            return PreviewReply(self.frame_of(job.job, job.preview_step))
        if isinstance(request, DeleteJob):
            if job.state not in ENDED:
                return Refusal("not-now", "the job has not ended")
            del self.jobs[job.job]
            self.publish(lambda count: JobDeleted(count, job.job))
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


def main() -> None:
    """Serve until killed; prints the address first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="tcp://127.0.0.1:*")
    parser.add_argument("--pace", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--rings", type=int, default=16)
    parser.add_argument("--live-rings", type=int, default=0, help="of the balls that are sent as live meshes; 0: none")
    parser.add_argument("--wait", type=float, default=0.02)
    parser.add_argument("--fail-at", type=int, default=0)
    parser.add_argument(
        "--step-limit", type=Path, help="a file with the step that jobs may reach, read before every step"
    )
    options = parser.parse_args()
    server = FakeServer(options.address, options.pace, options.steps, options.size, options.rings)
    server.live_rings = options.live_rings
    server.faults.fail_at, server.step_limit_file = options.fail_at, options.step_limit
    print(server.address, flush=True)
    while True:
        server.step(options.wait)
        time.sleep(options.wait)


if __name__ == "__main__":
    main()
