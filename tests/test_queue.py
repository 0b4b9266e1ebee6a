# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's decisions with a clock, workers and a disk that do as the test says; no sockets, no waiting."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from dreamwright.backend.server.audience import Audience
from dreamwright.backend.server.dispatch import RECKON_S, RETRY_S, SWEEP_S
from dreamwright.backend.server.fence import FENCE_FILE, check_fence
from dreamwright.backend.server.foreman import Died
from dreamwright.backend.server.ledger import SCHEMA_VERSION, Ledger
from dreamwright.backend.server.orders import Ended, Noted, Stepped
from dreamwright.backend.server.policy import Policy, stated_bounds
from dreamwright.backend.server.service import Service
from dreamwright.backend.server.worker import MESH_FILE
from dreamwright.backend.settings import BOUNDS
from dreamwright.shared.faults import Refused
from dreamwright.shared.messages import (
    AskCapabilities,
    Cancel,
    Fetch,
    Forget,
    JobSummary,
    ListJobs,
    Pause,
    Pin,
    Prioritise,
    Resume,
    Submit,
    Subscribe,
)

DAY = 86_400.0


class Hands:
    """A foreman without processes."""

    def __init__(self, devices: tuple[str, ...]) -> None:
        self.free = list(devices)
        self.at_work: dict[str, JobSummary] = {}  # by device
        self.given: list[str] = []
        self.told: list[Any] = []

    def idle(self) -> list[str]:
        return list(self.free)

    def give(self, device: str, job: JobSummary, folder: Path) -> None:
        check_fence(folder, job.attempt)
        self.free.remove(device)
        self.at_work[device] = job
        self.given.append(job.job)

    def stop(self, job: str, why: str) -> None:
        pass

    def reports(self) -> Iterator[Any]:
        told, self.told = self.told, []
        for report in told:
            if isinstance(report, (Ended, Died)):
                for device, job in list(self.at_work.items()):
                    if job.job == report.job:
                        del self.at_work[device]
                        self.free.append(device)
            yield report


class FullDisk:
    """A database connection whose writes can be made to fail as on a full disk."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real, self.full = real, False

    def execute(self, statement: str, *values: Any) -> Any:
        if self.full and statement.startswith(("INSERT", "DELETE")):
            raise sqlite3.OperationalError("database or disk is full")
        return self._real.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Yard:
    """A service on a state folder, with everything around it in the test's hands."""

    def __init__(self, folder: Path, devices: tuple[str, ...] = ("cpu",), policy: Policy = Policy()) -> None:
        self.folder, self.devices, self.policy = folder, devices, policy
        self.now, self.wall = 1000.0, 1.8e9
        self.tickets = 0
        self.open()

    def open(self) -> None:
        self.ledger = Ledger(self.folder, lambda: self.wall, lambda: self.now)
        self.disk = FullDisk(self.ledger._db)
        self.ledger._db = self.disk
        self.hands = Hands(self.devices)
        self.events: dict[bytes, list[Any]] = {}
        audience = Audience(lambda route, event: self.events.setdefault(route, []).append(event) is None, lambda: self.now)
        self.service = Service(self.ledger, self.hands, audience, self.devices, "test", "epoch", lambda: self.now, self.policy)

    def kill(self) -> None:
        """As SIGKILL leaves it: nothing more is written."""
        self.ledger._db._real.close()

    def ask(self, request: Any, owner: str = "ada", admin: bool = False) -> Any:
        return self.service.answer(request, owner, owner.encode(), admin)

    def submit(self, owner: str = "ada", admin: bool = False, **changes: Any) -> str:
        self.tickets += 1
        fields = {"ticket": f"t{self.tickets}", "prompt": "a red mushroom", "negative": "", "model": "starter", "preset": "draft",
                  "seed": 0, "settings": {}}  # fmt: skip
        return self.ask(Submit(**(fields | changes)), owner, admin).job.job

    def work(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.wall += seconds
        self.service.work()

    def report(self, kind: Callable[..., Any], job: str, *fields: Any) -> None:
        self.hands.told.append(replace(kind(job, *fields), attempt=self.job(job).attempt))
        self.work()

    def job(self, job: str) -> JobSummary:
        return self.ledger.entries[job].summary

    def finish(self, job: str, mesh: bytes = b"mesh") -> None:
        (self.ledger.job_folder(job) / MESH_FILE).write_bytes(mesh)
        self.report(Ended, job, "succeeded", "", True)
        assert self.job(job).state == "succeeded"

    def refused(self, request: Any, owner: str = "ada", admin: bool = False) -> Refused:
        with pytest.raises(Refused) as caught:
            self.ask(request, owner, admin)
        return caught.value


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path / "state")


