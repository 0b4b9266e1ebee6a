# SPDX-License-Identifier: GPL-3.0-or-later
"""The status that the server reports: an admin gets all of it, others their own jobs, and no one a prompt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dreamwright.backend.server.monitoring.status_reporter import DISK_INTERVAL_S, PRESENT_S
from dreamwright.backend.server.transport.authorized_keys import LOCAL
from dreamwright.backend.server.workers.worker_protocol import ProgressReport
from dreamwright.shared.codec import pack
from dreamwright.shared.messages import GetStatus, Hello, PauseJob
from dreamwright.shared.status import MAX_JOBS, DeviceStatus
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.scripted_worker_server import submit_message
from tests.testing.status_tables import rendered_table


def test_admin_sees_devices_jobs_users_and_speed(in_memory_server: InMemoryServer) -> None:
    running, queued = in_memory_server.submit("ada"), in_memory_server.submit("bob", priority=-2)
    paused = in_memory_server.submit("bob")
    in_memory_server.request(PauseJob(paused), "bob")
    in_memory_server.step()
    for step in (10, 20, 30):
        in_memory_server.now += 4.0
        in_memory_server.report(ProgressReport, running, step, 100, step / 2.5, 28.0)
    in_memory_server.now += 2.0
    status = in_memory_server.request(GetStatus(), "admin", admin=True)
    assert status.sees_all and status.jobs_open == 3
    (device,) = status.devices
    assert (device.name, device.state, device.job, device.user, device.silent_s) == ("cpu", "busy", running, "ada", 2.0)
    assert device.steps_per_s == pytest.approx(2.5)
    lines = [(job.job, job.user, job.state, job.place, job.step, job.steps, job.device) for job in status.jobs]
    steps = in_memory_server.job(queued).steps
    assert lines == [
        (running, "ada", "running", 0, 30, 100, "cpu"),
        (queued, "bob", "queued", 1, 0, steps, ""),
        (paused, "bob", "paused", 0, 0, steps, ""),
    ]
    assert status.jobs[0].eta_s == 28.0 and status.jobs[1].priority == -2
    counts = {user.name: (user.running, user.queued, user.paused, user.connections) for user in status.users}
    assert counts == {"ada": (1, 0, 0, 0), "bob": (0, 1, 1, 0), "admin": (0, 0, 0, 1)}
    assert {user.name: round(user.seen_s) for user in status.users} == {"ada": 14, "bob": 14, "admin": 0}


def test_users_see_their_own_jobs_and_busy_devices(in_memory_server: InMemoryServer) -> None:
    in_memory_server.submit("ada", prompt="a red chair")
    mine = in_memory_server.submit("bob")
    in_memory_server.step()
    status = in_memory_server.request(GetStatus(), "bob")
    assert (
        not status.sees_all
        and [job.job for job in status.jobs] == [mine]
        and [user.name for user in status.users] == ["bob"]
    )
    assert status.devices == (DeviceStatus("cpu", "busy", "", "", 0.0, -1.0),)
    assert (status.disk_used_bytes, status.disk_free_bytes, status.connections, status.jobs_open) == (0, 0, 1, 1)
    assert b"ada" not in pack(status) and b"chair" not in pack(status)
    assert "You see your own jobs only" in rendered_table(status) and "--admin" in rendered_table(status)


def test_status_contains_no_prompt(in_memory_server: InMemoryServer) -> None:
    in_memory_server.submit("ada", prompt="a red mushroom", negative="a blue chair")
    for owner, is_admin in (("ada", False), ("admin", True)):
        output = pack(in_memory_server.request(GetStatus(), owner, is_admin))
        assert b"mushroom" not in output and b"chair" not in output


def test_unencrypted_server_shows_all_local_jobs(
    in_memory_server: InMemoryServer,
) -> None:
    in_memory_server.submit(LOCAL)
    assert in_memory_server.request(GetStatus(), LOCAL).sees_all
    in_memory_server.submit("anna")
    status = in_memory_server.request(GetStatus(), LOCAL)
    assert not status.sees_all and len(status.jobs) == 1


def test_long_queue_is_truncated_with_its_length(tmp_path: Path) -> None:
    from dreamwright.backend.server.policy import Policy

    in_memory_server = InMemoryServer(tmp_path, policy=Policy(jobs_per_user=1000, jobs_total=1000))
    for _ in range(MAX_JOBS + 3):
        in_memory_server.store.add("ada", submit_message(f"t{len(in_memory_server.store.records)}"), 10)
    status = in_memory_server.request(GetStatus(), "admin", admin=True)
    assert len(status.jobs) == MAX_JOBS and status.jobs_open == MAX_JOBS + 3
    assert f"and {MAX_JOBS + 3 - 4} more" in rendered_table(dataclasses.replace(status, jobs=status.jobs[:4]))


def test_silent_connections_expire(
    in_memory_server: InMemoryServer,
) -> None:
    in_memory_server.request(Hello("c", "test"), "ada")
    assert in_memory_server.request(GetStatus(), "admin", admin=True).connections == 2
    in_memory_server.now += PRESENT_S + 1
    status = in_memory_server.request(GetStatus(), "admin", admin=True)
    assert status.connections == 1
    assert {user.name: (user.connections, user.seen_s) for user in status.users} == {
        "ada": (0, PRESENT_S + 1),
        "admin": (1, 0.0),
    }


def test_disk_usage_counts_meshes_and_checkpoints(
    in_memory_server: InMemoryServer,
) -> None:
    done, going = in_memory_server.submit(), in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.finish(done, b"m" * 1000)
    in_memory_server.step()
    folder = in_memory_server.store.job_folder(going) / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"c" * 234)
    in_memory_server.now += DISK_INTERVAL_S
    status = in_memory_server.request(GetStatus(), "admin", admin=True)
    assert status.disk_used_bytes == 1234 and status.disk_free_bytes > 0
