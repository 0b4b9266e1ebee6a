# SPDX-License-Identifier: GPL-3.0-or-later
"""Users share one queue: turns, limits, priorities, visibility of jobs, and estimates of when a job is ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamwright.backend.config.parsing import setting_bounds
from dreamwright.backend.server.jobs.eta import ETA_INTERVAL_S
from dreamwright.backend.server.policy import Policy, stated_bounds
from dreamwright.backend.server.workers.worker_protocol import ProgressReport
from dreamwright.shared.messages import (
    CancelJob,
    DeleteJob,
    FetchChunk,
    GetCapabilities,
    ListJobs,
    PauseJob,
    PinJob,
    ResumeJob,
    SetPriority,
    SubmitJob,
    Subscribe,
)
from tests.testing.in_memory_server import InMemoryServer

# --- the line


def test_fifty_jobs_of_one_user_do_not_delay_another(in_memory_server: InMemoryServer) -> None:
    flood = [in_memory_server.submit("ada") for _ in range(50)]
    in_memory_server.step()
    first = in_memory_server.submit("bob")
    assert in_memory_server.job(first).queue_position == 1
    in_memory_server.finish(flood[0])
    assert in_memory_server.runner.given == [flood[0], first]


def test_devices_are_busy_while_jobs_wait(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path, ("cuda:0", "cuda:1"))
    jobs = [in_memory_server.submit() for _ in range(3)]
    in_memory_server.step()
    assert {device: job.job for device, job in in_memory_server.runner.at_work.items()} == {
        "cuda:0": jobs[0],
        "cuda:1": jobs[1],
    }
    assert in_memory_server.job(jobs[1]).device == "cuda:1"
    in_memory_server.finish(jobs[1])
    assert in_memory_server.runner.at_work["cuda:1"].job == jobs[2]


def test_user_quota_counts_paused_jobs(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path, policy=Policy(jobs_per_user=2, jobs_total=3))
    first, second = in_memory_server.submit(), in_memory_server.submit()
    in_memory_server.request(PauseJob(second))
    request = SubmitJob("more", "a red mushroom", "", "starter", "draft", 0, {})
    assert (
        in_memory_server.refusal(request).code == "too-many"
        and "allowed are 2 a user" in in_memory_server.refusal(request).message
    )
    in_memory_server.submit("bob")
    assert in_memory_server.refusal(request, "cem").code == "queue-full"
    in_memory_server.request(CancelJob(first))
    in_memory_server.request(request)
    assert in_memory_server.request(request).job.job in in_memory_server.store.records, (
        "and asking for it again is answered although the limit is reached"
    )


def test_priorities_order_a_turn(in_memory_server: InMemoryServer) -> None:
    running = in_memory_server.submit("zoe")
    in_memory_server.step()
    a, b = in_memory_server.submit("ada"), in_memory_server.submit("bob")
    assert [in_memory_server.job(a).queue_position, in_memory_server.job(b).queue_position] == [1, 2]
    assert in_memory_server.refusal(SetPriority(b, 1), "bob").code == "not-allowed"
    assert in_memory_server.refusal(SetPriority(b, 1), "ada").code == "no-such-job"
    assert in_memory_server.request(SetPriority(a, -1)).job.queue_position == 2
    assert in_memory_server.request(SetPriority(a, 5), "root", admin=True).job.queue_position == 1
    assert (
        in_memory_server.refusal(SubmitJob("x", "a red mushroom", "", "starter", "draft", 0, {}, 1), "bob").code
        == "not-allowed"
    )
    in_memory_server.finish(running)
    assert in_memory_server.refusal(SetPriority(running, -1), "zoe").code == "not-now"
    in_memory_server.kill()
    in_memory_server.open()
    assert in_memory_server.job(a).priority == 5


def test_users_list_their_own_jobs_and_admins_all(in_memory_server: InMemoryServer) -> None:
    mine, other = in_memory_server.submit("ada"), in_memory_server.submit("bob")
    assert [job.job for job in in_memory_server.request(ListJobs()).jobs] == [mine]
    seen = in_memory_server.request(ListJobs(), "root", admin=True).jobs
    assert {(job.job, job.owner) for job in seen} == {(mine, "ada"), (other, "bob")}
    in_memory_server.request(Subscribe(), "root", admin=True)
    in_memory_server.request(Subscribe(), "ada")
    in_memory_server.request(CancelJob(other), "bob")
    assert [event.job.job for event in in_memory_server.events[b"root"] if event.job.state == "cancelled"] == [other]
    assert not in_memory_server.events.get(b"ada")
    for request in (
        CancelJob(other),
        PauseJob(other),
        ResumeJob(other),
        DeleteJob(other),
        PinJob(other, True),
        SetPriority(other, -1),
        FetchChunk(other, "mesh", 0, 1),
        Subscribe(other),
    ):
        theirs, none = (
            in_memory_server.refusal(request),
            in_memory_server.refusal(type(request)(*("f" * 16 if v == other else v for v in vars(request).values()))),
        )
        assert (theirs.code, theirs.message.replace(other, "")) == (none.code, none.message.replace("f" * 16, ""))


def test_capabilities_state_every_limit(in_memory_server: InMemoryServer) -> None:
    able = in_memory_server.request(GetCapabilities())
    assert able.bounds == stated_bounds(in_memory_server.policy)
    assert {(b.name, b.low, b.high) for b in able.setting_bounds} == {
        (name, low, high) for name, (low, high) in setting_bounds().items()
    }


# --- times


def test_eta_is_unknown_until_the_preset_was_measured(
    in_memory_server: InMemoryServer,
) -> None:
    jobs = [in_memory_server.submit() for _ in range(3)]
    in_memory_server.step()
    assert in_memory_server.job(jobs[1]).ready_high_s == -1
    in_memory_server.now += 4.0  # loading
    in_memory_server.report(ProgressReport, jobs[0], 1, 400, 0.5, 199.5)
    in_memory_server.now += 100.0
    in_memory_server.report(ProgressReport, jobs[0], 201, 400, 100.5, 99.5)
    in_memory_server.now += 6.0  # the mesh
    in_memory_server.finish(jobs[0])
    in_memory_server.report(ProgressReport, jobs[1], 0, 400, 0.0, 200.0)
    in_memory_server.step(ETA_INTERVAL_S)
    summary = in_memory_server.job(jobs[2])
    steps = in_memory_server.job(jobs[2]).steps
    one = 0.5 * steps + 9.5
    # The test sets the clock, so times are exact.
    assert summary.ready_low_s == pytest.approx(200.0 + one), "the one before it says how long it still takes"
    assert summary.ready_high_s == pytest.approx(200.0 + 9.5 + one), "and its mesh may or may not be included in that"
    in_memory_server.kill()
    in_memory_server.open()
    in_memory_server.step()
    in_memory_server.step(ETA_INTERVAL_S)
    assert in_memory_server.job(jobs[2]).ready_low_s == pytest.approx(2 * one), "measured times outlive the server"


def test_eta_depends_on_preset_and_settings(in_memory_server: InMemoryServer) -> None:
    done = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.report(ProgressReport, done, 1, 400, 0.5, 199.5)
    in_memory_server.report(ProgressReport, done, 100, 400, 50.0, 150.0)
    in_memory_server.finish(done)
    running = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.report(ProgressReport, running, 1, 400, 0.5, 100.0)
    like, heavier, other = (
        in_memory_server.submit(settings={"guidance.omega": 50.0}),
        in_memory_server.submit(settings={"render.samples": 99}),
        in_memory_server.submit(preset="paper"),
    )
    assert in_memory_server.job(like).ready_high_s > 0
    assert in_memory_server.job(heavier).ready_high_s == in_memory_server.job(other).ready_high_s == -1
