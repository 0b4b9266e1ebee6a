# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving jobs, draining devices and freeing the disk: by admins and the user of a server without keys, and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamwright.backend.server.jobs.retention import FREED_AT_ONCE
from dreamwright.backend.server.transport.authorized_keys import LOCAL
from dreamwright.backend.server.workers.drained_devices import DRAINED_FILE, DrainedDevices
from dreamwright.shared.messages import (
    CancelJob,
    Done,
    FetchChunk,
    GetStatus,
    JobReply,
    ListJobs,
    PauseJob,
    PinJob,
    ResumeJob,
)
from dreamwright.shared.operator_messages import DiskFreed, DrainDevice, FreeDisk, MoveJob
from tests.testing.in_memory_server import InMemoryServer


@pytest.mark.parametrize("request_", [DrainDevice("cpu", True), FreeDisk()])
def test_users_may_not(in_memory_server: InMemoryServer, request_: object) -> None:
    assert in_memory_server.refusal(request_).code == "not-allowed"
    in_memory_server.request(request_, "eve", admin=True)
    in_memory_server.request(request_, LOCAL)


def test_a_user_may_not_move_a_job_and_learns_nothing_of_others(in_memory_server: InMemoryServer) -> None:
    job = in_memory_server.submit("ada")
    assert in_memory_server.refusal(MoveJob(job)).code == "not-allowed"
    assert in_memory_server.refusal(MoveJob(job), "bob").code == "no-such-job"


def queue(server: InMemoryServer) -> list[str]:
    return [record.job for record in server.store.waiting()]


def test_a_moved_job_starts_before_all_others_and_its_owner_loses_no_turn(in_memory_server: InMemoryServer) -> None:
    server = in_memory_server
    running = server.submit("ada")
    server.step()
    for owner in ("ada", "ada", "bob", "bob"):
        server.submit(owner)
    before = queue(server)
    last = before[-1]
    reply = server.request(MoveJob(last), "eve", admin=True)
    assert isinstance(reply, JobReply) and reply.job.queue_position == 1
    assert queue(server) == [last, *before[:-1]]
    second = before[-2]
    server.request(MoveJob(second), "eve", admin=True)
    assert queue(server) == [second, last, *before[:-2]]  # the job that was moved last goes first
    server.kill()
    server.open()  # a restart keeps the order
    assert [job for job in queue(server) if job != running] == [second, last, *before[:-2]]


def test_only_queued_jobs_can_be_moved(in_memory_server: InMemoryServer) -> None:
    job = in_memory_server.submit("ada")
    in_memory_server.step()
    assert in_memory_server.refusal(MoveJob(job), "eve", admin=True).code == "not-now"


def test_a_paused_job_gives_its_moved_place_back(in_memory_server: InMemoryServer) -> None:
    server = in_memory_server
    server.submit("ada")
    server.step()
    first, second = server.submit("bob"), server.submit("bob")
    server.request(MoveJob(second), "eve", admin=True)
    server.request(PauseJob(second), "bob")
    server.request(ResumeJob(second), "bob")
    assert queue(server) == [first, second]


def test_no_job_starts_on_a_drained_device_until_it_is_used_again(tmp_path: Path) -> None:
    server = InMemoryServer(tmp_path / "state", ("cuda:0", "cuda:1"))
    assert server.request(DrainDevice("cuda:0", True), "eve", admin=True) == Done()
    jobs = [server.submit("ada") for _ in range(3)]
    server.step()
    assert [job.job for job in server.runner.at_work.values()] == [jobs[0]] and "cuda:1" in server.runner.at_work
    server.finish(jobs[0])
    server.step()
    assert server.runner.at_work.keys() == {"cuda:1"}
    status = {device.name: device for device in server.request(GetStatus(), "ada").devices}
    assert (status["cuda:0"].draining, status["cuda:0"].state) == (True, "idle")
    assert not status["cuda:1"].draining
    server.kill()
    server.open()  # a restart does not forget it
    server.step()
    assert server.runner.at_work.keys() == {"cuda:1"}
    server.request(DrainDevice("cuda:0", False), "eve", admin=True)
    server.step()
    assert server.runner.at_work.keys() == {"cuda:0", "cuda:1"}


def test_the_running_job_of_a_drained_device_goes_on(in_memory_server: InMemoryServer) -> None:
    server = in_memory_server
    job = server.submit("ada")
    server.step()
    server.request(DrainDevice("cpu", True), "eve", admin=True)
    (device,) = server.request(GetStatus(), "eve", admin=True).devices
    assert (device.draining, device.state, device.job) == (True, "busy", job)
    server.finish(job)


def test_an_unknown_device_is_refused_by_name(in_memory_server: InMemoryServer) -> None:
    refusal = in_memory_server.refusal(DrainDevice("cuda:7", True), "eve", admin=True)
    assert refusal.code == "bad-input" and "this server has cpu" in refusal.message


@pytest.mark.parametrize("content", ["", "{", "{}", "[1]", "\udc80"])
def test_a_damaged_file_of_drained_devices_drains_none(tmp_path: Path, content: str) -> None:
    (tmp_path / DRAINED_FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
    devices = DrainedDevices(tmp_path)
    assert "cpu" not in devices
    devices.set("cpu", True)
    assert json.loads((tmp_path / DRAINED_FILE).read_text()) == ["cpu"] and "cpu" in DrainedDevices(tmp_path)


def ended(server: InMemoryServer, owner: str = "ada") -> str:
    job = server.submit(owner)
    server.step()
    server.finish(job, b"mesh")
    return job


def listed(server: InMemoryServer) -> set[str]:
    return {job.job for job in server.request(ListJobs(), "eve", admin=True).jobs}


def test_freeing_the_disk_takes_only_what_somebody_has_or_nobody_wants(in_memory_server: InMemoryServer) -> None:
    server = in_memory_server
    fetched, kept, pinned = ended(server), ended(server), ended(server)
    for job in (fetched, pinned):
        server.request(FetchChunk(job, "mesh", 0, 100), "ada")
    server.request(PinJob(pinned, True), "ada")
    waiting = server.submit("ada")
    server.request(CancelJob(waiting), "ada")  # no mesh
    running = server.submit("ada")
    server.step()
    freed = server.request(FreeDisk(), "eve", admin=True)
    assert isinstance(freed, DiskFreed) and (freed.jobs, freed.left) == (2, 0) and freed.size >= 4
    assert listed(server) == {kept, pinned, running}
    assert not server.store.job_folder(fetched).exists()
    assert server.request(FreeDisk(), "eve", admin=True) == DiskFreed(0, 0, 0)


def test_one_request_deletes_a_bounded_number_of_jobs(in_memory_server: InMemoryServer) -> None:
    server = in_memory_server
    for _ in range(FREED_AT_ONCE + 3):
        server.request(CancelJob(server.submit("ada")), "ada")
    assert server.request(FreeDisk(), "eve", admin=True).left == 3
    assert server.request(FreeDisk(), "eve", admin=True).left == 0


def test_a_full_disk_refuses_and_changes_nothing(in_memory_server: InMemoryServer) -> None:
    server = in_memory_server
    server.submit("ada")
    server.step()
    first, second = server.submit("ada"), server.submit("ada")
    server.disk.full = True
    assert server.refusal(MoveJob(second), "eve", admin=True).code == "no-space"
    server.disk.full = False
    assert queue(server) == [first, second]
