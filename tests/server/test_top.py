# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright top`: access, choice of the server, options, and output in a terminal or as JSON."""

from __future__ import annotations

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

from dreamwright.backend.cli import client_key
from dreamwright.backend.cli.main import main
from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared.credentials import ConnectionString, format_key, generate_key_pair
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.scripted_worker_server import submit_message
from tests.testing.server_process import LIMIT_S, server_process


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(client_key, "client_folder", lambda: tmp_path / "client")
    return tmp_path / "client"


def call(encrypted_server: EncryptedServer, *arguments: str) -> int:
    """Run the command in a thread, because the server runs in this one; returns the exit code."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["top", *arguments])))
    thread.start()
    encrypted_server.wait_until(lambda: not thread.is_alive(), 60.0)
    return codes[0]


def test_top_explains_how_to_get_access(
    encrypted_server: EncryptedServer, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error text holds the command that helps; without --admin the table names what is missing."""
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
    output = capsys.readouterr().out
    assert "You see your own jobs only" in output and job not in output and "anna" not in output
    encrypted_server.keys.allow("ops", key, True)
    assert call(encrypted_server, "--server", server, "--json", "--once") == 0
    status = json.loads(capsys.readouterr().out)
    assert status["sees_all"] and [line["job"] for line in status["jobs"]] == [job]
    assert call(encrypted_server, "--server", server) == 0
    output = capsys.readouterr().out
    assert job in output and "anna" in output and "mushroom" not in output and "\x1b" not in output


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


def until_seen(terminal: int, happened: Callable[[str], bool]) -> str:
    """Read from a terminal until the text fulfills the condition; returns the text."""
    seen, end = "", time.monotonic() + LIMIT_S
    while not happened(seen):
        assert time.monotonic() < end, seen[-2000:]
        if select.select([terminal], [], [], 0.5)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
    return seen


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
