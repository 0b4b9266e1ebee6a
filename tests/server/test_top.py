# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright top`: an admin sees the whole server, others themselves, and nobody a prompt; in any terminal, or as
JSON.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from dreamwright.backend.cli import client_key, status_table
from dreamwright.backend.cli.main import main
from dreamwright.backend.server.monitoring.status_reporter import DISK_INTERVAL_S, PRESENT_S
from dreamwright.backend.server.transport.authorized_keys import LOCAL, KeyFolder
from dreamwright.backend.server.workers.worker_protocol import ProgressReport
from dreamwright.shared.codec import pack
from dreamwright.shared.credentials import ConnectionString, format_key, generate_key_pair
from dreamwright.shared.messages import GetStatus, Hello, PauseJob
from dreamwright.shared.status import MAX_JOBS, DeviceStatus, JobStatus, ServerStatus, UserStatus
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.scripted_worker_server import submit_message
from tests.testing.server_process import LIMIT_S, server_process

STATUS = ServerStatus(
    "dreamwright 1",
    True,
    False,
    3700.0,
    3,
    123_456_789,
    10**12,
    (
        DeviceStatus("cuda:0", "busy", "abcdef0123456789", "anna", 3.21, 0.4),
        DeviceStatus("cuda:1", "idle", "", "", 0.0, -1.0),
    ),
    (
        JobStatus("abcdef0123456789", "anna", "running", 0, 30, 100, 12.0, "cuda:0", 0, 1),
        JobStatus("bbcdef0123456789", "bert", "queued", 1, 0, 100, -1.0, "", -3, 0),
    ),
    (UserStatus("anna", 1, 0, 0, 1, 2.0), UserStatus("bert", 0, 1, 0, 0, -1.0)),
    2,
    2,
)


def drawn(status: ServerStatus, width: int = 120, height: int | None = None) -> str:
    told = io.StringIO()
    Console(file=told, width=width, force_terminal=False).print(status_table.status_view(status, "tcp://h:1", height))
    return told.getvalue()


# --- what the server tells


def test_admin_sees_devices_jobs_users_and_speed(in_memory_server: InMemoryServer) -> None:
    running, queued = in_memory_server.submit("ada"), in_memory_server.submit("bob", priority=-2)
    paused = in_memory_server.submit("bob")
    in_memory_server.request(PauseJob(paused), "bob")
    in_memory_server.step()
    for step in (10, 20, 30):
        in_memory_server.now += 4.0
        in_memory_server.report(ProgressReport, running, step, 100, step / 2.5, 28.0)
    in_memory_server.now += 2.0
    status = in_memory_server.request(GetStatus(), "chief", admin=True)
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
    assert counts == {"ada": (1, 0, 0, 0), "bob": (0, 1, 1, 0), "chief": (0, 0, 0, 1)}
    assert {user.name: round(user.seen_s) for user in status.users} == {"ada": 14, "bob": 14, "chief": 0}


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
    assert "You see your own jobs only" in drawn(status) and "--admin" in drawn(status)


def test_status_contains_no_prompt(in_memory_server: InMemoryServer) -> None:
    in_memory_server.submit("ada", prompt="a red mushroom", negative="a blue chair")
    for owner, is_admin in (("ada", False), ("chief", True)):
        told = pack(in_memory_server.request(GetStatus(), owner, is_admin))
        assert b"mushroom" not in told and b"chair" not in told


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
    status = in_memory_server.request(GetStatus(), "chief", admin=True)
    assert len(status.jobs) == MAX_JOBS and status.jobs_open == MAX_JOBS + 3
    assert f"and {MAX_JOBS + 3 - 4} more" in drawn(dataclasses.replace(status, jobs=status.jobs[:4]))