# --- the line


def test_fifty_jobs_of_one_user_do_not_delay_the_first_of_another(yard: Yard) -> None:
    flood = [yard.submit("ada") for _ in range(50)]
    yard.work()
    first = yard.submit("bob")
    assert yard.job(first).queue_place == 1
    yard.finish(flood[0])
    assert yard.hands.given == [flood[0], first]


def test_turns_and_interrupted_work_are_remembered_over_a_kill(yard: Yard) -> None:
    mine = [yard.submit("ada") for _ in range(3)]
    yard.work()
    yard.finish(mine[0])
    assert yard.hands.given == mine[:2]
    other = yard.submit("bob")
    yard.kill()
    yard.open()
    assert yard.job(mine[1]).state == "queued" and yard.job(mine[1]).queue_place == 1, "it had its turn and keeps it"
    assert yard.job(other).queue_place == 2, "bob was not served yet, ada was"
    yard.work()
    assert yard.hands.given == [mine[1]] and yard.job(mine[1]).attempt == 2


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
    assert yard.ask(asked).job.job in yard.ledger.entries, "and asking for it again is answered although the limit is reached"


def test_priorities_order_a_turn_and_only_admins_raise_them(yard: Yard) -> None:
    running = yard.submit("zoe")
    yard.work()
    a, b = yard.submit("ada"), yard.submit("bob")
    assert [yard.job(a).queue_place, yard.job(b).queue_place] == [1, 2]
    assert yard.refused(Prioritise(b, 1), "bob").code == "not-allowed"
    assert yard.refused(Prioritise(b, 1), "ada").code == "no-such-job"
    assert yard.ask(Prioritise(a, -1)).job.queue_place == 2
    assert yard.ask(Prioritise(a, 5), "root", admin=True).job.queue_place == 1
    assert yard.refused(Submit("x", "a red mushroom", "", "starter", "draft", 0, {}, 1), "bob").code == "not-allowed"
    yard.finish(running)
    assert yard.refused(Prioritise(running, -1), "zoe").code == "not-now"
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
    for request in (Cancel(other), Pause(other), Resume(other), Forget(other), Pin(other, True), Prioritise(other, -1),
                    Fetch(other, "mesh", 0, 1), Subscribe(other)):  # fmt: skip
        theirs, none = yard.refused(request), yard.refused(type(request)(*("f" * 16 if v == other else v for v in vars(request).values())))
        assert (theirs.code, theirs.message.replace(other, "")) == (none.code, none.message.replace("f" * 16, ""))


def test_the_capabilities_state_every_limit(yard: Yard) -> None:
    able = yard.ask(AskCapabilities())
    assert able.bounds == stated_bounds(yard.policy)
    assert {(b.name, b.low, b.high) for b in able.setting_bounds} == {(name, low, high) for name, (low, high) in BOUNDS.items()}


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
    assert told.ready_high_s == pytest.approx(200.0 + 9.5 + one, abs=0.1), "and its mesh may or may not be included in that"
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
    like, heavier, other = yard.submit(settings={"guidance.omega": 50.0}), yard.submit(settings={"render.samples": 99}), yard.submit(preset="paper")
    assert yard.job(like).ready_high_s > 0
    assert yard.job(heavier).ready_high_s == yard.job(other).ready_high_s == -1


# --- one worker a job


