# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting a server: folders, ports and addresses that cannot be used are refused in one line, and nothing stays
open.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.app import Server
from dreamwright.backend.server.state_folder import lock_state_folder
from dreamwright.backend.server.transport.router_socket import is_loopback_address
from tests.testing.scripted_worker_server import ScriptedRunner

ANY_PORT = "tcp://127.0.0.1:*"


@pytest.fixture(autouse=True)
def scripted_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamwright.backend.server.app.LocalRunner", ScriptedRunner)


def refusal(address: str, state: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        Server(address, state, ("cpu",))
    message = str(caught.value)
    assert caught.value.exit_code == 2 and "\n" not in message
    return message


@pytest.mark.parametrize("below", ["", "state", "deep/state"])
def test_a_file_in_the_way_of_the_state_folder_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("kept")
    message = refusal(ANY_PORT, tmp_path / "file" / below)
    assert str(tmp_path / "file") in message and "--state" in message
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["mkdir", "write"])
def test_a_state_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, step: str
) -> None:
    """By errno and not by permission bits, which do not bind root."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    target = "pathlib.Path.mkdir" if step == "mkdir" else "tempfile.TemporaryFile"
    with monkeypatch.context() as disk:
        disk.setattr(target, refuse)
        message = refusal(ANY_PORT, tmp_path / "state")
    assert os.strerror(code) in message and "--state" in message
    Server(ANY_PORT, tmp_path / "state", ("cpu",)).close()


def test_a_damaged_database_releases_port_and_folder(tmp_path: Path) -> None:
    from dreamwright.backend.errors import CheckpointError

    state = tmp_path / "state"
    state.mkdir()
    (state / "jobs.sqlite3").write_bytes(b"not a database, and longer than the header of one" * 100)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(CheckpointError, match="--state"):
        Server(f"tcp://127.0.0.1:{port}", state, ("cpu",))
    (state / "jobs.sqlite3").unlink()
    Server(f"tcp://127.0.0.1:{port}", state, ("cpu",)).close()


def test_a_port_in_use_is_refused_and_the_folder_is_released(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        message = refusal(f"tcp://127.0.0.1:{other.getsockname()[1]}", tmp_path)
    assert "cannot listen on" in message and "--address" in message
    lock_state_folder(tmp_path).release()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:47630", "tcp://HOST:PORT"),
        ("tcp://127.0.0.1", "tcp://HOST:PORT"),
        ("tcp://:5", "tcp://HOST:PORT"),
        ("tcp://127.0.0.1:", "tcp://HOST:PORT"),
        ("tcp://127.0.0.1:-1", "tcp://HOST:PORT"),
        ("tcp://127.0.0.1:٣", "tcp://HOST:PORT"),
        ("udp://127.0.0.1:5", "tcp://HOST:PORT"),
        ("", "tcp://HOST:PORT"),
        ("tcp://127.0.0.1:65536", "0 to 65535"),
        ("tcp://localhost:99999", "0 to 65535"),
    ],
)
def test_malformed_addresses_are_refused(address: str, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(address, tmp_path / "state")
    assert not (tmp_path / "state").exists()
    with pytest.raises(ConfigError):
        is_loopback_address(address)


def test_one_state_folder_has_one_server(tmp_path: Path) -> None:
    lock = lock_state_folder(tmp_path)
    assert "another server uses" in refusal(ANY_PORT, tmp_path)
    lock.release()
    Server(ANY_PORT, tmp_path, ("cpu",)).close()