def test_silent_connections_expire(
    in_memory_server: InMemoryServer,
) -> None:
    in_memory_server.request(Hello("c", "test"), "ada")
    assert in_memory_server.request(GetStatus(), "chief", admin=True).connections == 2
    in_memory_server.now += PRESENT_S + 1
    status = in_memory_server.request(GetStatus(), "chief", admin=True)
    assert status.connections == 1
    assert {user.name: (user.connections, user.seen_s) for user in status.users} == {
        "ada": (0, PRESENT_S + 1),
        "chief": (1, 0.0),
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
    status = in_memory_server.request(GetStatus(), "chief", admin=True)
    assert status.disk_used_bytes == 1234 and status.disk_free_bytes > 0


# --- what is drawn


def test_table_shows_every_number() -> None:
    words = [line.split() for line in drawn(STATUS).splitlines()]
    assert "up 1h01m" in drawn(STATUS) and "disk 123.5 MB used, 1.0 TB free" in drawn(STATUS)
    assert ["cuda:0", "busy", "abcdef0123456789", "anna", "3.21", "0s"] in words and [
        "cuda:1",
        "idle",
        "-",
        "-",
        "-",
        "-",
    ] in words
    assert ["abcdef0123456789", "anna", "running", "-", "30/100", "12s", "cuda:0", "0"] in words
    assert ["bbcdef0123456789", "bert", "queued", "1", "0/100", "-", "-", "-3"] in words
    assert ["anna", "1", "0", "0", "1", "now"] in words and ["bert", "0", "1", "0", "0", "-"] in words


@given(st.integers(10, 200), st.integers(5, 80), st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_table_draws_any_text_at_any_width(width: int, height: int, name: str, software: str) -> None:
    status = dataclasses.replace(
        STATUS,
        software=software + "\x1b[2J",
        users=(dataclasses.replace(STATUS.users[0], name=name + "\x1b]0;x\x07[bold]"),),
    )
    written = drawn(status, width, height)
    assert all(character.isprintable() or character == "\n" for character in written)
    assert all(len(line) <= 2 * width for line in written.splitlines())


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "-"), (0, "0s"), (59.4, "59s"), (60, "1m00s"), (3599.6, "1h00m"), (90_000, "1d01h")]
)
def test_times_have_at_most_two_units(seconds: float, words: str) -> None:
    assert status_table.format_duration(seconds) == words


# --- the command


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(client_key, "client_folder", lambda: tmp_path / "client")
    return tmp_path / "client"


def call(encrypted_server: EncryptedServer, *arguments: str) -> int:
    """The command in a thread, since the server has this one."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["top", *arguments])))
    thread.start()
    encrypted_server.wait_until(lambda: not thread.is_alive(), 60.0)
    return codes[0]


def test_top_explains_how_to_get_access(
    encrypted_server: EncryptedServer, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error text holds the command that helps; without --admin the table says what is missing."""
    anna = encrypted_server.authorized_client("anna")
    job = encrypted_server.request(anna, submit_message("a")).job.job
    server = str(ConnectionString(encrypted_server.server.address, encrypted_server.pair.public))
    assert call(encrypted_server, "--server", server) == 1
    error = capsys.readouterr().err
    assert main(["keys", "mine"]) == 0
    key = capsys.readouterr().out.strip()
    assert f"dreamwright keys allow NAME {key} --admin" in error
    assert (
        call(encrypted_server, "--server", server, "--alive") == 0
        and "does not know this key" in capsys.readouterr().out
    )
    encrypted_server.keys.allow("ops", key)
    assert call(encrypted_server, "--server", server) == 0
    told = capsys.readouterr().out
    assert "You see your own jobs only" in told and job not in told and "anna" not in told
    encrypted_server.keys.allow("ops", key, True)
    assert call(encrypted_server, "--server", server, "--json", "--once") == 0
    status = json.loads(capsys.readouterr().out)
    assert status["sees_all"] and [line["job"] for line in status["jobs"]] == [job]
    assert call(encrypted_server, "--server", server) == 0
    told = capsys.readouterr().out
    assert job in told and "anna" in told and "mushroom" not in told and "\x1b" not in told