def test_what_an_earlier_attempt_reports_changes_nothing(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    yard.hands.told.append(Died(name, -9))
    yard.work()
    assert yard.job(name).attempt == 2 and yard.job(name).state == "running"
    for late in (Stepped(name, 9, 10, 1.0, 1.0, 1), Noted(name, "", "late", 1), Ended(name, "succeeded", "", False, 1), Ended(name, "failed", "", False)):
        before = yard.job(name)
        yard.hands.told.append(late)
        for device in list(yard.hands.at_work):
            yard.service._dispatch._take(yard.hands.told.pop())
        assert yard.job(name) == before


def test_a_job_that_gets_on_survives_more_deaths_than_one_that_does_not(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    steps = yard.job(name).steps
    for death in range(1, 6):
        yard.report(Stepped, name, death * steps // 10, steps, 1.0, 1.0)
        yard.hands.told.append(Died(name, -9))
        yard.work()
        assert yard.job(name).state == "running"
    for _ in range(2):
        yard.hands.told.append(Died(name, -9))
        yard.work()
    assert yard.job(name).state == "failed" and "3 times" in yard.job(name).message


def test_the_last_checkpoint_stays_until_the_end_is_written_down(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    checkpoints = yard.ledger.job_folder(name) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "checkpoint.safetensors").write_bytes(b"x")
    yard.disk.full = True
    (yard.ledger.job_folder(name) / MESH_FILE).write_bytes(b"mesh")
    yard.report(Ended, name, "succeeded", "", True)
    assert yard.job(name).state == "running" and checkpoints.exists()
    yard.disk.full = False
    yard.work(RETRY_S)
    assert yard.job(name).state == "succeeded" and yard.job(name).mesh_bytes == 4 and not checkpoints.exists()


def test_folders_of_jobs_that_nobody_knows_are_cleared_away_at_the_start_and_others_are_not(yard: Yard) -> None:
    kept = yard.submit()
    jobs = yard.folder / "jobs"
    for name in (kept, "0123456789abcdef", "somebody's own"):
        (jobs / name).mkdir(parents=True, exist_ok=True)
    yard.kill()
    yard.open()
    assert {path.name for path in jobs.iterdir()} == {kept, "somebody's own"}


# --- a full disk


def test_a_submit_that_cannot_be_written_is_refused_with_what_to_do_and_leaves_no_job(yard: Yard) -> None:
    yard.disk.full = True
    with pytest.raises(Refused, match="cannot write to .*disk is full.*make room on its disk, then send it again") as refused:
        yard.submit()
    assert refused.value.code == "no-space" and not yard.ledger.entries and yard.ledger.find_ticket("ada", "t1") is None
    yard.disk.full = False
    yard.tickets = 0
    assert yard.job(yard.submit()).state == "queued"


def test_a_job_waits_with_a_sentence_while_the_disk_is_full_and_starts_when_it_is_not(yard: Yard) -> None:
    name = yard.submit()
    yard.disk.full = True
    yard.work()
    assert yard.job(name).state == "queued" and "waiting: the server cannot write" in yard.job(name).message
    assert yard.hands.given == []
    yard.disk.full = False
    yard.work(RETRY_S)
    assert yard.hands.given == [name] and yard.job(name).message == "starting"


def test_a_job_folder_that_cannot_be_made_lets_the_job_wait(yard: Yard) -> None:
    name = yard.submit()
    (yard.folder / "jobs").write_text("in the way")
    yard.work()
    assert yard.job(name).state == "queued" and "make room on its disk" in yard.job(name).message
    (yard.folder / "jobs").unlink()
    yard.work(RETRY_S)
    assert yard.hands.given == [name]


@pytest.mark.parametrize("request_of", [Cancel, Pause, lambda job: Prioritise(job, -1), lambda job: Pin(job, True)])
def test_what_cannot_be_written_is_not_believed_either(request_of: Callable[[str], Any], yard: Yard) -> None:
    name = yard.submit()
    before = yard.job(name)
    yard.disk.full = True
    assert yard.refused(request_of(name)).code == "no-space"
    assert yard.job(name) == before


def test_the_death_of_a_worker_is_counted_once_the_disk_takes_it(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    yard.disk.full = True
    yard.hands.told.append(Died(name, -9))
    yard.work()
    assert yard.job(name).state == "running"
    yard.disk.full = False
    yard.work(RETRY_S)
    assert yard.ledger.entries[name].attempts == 1 and yard.job(name).attempt == 2


def test_sqlite_s_own_full_disk_leaves_memory_and_file_as_they_were(yard: Yard) -> None:
    """Not a pretended error: SQLite is told that its file may not grow."""
    pages = yard.disk.execute("PRAGMA page_count").fetchone()[0]
    yard.disk.execute(f"PRAGMA max_page_count={pages + 3}")
    made = []
    with pytest.raises(Refused, match="disk is full"):
        for _ in range(50):
            made.append(yard.submit(prompt="a red mushroom", settings={"mesh.height_m": 1.0}))
    assert 0 < len(made) < 50
    yard.disk.execute("PRAGMA max_page_count=1000000")
    made.append(yard.submit())
    before = {name: (entry.arrival, entry.state) for name, entry in yard.ledger.entries.items()}
    yard.kill()
    yard.open()
    assert {name: (entry.arrival, entry.state) for name, entry in yard.ledger.entries.items()} == before
    assert list(before) == made


def test_forgetting_makes_room_even_on_a_full_disk(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    yard.finish(name)
    yard.disk.full = True
    assert yard.refused(Forget(name)).code == "no-space"
    assert not yard.ledger.job_folder(name).exists(), "its files went, so that the next try can be written"


# --- what is kept


def test_results_go_when_kept_long_enough_and_subscribers_hear_of_it(tmp_path: Path) -> None:
    yard = Yard(tmp_path, policy=Policy(keep_days=1))
    jobs = {what: yard.submit() for what in ("fetched", "unfetched", "pinned", "failed")}
    yard.work()
    for what in ("fetched", "unfetched", "pinned"):
        yard.finish(jobs[what])
    yard.report(Ended, jobs["failed"], "failed", "no luck", False)
    assert yard.ask(Fetch(jobs["fetched"], "mesh", 0, 2)).data == b"me"
    assert not yard.job(jobs["fetched"]).fetched, "half is not all"
    yard.ask(Fetch(jobs["fetched"], "mesh", 2, 2))
    assert yard.job(jobs["fetched"]).fetched
    yard.ask(Pin(jobs["pinned"], True))
    yard.work(DAY - 2 * SWEEP_S)
    assert set(yard.ledger.entries) == set(jobs.values())
    yard.ask(Subscribe())
    yard.work(4 * SWEEP_S)
    assert set(yard.ledger.entries) == {jobs["unfetched"], jobs["pinned"]}
    assert not yard.ledger.job_folder(jobs["fetched"]).exists() and yard.ledger.job_folder(jobs["pinned"]).exists()
    assert {event.job for event in yard.events[b"ada"] if type(event).__name__ == "JobForgotten"} == {jobs["fetched"], jobs["failed"]}
    yard.work(DAY)
    yard.work(DAY)
    assert set(yard.ledger.entries) == {jobs["pinned"]}


def test_a_user_pins_so_many_and_no_more(tmp_path: Path) -> None:
    yard = Yard(tmp_path, policy=Policy(pinned_per_user=1))
    first, second = yard.submit(), yard.submit()
    yard.ask(Pin(first, True))
    yard.ask(Pin(first, True))
    assert "allowed are 1 a user; unpin one" in yard.refused(Pin(second, True)).message
    yard.ask(Pin(first, False))
    assert yard.ask(Pin(second, True)).job.pinned


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_that_jumps_by_an_hour_changes_no_decision(jump_s: float, tmp_path: Path) -> None:
    """The same hour of work with and without a jump of the wall clock in it: same jobs, states, places, times, events."""

    def hour(folder: Path, jump: float) -> list[Any]:
        yard = Yard(folder, policy=Policy(keep_days=0.05))
        seen: list[Any] = []
        yard.ask(Subscribe())
        jobs = [yard.submit() for _ in range(4)]
        yard.work()
        for minute in range(60):
            if minute == 20:
                yard.wall += jump
            if minute % 15 == 10:
                yard.report(Stepped, jobs[minute // 15], 1, 400, 1.0, 399.0)
                yard.report(Stepped, jobs[minute // 15], 100, 400, 100.0, 300.0)
            if minute % 15 == 14:
                yard.finish(jobs[minute // 15])
            yard.work(60.0)
            told = [yard.ledger.entries.get(job) for job in jobs]
            seen.append([e and (e.state, e.summary.queue_place, e.summary.ready_low_s, e.summary.ready_high_s, e.attempts) for e in told])
        return [seen, len(yard.events[b"ada"])]

    assert hour(tmp_path / "jumped", jump_s) == hour(tmp_path / "steady", 0.0)


# --- the file


def test_a_ledger_of_version_1_is_taken_over(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    name = yard.submit("bob")
    yard.kill()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as old:
        old.executescript("ALTER TABLE jobs DROP COLUMN turn; ALTER TABLE jobs DROP COLUMN ended_age; DROP TABLE turns; DROP TABLE paces;")
        old.execute("PRAGMA user_version=1")
        new = "owner priority attempt device ready_low_s ready_high_s pinned fetched".split()
        old.execute(f"UPDATE jobs SET summary = json_remove(summary, {', '.join(repr('$.' + field) for field in new)})")
    old.close()
    yard.open()
    assert (yard.job(name).owner, yard.job(name).state, yard.job(name).queue_place) == ("bob", "queued", 1)
    assert yard.ledger._db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION


def test_the_fence_is_raised_before_a_worker_hears_of_the_job(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    assert (yard.ledger.job_folder(name) / FENCE_FILE).read_text() == "1\n"
