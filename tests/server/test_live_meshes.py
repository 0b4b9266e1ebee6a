# SPDX-License-Identifier: GPL-3.0-or-later
"""Live meshes reach only those who ask for them, two at a time, and workers make none that nobody watches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dreamwright.backend.server.workers.worker_protocol import (
    LiveMeshReport,
    Watch,
    pack_order,
    unpack_order,
)
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.limits import LIVE_MESH_BYTES, LIVE_MESHES_IN_FLIGHT, REPLY_BYTES
from dreamwright.shared.live_mesh import decode_live_mesh, encode_live_mesh
from dreamwright.shared.live_mesh_messages import LiveMeshAck, LiveMeshFrame
from dreamwright.shared.messages import DeleteJob, PreviewAck, Subscribe
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.recording_worker import RecordingWorker, run_attempt

DATA = encode_live_mesh(np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8), np.array([[0, 1, 2]]))


def frame(job: str, step: int = 1, data: bytes = DATA) -> LiveMeshFrame:
    return LiveMeshFrame(job, step, 3, 1, data)


def show(server: InMemoryServer, job: str, step: int, attempt: int | None = None) -> None:
    """The worker of a job reports a live mesh."""
    number = server.job(job).attempt if attempt is None else attempt
    server.runner.queued.append(LiveMeshReport(frame(job, step), number))
    server.step()


def seen(server: InMemoryServer, owner: str = "ada") -> list[int]:
    """Steps of the live meshes that a subscriber was sent."""
    return [event.step for event in server.events.get(owner.encode(), []) if isinstance(event, LiveMeshFrame)]


@pytest.fixture
def running(in_memory_server: InMemoryServer) -> tuple[InMemoryServer, str]:
    """A server with a running job of ada's."""
    job = in_memory_server.submit()
    in_memory_server.step()
    assert in_memory_server.job(job).state == "running"
    return in_memory_server, job


def test_only_those_who_ask_are_sent_live_meshes(running: tuple[InMemoryServer, str]) -> None:
    server, job = running
    server.request(Subscribe(previews_of=job))
    server.request(Subscribe(meshes_of=job), "root", admin=True)
    show(server, job, 10)
    assert seen(server) == [] and seen(server, "root") == [10]
    server.request(Subscribe(previews_of=job, meshes_of=job))
    server.step()
    assert seen(server) == [10], "the newest at once"
    server.request(Subscribe(previews_of=job))
    show(server, job, 20)
    assert seen(server) == [10] and seen(server, "root") == [10, 20]


def test_jobs_of_others_are_unknown(running: tuple[InMemoryServer, str]) -> None:
    server, job = running
    assert server.refusal(Subscribe(meshes_of=job), "bob").code == "no-such-job"
    show(server, job, 10)
    assert seen(server, "bob") == [] and server.runner.watched == []


def test_slow_subscribers_skip_to_the_newest(running: tuple[InMemoryServer, str]) -> None:
    server, job = running
    server.request(Subscribe(meshes_of=job))
    for step in range(1, 9):
        show(server, job, step)
    assert seen(server) == [1, 2] and LIVE_MESHES_IN_FLIGHT == 2
    server.request(PreviewAck(2))
    assert seen(server) == [1, 2], "previews have a credit of their own"
    server.request(LiveMeshAck(1))
    assert seen(server) == [1, 2, 8]
    server.request(Subscribe(meshes_of=job))
    server.step()
    assert seen(server) == [1, 2, 8], "asking again gives no credit"
    server.request(LiveMeshAck(100))
    assert seen(server) == [1, 2, 8, 8]


def test_workers_are_told_whether_anybody_watches(running: tuple[InMemoryServer, str]) -> None:
    server, job = running
    other = server.submit()
    server.request(Subscribe(previews_of=job))
    server.step()
    assert server.runner.watched == []
    server.request(Subscribe(meshes_of=other))
    server.step()
    assert server.runner.watched == [], "it waits"
    for owner, admin in (("ada", False), ("root", True)):
        server.request(Subscribe(meshes_of=job), owner, admin)
        server.step()
    assert server.runner.watched == [(job, True)], "once"
    server.request(Subscribe())
    server.step()
    assert server.runner.watched == [(job, True)], "root still watches"
    server.step(60.0)  # root is silent, and is dropped
    server.step()
    assert server.runner.watched == [(job, True), (job, False)]


def test_the_worker_of_a_later_attempt_is_told_as_well(running: tuple[InMemoryServer, str]) -> None:
    from dreamwright.backend.server.workers.local_runner import WorkerExited

    server, job = running
    server.request(Subscribe(meshes_of=job))
    server.step()
    server.runner.queued.append(WorkerExited(job, 1))
    server.step()
    server.step()
    assert server.job(job).attempt == 2 and server.runner.watched[-1] == (job, True)
    assert [told for told in server.runner.watched if told[1]] == [(job, True)] * 2
    show(server, job, 5, attempt=1)
    assert seen(server) == [], "the first attempt's mesh arrives too late"


def test_the_last_live_mesh_goes_with_the_run(running: tuple[InMemoryServer, str]) -> None:
    server, job = running
    show(server, job, 10)
    assert job in server.publisher.live_meshes.newest
    server.finish(job)
    assert job not in server.publisher.live_meshes.newest
    show(server, job, 11)
    server.request(Subscribe(meshes_of=job))
    server.step()
    assert seen(server) == [] and server.runner.watched == []
    server.request(DeleteJob(job))
    server.step()


def test_messages_that_are_too_large_or_false_are_refused() -> None:
    with pytest.raises(ProtocolError, match=f"at most {LIVE_MESH_BYTES} bytes"):
        pack(frame("job", data=bytes(LIVE_MESH_BYTES + 1)))
    largest = pack(frame("job", data=bytes(LIVE_MESH_BYTES)))
    assert unpack(largest, REPLY_BYTES)[1].data == bytes(LIVE_MESH_BYTES)
    for vertices, triangles in ((0, 1), (30_001, 1), (3, 0), (3, 10_001)):
        with pytest.raises(ProtocolError, match="a whole number from 1 to"):
            pack(LiveMeshFrame("job", 1, vertices, triangles, DATA))
    for order in (Watch("job", True), LiveMeshReport(frame("job"), 3)):
        assert unpack_order("secret", pack_order("secret", order)) == order
    with pytest.raises(ProtocolError):
        pack_order("secret", LiveMeshReport(frame("job", data=bytes(LIVE_MESH_BYTES + 1)), 3))


@pytest.mark.parametrize("is_watched", [True, False])
def test_a_worker_makes_live_meshes_while_it_is_told_to(model: Any, tmp_path: Any, is_watched: bool) -> None:
    worker = RecordingWorker()
    worker.watch_at = 1 if is_watched else 10**9
    assert run_attempt(model, tmp_path, 1, worker).ended.how == "succeeded"
    reports = [report for report in worker.sent if isinstance(report, LiveMeshReport)]
    assert bool(reports) == is_watched
    for report in reports:
        assert (report.job, report.attempt) == ("job", 1)
        mesh = decode_live_mesh(report.frame.data, report.frame.vertices, report.frame.triangles)
        assert len(mesh.faces) == report.frame.triangles and np.isfinite(mesh.vertices).all()
    assert all(report.frame.step > 1 for report in reports), "none before it was told"