def test_local_address_and_key_come_from_the_state_folder(
    encrypted_server: EncryptedServer, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encrypted_server.keys.remember_served(encrypted_server.server.address)
    main(["keys", "mine"])
    encrypted_server.keys.allow("ops", capsys.readouterr().out.strip(), True)
    assert (
        call(encrypted_server, "--state", str(encrypted_server.keys.state)) == 0 and "DEVICE" in capsys.readouterr().out
    )
    assert call(encrypted_server, "--server", encrypted_server.server.address) == 1
    assert "name its folder with --state" in capsys.readouterr().err


def test_client_key_is_kept_and_private(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "mine"]) == 0 and main(["keys", "mine"]) == 0
    first, second = capsys.readouterr().out.split()
    path = own_folder / "keys" / "own.json"
    assert first == second and path.stat().st_mode & 0o077 == 0
    assert json.loads(path.read_text())["secret"] not in first
    path.chmod(0o644)
    assert main(["keys", "mine"]) == 2 and "chmod 600" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--server", "tcp://192.168.1.5:47630"], 2, "connection string"),
        (["--server", "dreamwright://h:5/v1/dwkey_x"], 2, "damaged"),
        (["--server", "gpu"], 2, "tcp://HOST:PORT"),
        (["--wait", "0"], 2, "--wait"),
        (["--wait", "nan"], 2, "--wait"),
        (
            ["--server", "tcp://127.0.0.1:9", "--wait", "0.2"],
            1,
            "no answer from tcp://127.0.0.1:9 in 0.2 s; is the server running?",
        ),
    ],
)
def test_invalid_options_fail_with_one_line(
    arguments: list[str], code: int, words: str, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--once", *arguments]) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_top_in_a_terminal_redraws_until_ctrl_c(tmp_path: Path) -> None:
    with server_process(tmp_path, module="tests.testing.fast_worker_server") as server:
        near, far = pty.openpty()
        command = [
            sys.executable,
            "-m",
            "dreamwright.backend.cli.main",
            "top",
            "--server",
            server.address,
            "--wait",
            "5",
        ]
        top = subprocess.Popen(
            command,
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "90", "LINES": "30"},
        )
        os.close(far)
        try:
            seen = until_seen(near, lambda text: text.count("DEVICE") >= 3)
            assert "\x1b[?1049h" in seen and "cpu" in seen, "a screen of its own"
            server.process.kill()
            server.process.wait()
            until_seen(near, lambda text: "no answer" in text)
            os.kill(top.pid, signal.SIGINT)
            assert "\x1b[?1049l" in until_seen(near, lambda text: "\x1b[?1049l" in text), "the terminal is given back"
            assert top.wait(60) == 0
        finally:
            top.kill()
            top.wait()
            os.close(near)


def until_seen(terminal: int, happened: Callable[[str], bool]) -> str:
    """What came on a terminal until it was enough."""
    seen, end = "", time.monotonic() + LIMIT_S
    while not happened(seen):
        assert time.monotonic() < end, seen[-2000:]
        if select.select([terminal], [], [], 0.5)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
    return seen


def test_folder_without_keys_is_a_local_server(tmp_path: Path, own_folder: Path) -> None:
    from dreamwright.backend.cli.top import choose_server

    assert choose_server(None, tmp_path) == ("tcp://127.0.0.1:47630", None)
    folder = KeyFolder(tmp_path)
    folder.create()
    folder.remember_served("tcp://10.0.0.7:5")
    folder.allow("ops", format_key(generate_key_pair().public))
    address, lock = choose_server("tcp://127.0.0.1:5", tmp_path)
    assert address == "tcp://127.0.0.1:5" and lock is not None and lock.server == folder.pair().public
    assert choose_server(None, tmp_path)[0] == "tcp://10.0.0.7:5"
