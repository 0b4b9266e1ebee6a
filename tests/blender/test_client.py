# SPDX-License-Identifier: GPL-3.0-or-later
"""The client with a server that loses messages, sends invalid ones, stops and restarts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamwright.shared import client as client_module
from dreamwright.shared import limits
from dreamwright.shared.client import Client
from dreamwright.shared.connection_state import ConnectionChanged, ConnectionState
from dreamwright.shared.errors import ProtocolError, RequestError, RequestTimeout
from dreamwright.shared.messages import (
    CancelJob,
    Chunk,
    DeleteJob,
    FetchChunk,
    JobChanged,
    JobDeleted,
    JobList,
    JobReply,
    JobSummary,
    PreviewAck,
    PreviewFrame,
    SubmitJob,
    Subscribe,
)
from dreamwright.shared.transfer import Download
from tests.testing.fake_server import FakeServer


class Clock:
    """A clock that a test sets forward, so that nothing waits for seconds to pass."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Pair:
    """A server and a client, stepped together."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.server = FakeServer(pace=0)
        self.client = Client(self.server.address, "0" * 32, clock=self.clock)
        self.events: list[Any] = []
        self.alive = True

    def settle(self, until: Callable[[], bool], seconds: float = 5.0) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, (
                f"never came about; {self.client.state} {self.client.reason}, {self.events[-3:]}"
            )
            if self.alive:
                self.server.step(0.002)
            self.events += self.client.tick()

    def connect(self) -> None:
        self.client.connect()
        self.client.subscribe()
        self.settle(lambda: any(isinstance(event, JobList) for event in self.events))

    def ask(self, message: Any) -> Any:
        replies: list[Any] = []
        self.client.request(message, replies.append)
        self.settle(lambda: bool(replies))
        return replies[0]

    def submit(self, ticket: str = "t1") -> JobSummary:
        return self.ask(submission(ticket)).job

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def submission(ticket: str) -> SubmitJob:
    return SubmitJob(ticket, "a red mushroom", "", "starter", "quick", 3, {"mesh.height_m": 0.5})


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.client.close()
    if made.alive:
        made.server.close()


def test_connects_and_receives_all_jobs(pair: Pair) -> None:
    pair.connect()
    assert pair.client.state is ConnectionState.ONLINE
    assert [event.state for event in pair.of(ConnectionChanged)] == [ConnectionState.CONNECTING, ConnectionState.ONLINE]
    assert pair.of(JobList)[0].jobs == ()
    assert 0 < pair.client.round_trip_s < 5


def test_lost_reply_is_retried_as_one_job(pair: Pair) -> None:
    pair.connect()
    pair.server.faults.lose_replies = 1
    replies: list[Any] = []
    pair.client.request(submission("t1"), replies.append)
    pair.settle(lambda: bool(pair.server.jobs))
    for _ in range(8):  # in steps: a leap would be taken for a connection that was lost
        pair.clock.ahead += 1.0
        pair.server.step(0.05)
        pair.events += pair.client.tick()
    pair.settle(lambda: bool(replies))
    assert isinstance(replies[0], JobReply)
    assert len(pair.server.jobs) == 1
    assert sum(isinstance(request, SubmitJob) for request in pair.server.requests) == 2


def test_unanswered_request_times_out(pair: Pair) -> None:
    pair.connect()
    pair.server.faults.lose_replies = 100
    replies: list[Any] = []
    pair.client.request(submission("t1"), replies.append)
    for _ in range(int(limits.REQUEST_TIMEOUT_S * limits.REQUEST_ATTEMPTS) + 5):
        pair.clock.ahead += 1.0
        pair.server.step(0.02)
        pair.events += pair.client.tick()
    assert isinstance(replies[0], RequestTimeout) and "did not answer" in str(replies[0])
    assert len(pair.server.jobs) == 1


def test_reconnects_after_the_server_returns(pair: Pair) -> None:
    pair.connect()
    job = pair.submit()
    pair.server.close()
    pair.alive = False
    for _ in range(6):  # a busy Blender ticks late, yet not that late
        pair.clock.ahead += 1.5
        pair.events += pair.client.tick()
    assert pair.client.state is ConnectionState.LOST and "no answer" in pair.client.reason
    pair.events.clear()
    pair.server.open()
    pair.alive = True
    pair.server.change(job.job, step=7)
    pair.settle(lambda: bool(pair.of(JobList)), 10)
    assert pair.client.state is ConnectionState.ONLINE
    assert [found.step for found in pair.of(JobList)[-1].jobs] == [7]
    pair.server.change(job.job, step=8)
    pair.settle(lambda: bool(pair.of(JobChanged)))
    assert pair.of(JobChanged)[-1].job.step == 8


def test_new_epoch_reveals_a_quick_restart(pair: Pair) -> None:
    pair.connect()
    old = pair.client.epoch
    pair.server.close()
    pair.server.open()
    pair.events.clear()
    for _ in range(40):
        pair.server.step(0.02)
        pair.clock.ahead += 0.05
        pair.events += pair.client.tick()
    pair.settle(lambda: bool(pair.of(JobList)), 10)
    assert pair.client.epoch != old and pair.client.state is ConnectionState.ONLINE
    assert pair.server.peers, "a restarted server has to be subscribed to again"


def test_stalled_client_subscribes_again(pair: Pair) -> None:
    pair.connect()
    pair.events.clear()
    pair.clock.ahead += 60  # a render, or a file dialog
    pair.settle(lambda: bool(pair.of(JobList)))
    assert not pair.of(ConnectionChanged)


def test_event_gap_requests_one_snapshot(pair: Pair) -> None:
    pair.connect()
    job = pair.submit()
    pair.settle(lambda: bool(pair.of(JobChanged)))
    asked = sum(isinstance(request, Subscribe) for request in pair.server.requests)
    pair.server.faults.lose_events = 1
    for step in range(1, 12):
        pair.server.change(job.job, step=step)
    pair.events.clear()
    pair.settle(lambda: bool(pair.of(JobList)))
    assert pair.of(JobList)[-1].jobs[0].step == 11
    for _ in range(10):
        pair.server.step(0.002)
        pair.events += pair.client.tick()
    assert sum(isinstance(request, Subscribe) for request in pair.server.requests) == asked + 1


def test_event_older_than_the_snapshot_is_dropped(pair: Pair) -> None:
    pair.connect()
    job = pair.submit()
    pair.settle(lambda: bool(pair.of(JobChanged)))
    stale = pair.server.jobs[job.job]
    pair.server.change(job.job, step=5)
    pair.client.subscribe()
    pair.settle(lambda: len(pair.of(JobList)) == 2)
    pair.events.clear()
    pair.server.publish(lambda count: JobChanged(count, stale))
    pair.server.change(job.job, step=6)
    pair.settle(lambda: bool(pair.of(JobChanged)))
    assert [event.job.step for event in pair.of(JobChanged)] == [6]


def test_other_protocol_version_is_not_retried(pair: Pair) -> None:
    pair.server.faults.version = limits.PROTOCOL_VERSION + 1
    pair.client.connect()
    pair.settle(lambda: pair.client.state is ConnectionState.INCOMPATIBLE)
    assert f"version {limits.PROTOCOL_VERSION + 1}" in pair.client.reason and "update" in pair.client.reason
    pair.clock.ahead += 100
    pair.client.tick()
    assert pair.client.state is ConnectionState.INCOMPATIBLE


def test_foreign_server_is_recognized(pair: Pair) -> None:
    pair.server.faults.babble = True
    pair.client.connect()
    pair.settle(lambda: pair.client.state is ConnectionState.INCOMPATIBLE)
    assert "not as Dreamwright does" in pair.client.reason


def test_absent_server_keeps_connecting(pair: Pair) -> None:
    pair.server.close()
    pair.alive = False
    pair.client.connect()
    for _ in range(6):
        pair.clock.ahead += 1
        pair.client.tick()
    assert pair.client.state is ConnectionState.CONNECTING and "is the server running?" in pair.client.reason


def test_invalid_request_is_refused_before_sending(pair: Pair) -> None:
    pair.connect()
    before = len(pair.server.requests)
    with pytest.raises(ProtocolError, match="seed"):
        pair.client.request(SubmitJob("t", "a", "", "m", "p", -1, {}), lambda reply: None)
    pair.server.step(0.05)
    assert not any(isinstance(request, SubmitJob) for request in pair.server.requests[before:])


def test_refusal_reaches_the_caller(pair: Pair) -> None:
    pair.connect()
    reply = pair.ask(CancelJob("nobody"))
    assert isinstance(reply, RequestError) and reply.code == "no-such-job"


def test_previews_need_subscription_and_credit(pair: Pair) -> None:
    pair.connect()
    job = pair.submit()
    pair.client.subscribe(job.job)
    pair.settle(lambda: any(peer.previews_of == job.job for peer in pair.server.peers.values()))
    for step in range(10):
        pair.server.publish_preview(job.job, step)
    pair.settle(lambda: len(pair.of(PreviewFrame)) == limits.PREVIEWS_IN_FLIGHT)
    pair.settle(
        lambda: sum(isinstance(request, PreviewAck) for request in pair.server.requests) == limits.PREVIEWS_IN_FLIGHT
    )
    pair.server.publish_preview(job.job, 11)
    pair.settle(lambda: pair.of(PreviewFrame)[-1].step == 11)


def test_deleted_job_is_reported(pair: Pair) -> None:
    pair.connect()
    job = pair.submit()
    pair.server.finish(job.job, "succeeded")
    pair.ask(DeleteJob(job.job))
    pair.settle(lambda: bool(pair.of(JobDeleted)))
    assert pair.of(JobDeleted)[0].job == job.job


def fetched(pair: Pair, rings: int = 120) -> tuple[JobSummary, list[Any], Download]:
    pair.connect()
    pair.server.rings = rings
    job = pair.submit()
    pair.server.finish(job.job, "succeeded")
    results: list[Any] = []
    summary = pair.server.jobs[job.job]
    return summary, results, Download(pair.client, job.job, "mesh", summary.mesh_bytes, results.append)


def test_download_of_many_chunks(pair: Pair) -> None:
    job, results, download = fetched(pair)
    assert job.mesh_bytes > 3 * limits.CHUNK_BYTES
    download.start()
    pair.settle(lambda: bool(results))
    assert hashlib.sha256(results[0]).hexdigest() == job.mesh_sha256
    assert download.share == 1


def test_download_resumes_after_an_outage(pair: Pair) -> None:
    job, results, download = fetched(pair)
    pair.server.faults.lose_chunks = 2
    download.start()
    pair.settle(lambda: download.share > 0.2)
    had = download.share
    pair.server.close()
    pair.alive = False
    for _ in range(40):
        pair.clock.ahead += 1
        pair.client.tick()
    assert not results and download.share >= had
    pair.server.open()
    pair.alive = True
    asked = len(pair.server.requests)
    pair.settle(lambda: pair.client.state is ConnectionState.ONLINE, 10)
    download.resume()
    pair.settle(lambda: bool(results), 10)
    assert hashlib.sha256(results[0]).hexdigest() == job.mesh_sha256
    again = {request.offset for request in pair.server.requests[asked:] if isinstance(request, FetchChunk)}
    assert 0 < len(again) < job.mesh_bytes / limits.CHUNK_BYTES


def test_damaged_download_is_refused(pair: Pair) -> None:
    _, results, download = fetched(pair)
    pair.server.faults.damage_chunks = 1
    download.start()
    pair.settle(lambda: bool(results))
    assert isinstance(results[0], RequestError) and "damaged" in str(results[0])


def test_file_changed_during_download_is_refused(pair: Pair) -> None:
    job, results, download = fetched(pair)
    pair.server.faults.lose_chunks = 1
    download.start()
    pair.settle(lambda: download.share > 0.3)
    download._on_reply(0, Chunk(0, b"x" * limits.CHUNK_BYTES, job.mesh_bytes, "f" * 64))
    assert isinstance(results[0], RequestError) and "changed" in str(results[0])


def test_close_is_immediate_and_idempotent(pair: Pair) -> None:
    pair.connect()
    began = time.monotonic()
    pair.client.close()
    pair.client.close()
    assert time.monotonic() - began < 1
    replies: list[Any] = []
    pair.client.request(CancelJob("x"), replies.append)
    assert isinstance(replies[0], RequestError)


def test_client_starts_no_threads() -> None:
    source = Path(client_module.__file__).read_text(encoding="utf-8")
    assert "import threading" not in source and "asyncio" not in source
