# SPDX-License-Identifier: GPL-3.0-or-later
"""The client with a server that loses messages, sends invalid ones, stops and restarts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from dreamwright.shared import client as client_module
from dreamwright.shared import limits
from dreamwright.shared.connection_state import ConnectionChanged, ConnectionState
from dreamwright.shared.errors import ProtocolError, RequestError, RequestTimeout
from dreamwright.shared.messages import (
    CancelJob,
    DeleteJob,
    JobChanged,
    JobDeleted,
    JobList,
    JobReply,
    PreviewAck,
    PreviewFrame,
    SubmitJob,
    Subscribe,
)
from tests.testing.client_pair import Pair, submission


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
    pair.server_runs = False
    for _ in range(6):  # a busy Blender ticks late, yet not that late
        pair.clock.ahead += 1.5
        pair.events += pair.client.tick()
    assert pair.client.state is ConnectionState.LOST and "no answer" in pair.client.reason
    pair.events.clear()
    pair.server.open()
    pair.server_runs = True
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
    before = sum(isinstance(request, Subscribe) for request in pair.server.requests)
    pair.server.faults.lose_events = 1
    for step in range(1, 12):
        pair.server.change(job.job, step=step)
    pair.events.clear()
    pair.settle(lambda: bool(pair.of(JobList)))
    assert pair.of(JobList)[-1].jobs[0].step == 11
    for _ in range(10):
        pair.server.step(0.002)
        pair.events += pair.client.tick()
    assert sum(isinstance(request, Subscribe) for request in pair.server.requests) == before + 1


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
    pair.server.faults.malformed_replies = True
    pair.client.connect()
    pair.settle(lambda: pair.client.state is ConnectionState.INCOMPATIBLE)
    assert "not as Dreamwright does" in pair.client.reason


def test_absent_server_keeps_connecting(pair: Pair) -> None:
    pair.server.close()
    pair.server_runs = False
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


def test_close_is_immediate_and_idempotent(pair: Pair) -> None:
    pair.connect()
    began = time.monotonic()
    pair.client.close()
    pair.client.close()
    # Closing takes milliseconds; it would take 5 s or more if it waited for a reply.
    assert time.monotonic() - began < limits.REQUEST_TIMEOUT_S
    replies: list[Any] = []
    pair.client.request(CancelJob("x"), replies.append)
    assert isinstance(replies[0], RequestError)


def test_client_starts_no_threads() -> None:
    source = Path(client_module.__file__).read_text(encoding="utf-8")
    assert "import threading" not in source and "asyncio" not in source
