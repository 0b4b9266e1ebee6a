# SPDX-License-Identifier: GPL-3.0-or-later
"""A client whose connection breaks; `tests/soak/reconnects.py` breaks it at random moments and kills the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from dreamwright.backend.server.workers.worker_protocol import PreviewReport, ProgressReport
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.messages import JobReply, JobSummary, PreviewFrame
from tests.soak.flaky_tcp_proxy import FlakyTcpProxy
from tests.soak.reconnects import soak
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.fake_props import preview_bytes
from tests.testing.job_events import jobs_in
from tests.testing.scripted_worker_server import submit_message


def jobs_of(events: list[Any]) -> list[JobSummary]:
    """Every state of a job that the client received, in an event or in a list."""
    return [job for event in events for job in jobs_in(event)]


@pytest.fixture
def proxy(encrypted_server: EncryptedServer) -> Iterator[FlakyTcpProxy]:
    proxy = FlakyTcpProxy(encrypted_server.server.address)
    yield proxy
    proxy.close()


def test_reconnect_restores_subscriptions_and_previews(encrypted_server: EncryptedServer, proxy: FlakyTcpProxy) -> None:
    """ZeroMQ reconnects before a heartbeat is missed, and the server sees a new connection."""
    anna = encrypted_server.authorized_client("anna", address=proxy.address)
    anna.subscribe()
    job = encrypted_server.request(anna, submit_message()).job.job
    anna.subscribe(job)
    encrypted_server.wait_until(lambda: encrypted_server.runner.given == [job])
    for cut in range(3):
        step = 10 * cut + 5
        encrypted_server.runner.queued.append(ProgressReport(job=job, step=step, steps=100, elapsed_s=1.0, eta_s=1.0))
        encrypted_server.runner.queued.append(PreviewReport(PreviewFrame(job, step, 8, 8, preview_bytes(step, 8))))
        events = encrypted_server.events[anna]
        encrypted_server.wait_until(lambda: any(job.step == step for job in jobs_of(events)))
        encrypted_server.wait_until(
            lambda: any(isinstance(event, PreviewFrame) and event.step == step for event in events)
        )
        proxy.cut()
        encrypted_server.wait_until(lambda: anna._monitor.accepted == cut + 2)
        encrypted_server.wait_until(
            lambda: not anna._subscription.snapshots_pending and len(encrypted_server.server.publisher) == 1
        )
    assert anna.state is ConnectionState.ONLINE


def test_pending_requests_are_resent_after_a_reconnect(encrypted_server: EncryptedServer, proxy: FlakyTcpProxy) -> None:
    """They are sent again before their timeout, and create one job."""
    anna = encrypted_server.authorized_client("anna", address=proxy.address)
    proxy.set_stalled(True)
    answers: list[JobReply] = []
    anna.request(submit_message(), answers.append, timeout_s=1e6)
    encrypted_server.run_for(0.2)
    proxy.cut()
    proxy.set_stalled(False)
    encrypted_server.wait_until(lambda: bool(answers))
    assert len(encrypted_server.store.records) == 1


def test_lost_greeting_is_repeated(encrypted_server: EncryptedServer, proxy: FlakyTcpProxy) -> None:
    """Its heartbeats are answered meanwhile, so a timeout would not cause the second greeting."""
    anna = encrypted_server.authorized_client("anna", address=proxy.address)
    anna._pending.clear()
    anna.state = ConnectionState.CONNECTING
    encrypted_server.wait_until(lambda: anna.state is ConnectionState.ONLINE)


def test_slow_clients_are_logged_once_a_minute(
    encrypted_server: EncryptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        def send_multipart(self, parts: list[bytes], flags: int) -> None:
            raise zmq.Again

    caplog.set_level("INFO")
    with monkeypatch.context() as patch:
        patch.setattr(encrypted_server.server.router, "socket", Full())
        assert all(encrypted_server.server.router.send(b"route", b"data") for _ in range(500)), (
            "a slow client counts as connected"
        )
    assert [record.messages for record in caplog.records if "slow" in record.message] == [1]


@pytest.mark.slow
def test_clients_recover_every_update_after_reconnects(tmp_path: Path) -> None:
    """Connections cut or stalled, and servers killed, by a seed."""
    figures, faults = soak(tmp_path, 8, 3)
    assert faults == []
    assert figures["total"] >= 8 and figures["clients that agreed"] > 0
