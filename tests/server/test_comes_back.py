# SPDX-License-Identifier: GPL-3.0-or-later
"""A client whose connection breaks off under it; `tests/soak/comes_back.py` does it at random moments, with its server's death."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from dreamwright.backend.server.workers.worker_protocol import Pictured, Stepped
from dreamwright.shared.client import Link
from dreamwright.shared.messages import JobChanged, JobList, JobReply, JobSummary, PreviewFrame
from tests.soak.comes_back import soak
from tests.soak.flaky_tcp_proxy import LooseCable
from tests.testing.encrypted_server import Street, street  # noqa: F401 (street is a fixture)
from tests.testing.fake_props import picture
from tests.testing.scripted_worker_server import asked


def told_of(events: list[Any]) -> list[JobSummary]:
    """Every state of a job that was handed out, by an event or in a list."""
    lists = [
        event.jobs if isinstance(event, JobList) else (event.job,)
        for event in events
        if isinstance(event, (JobList, JobChanged))
    ]
    return [job for jobs in lists for job in jobs]


@pytest.fixture
def cable(street: Street) -> Iterator[LooseCable]:  # noqa: F811
    cable = LooseCable(street.door.address)
    yield cable
    cable.close()


def test_who_is_cut_off_and_back_at_once_is_told_and_shown_everything_again(street: Street, cable: LooseCable) -> None:  # noqa: F811
    """ZeroMQ connects anew by itself, so soon that no sign of life is missed; to the server it is a stranger."""
    anna = street.guest("anna", address=cable.address)
    anna.subscribe()
    job = street.ask(anna, asked()).job.job
    anna.subscribe(job)
    street.until(lambda: street.foreman.given == [job])
    for cut in range(3):
        step = 10 * cut + 5
        street.foreman.told.append(Stepped(job=job, step=step, steps=100, elapsed_s=1.0, eta_s=1.0))
        street.foreman.told.append(Pictured(job=job, step=step, width=8, height=8, data=picture(step, 8)))
        events = street.events[anna]
        street.until(lambda: any(job.step == step for job in told_of(events)))
        street.until(lambda: any(isinstance(event, PreviewFrame) and event.step == step for event in events))
        cable.cut()
        street.until(lambda: anna._watch.let_in == cut + 2)
        street.until(lambda: not anna._subscription.asked and len(street.door._audience) == 1)
    assert anna.link is Link.ONLINE


def test_what_was_asked_when_the_connection_broke_is_asked_again_as_soon_as_it_is_back(
    street: Street, cable: LooseCable
) -> None:
    """And not only when the answer is late; once more is one job all the same."""
    anna = street.guest("anna", address=cable.address)
    cable.hush(True)
    answers: list[JobReply] = []
    anna.request(asked(), answers.append, timeout_s=1e6)
    street.for_a_while(0.2)
    cable.cut()
    cable.hush(False)
    street.until(lambda: bool(answers))
    assert len(street.ledger.entries) == 1


def test_a_greeting_that_was_lost_does_not_leave_a_client_connecting_for_ever(
    street: Street, cable: LooseCable
) -> None:
    """Its signs of life are answered then, so it never thinks that it should begin anew."""
    anna = street.guest("anna", address=cable.address)
    anna._pending.clear()
    anna.link = Link.CONNECTING
    street.until(lambda: anna.link is Link.ONLINE)


def test_the_log_tells_of_a_client_that_never_reads_once_a_minute(
    street: Street, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        def send_multipart(self, parts: list[bytes], flags: int) -> None:
            raise zmq.Again

    caplog.set_level("INFO")
    with monkeypatch.context() as patch:
        patch.setattr(street.door, "_socket", Full())
        assert all(street.door._send(b"route", b"data") for _ in range(500)), "who is slow is not gone"
    assert [record.messages for record in caplog.records if "slow" in record.message] == [1]


@pytest.mark.slow
def test_three_artists_see_no_old_frame_and_no_gap_that_is_not_made_good(tmp_path: Path) -> None:
    """Cables cut, silent, servers killed, by a seed."""
    told, faults = soak(tmp_path, 8, 3)
    assert faults == []
    assert told["in all"] >= 8 and told["views that agreed"] > 0
