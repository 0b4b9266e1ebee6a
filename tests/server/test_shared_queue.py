# SPDX-License-Identifier: GPL-3.0-or-later
"""Users share one queue: turns, limits and priorities, whose jobs one sees, and when a job will be ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamwright.backend.config.parsing import BOUNDS
from dreamwright.backend.server.policy import Policy, stated_bounds
from dreamwright.backend.server.workers.dispatcher import RECKON_S
from dreamwright.backend.server.workers.worker_protocol import Stepped
from dreamwright.shared.messages import (
    AskCapabilities,
    Cancel,
    Fetch,
    Forget,
    ListJobs,
    Pause,
    Pin,
    Prioritize,
    Resume,
    Submit,
    Subscribe,
)
from tests.testing.in_memory_server import Yard, yard  # noqa: F401 (fixture)

# --- the line


def test_fifty_jobs_of_one_user_do_not_delay_the_first_of_another(yard: Yard) -> None:
    flood = [yard.submit("ada") for _ in range(50)]
    yard.work()
    first = yard.submit("bob")
    assert yard.job(first).queue_place == 1
    yard.finish(flood[0])
    assert yard.hands.given == [flood[0], first]


def test_every_device_works_while_anything_waits(tmp_path: Path) -> None:
    yard = Yard(tmp_path, ("cuda:0", "cuda:1"))
    jobs = [yard.submit() for _ in range(3)]
    yard.work()
    assert {device: job.job for device, job in yard.hands.at_work.items()} == {"cuda:0": jobs[0], "cuda:1": jobs[1]}
    assert yard.job(jobs[1]).device == "cuda:1"
    yard.finish(jobs[1])
    assert yard.hands.at_work["cuda:1"].job == jobs[2]


def test_a_user_s_limit_counts_paused_jobs_and_hinders_nobody_else(tmp_path: Path) -> None:
    yard = Yard(tmp_path, policy=Policy(jobs_per_user=2, jobs_total=3))
    first, second = yard.submit(), yard.submit()
    yard.ask(Pause(second))
    asked = Submit("more", "a red mushroom", "", "starter", "draft", 0, {})
    assert yard.refused(asked).code == "too-many" and "allowed are 2 a user" in yard.refused(asked).message
    yard.submit("bob")
    assert yard.refused(asked, "cem").code == "queue-full"
    yard.ask(Cancel(first))
    yard.ask(asked)
    assert yard.ask(asked).job.job in yard.ledger.entries, (
        "and asking for it again is answered although the limit is reached"
    )


def test_priorities_order_a_turn_and_only_admins_raise_them(yard: Yard) -> None:
    running = yard.submit("zoe")
    yard.work()
    a, b = yard.submit("ada"), yard.submit("bob")
    assert [yard.job(a).queue_place, yard.job(b).queue_place] == [1, 2]
    assert yard.refused(Prioritize(b, 1), "bob").code == "not-allowed"
    assert yard.refused(Prioritize(b, 1), "ada").code == "no-such-job"
    assert yard.ask(Prioritize(a, -1)).job.queue_place == 2
    assert yard.ask(Prioritize(a, 5), "root", admin=True).job.queue_place == 1
    assert yard.refused(Submit("x", "a red mushroom", "", "starter", "draft", 0, {}, 1), "bob").code == "not-allowed"
    yard.finish(running)
    assert yard.refused(Prioritize(running, -1), "zoe").code == "not-now"
    yard.kill()
    yard.open()
    assert yard.job(a).priority == 5


def test_users_see_their_own_jobs_and_an_admin_everybody_s(yard: Yard) -> None:
    mine, other = yard.submit("ada"), yard.submit("bob")
    assert [job.job for job in yard.ask(ListJobs()).jobs] == [mine]
    seen = yard.ask(ListJobs(), "root", admin=True).jobs
    assert {(job.job, job.owner) for job in seen} == {(mine, "ada"), (other, "bob")}
    yard.ask(Subscribe(), "root", admin=True)
    yard.ask(Subscribe(), "ada")
    yard.ask(Cancel(other), "bob")
    assert [event.job.job for event in yard.events[b"root"] if event.job.state == "cancelled"] == [other]
    assert not yard.events.get(b"ada")
    for request in (Cancel(other), Pause(other), Resume(other), Forget(other), Pin(other, True), Prioritize(other, -1),
                    Fetch(other, "mesh", 0, 1), Subscribe(other)):  # fmt: skip
        theirs, none = (
            yard.refused(request),
            yard.refused(type(request)(*("f" * 16 if v == other else v for v in vars(request).values()))),
        )
        assert (theirs.code, theirs.message.replace(other, "")) == (none.code, none.message.replace("f" * 16, ""))


def test_the_capabilities_state_every_limit(yard: Yard) -> None:
    able = yard.ask(AskCapabilities())
    assert able.bounds == stated_bounds(yard.policy)
    assert {(b.name, b.low, b.high) for b in able.setting_bounds} == {
        (name, low, high) for name, (low, high) in BOUNDS.items()
    }


# --- times


def test_the_time_of_a_queued_job_is_unknown_until_its_preset_was_measured_on_this_device(yard: Yard) -> None:
    jobs = [yard.submit() for _ in range(3)]
    yard.work()
    assert yard.job(jobs[1]).ready_high_s == -1
    yard.now += 4.0  # loading
    yard.report(Stepped, jobs[0], 1, 400, 0.5, 199.5)
    yard.now += 100.0
    yard.report(Stepped, jobs[0], 201, 400, 100.5, 99.5)
    yard.now += 6.0  # the mesh
    yard.finish(jobs[0])
    yard.report(Stepped, jobs[1], 0, 400, 0.0, 200.0)
    yard.work(RECKON_S)
    told = yard.job(jobs[2])
    steps = yard.job(jobs[2]).steps
    one = 0.5 * steps + 9.5
    assert told.ready_low_s == pytest.approx(200.0 + one, abs=0.1), "the one before it says how long it still takes"
    assert told.ready_high_s == pytest.approx(200.0 + 9.5 + one, abs=0.1), (
        "and its mesh may or may not be included in that"
    )
    yard.kill()
    yard.open()
    yard.work()
    yard.work(RECKON_S)
    assert yard.job(jobs[2]).ready_low_s == pytest.approx(2 * one, abs=0.1), "measured times outlive the server"


def test_another_preset_or_a_heavier_setting_has_a_time_of_its_own(yard: Yard) -> None:
    done = yard.submit()
    yard.work()
    yard.report(Stepped, done, 1, 400, 0.5, 199.5)
    yard.report(Stepped, done, 100, 400, 50.0, 150.0)
    yard.finish(done)
    running = yard.submit()
    yard.work()
    yard.report(Stepped, running, 1, 400, 0.5, 100.0)
    like, heavier, other = (
        yard.submit(settings={"guidance.omega": 50.0}),
        yard.submit(settings={"render.samples": 99}),
        yard.submit(preset="paper"),
    )
    assert yard.job(like).ready_high_s > 0
    assert yard.job(heavier).ready_high_s == yard.job(other).ready_high_s == -1
