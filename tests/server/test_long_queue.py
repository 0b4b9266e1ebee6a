# SPDX-License-Identifier: GPL-3.0-or-later
"""A queue beyond SHORT_QUEUE: the order is exact, positions follow soon and within a twentieth, counts stay right."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamwright.backend.server.jobs import eta, job_store
from dreamwright.backend.server.jobs.job_store import POSITION_SHARE
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers import dispatcher
from dreamwright.shared.job_states import ENDED
from dreamwright.shared.messages import CancelJob, SetPriority
from tests.testing.in_memory_server import InMemoryServer

POLICY = Policy(jobs_per_user=1000)


def exact(server: InMemoryServer) -> dict[str, int]:
    return {record.job: place for place, record in enumerate(server.store.waiting(), start=1)}


def test_positions_of_a_long_queue_follow_within_a_twentieth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_store, "SHORT_QUEUE", 10)
    server = InMemoryServer(tmp_path / "state", policy=POLICY)
    jobs = [server.submit(f"user{number % 5}") for number in range(60)]
    assert all(server.job(job).queue_position for job in jobs), "none is 0, which means not in the queue"
    server.request(SetPriority(jobs[40], -3), "user0")
    server.request(CancelJob(jobs[7]), "user2")
    assert server.job(jobs[7]).queue_position == 0
    for _ in range(20):
        server.step(1.0)
        places = exact(server)
        assert server.store.next_waiting().job == server.store.waiting()[0].job
        for job, place in places.items():
            assert abs(server.job(job).queue_position - place) <= POSITION_SHARE * place
        running = server.runner.given[-1]
        assert server.job(running).queue_position == 0
        server.finish(running)
    owners = {record.owner for record in server.store.records.values()}
    for owner in owners:
        own = [record for record in server.store.records.values() if record.owner == owner]
        assert server.store.ended_jobs(owner) == sum(record.state in ENDED for record in own)
        assert server.store.open_jobs(owner) == sum(record.state not in ENDED for record in own)
    assert server.store.open_jobs() == sum(server.store.open_jobs(owner) for owner in owners)
    before = list(exact(server))
    server.kill()
    server.open()
    assert [job for job in exact(server) if job in before] == before


def test_one_look_at_the_models_files_serves_all_jobs_of_a_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = InMemoryServer(tmp_path / "state", policy=POLICY)
    for number in range(12):
        server.submit(settings={"run.views_at_once": 1 + number % 2})
    asked: list[str] = []
    real = eta.duration_key
    monkeypatch.setattr(eta, "duration_key", lambda job: asked.append(job.job) or real(job))
    server.service.dispatcher.eta.update()
    assert len(asked) == 2


def test_many_idle_devices_get_their_jobs_over_several_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each assignment is written to the disk, and requests wait meanwhile."""
    monkeypatch.setattr(dispatcher, "ASSIGN_S", 0.0)
    server = InMemoryServer(tmp_path / "state", tuple(f"node/{number}" for number in range(10)), POLICY)
    jobs = [server.submit() for _ in range(12)]
    begun = []
    for _ in range(4):
        server.step()
        begun.append(len(server.runner.given))
    assert begun == [4, 8, 10, 10] and server.runner.given == jobs[:10]
