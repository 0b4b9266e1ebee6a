# SPDX-License-Identifier: GPL-3.0-or-later
"""What other users of the server's machine can reach: no file of the state folder, and no socket of the workers."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
import warnings
from pathlib import Path

import pytest
import zmq

from dreamwright.backend.server.state_folder import lock_state_folder
from dreamwright.backend.server.workers.local_runner import LocalRunner
from dreamwright.backend.server.workers.worker_endpoint import WorkerEndpoint

posix_only = pytest.mark.skipif(os.name != "posix", reason="Windows has access control lists instead of these bits")
NOBODY = 65534


def connect_as(user: int | None, path: str) -> int:
    """The error number of a connection to a Unix socket by a process of that user; 0 for none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside ZeroMQ's threads: this child needs none
        child = os.fork()
    if child == 0:
        status = 255
        try:
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            socket.socket(socket.AF_UNIX).connect(path)
            status = 0
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix_only
def test_new_state_folder_is_private_and_an_open_one_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    lock_state_folder(folder).release()
    assert mode(folder) == 0o700
    (folder / "jobs.sqlite3").touch()
    folder.chmod(0o755)
    lock_state_folder(folder).release()
    assert mode(folder) == 0o700


@posix_only
def test_a_folder_of_other_things_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    lock_state_folder(tmp_path).release()
    assert mode(tmp_path) == 0o755


@posix_only
@pytest.mark.parametrize("deep", [False, True], ids=["in the state folder", "a path too long for a socket"])
def test_workers_socket_is_its_owners_alone_and_goes_with_the_runner(tmp_path: Path, deep: bool) -> None:
    with tempfile.TemporaryDirectory() as short:  # pytest's own folders have long paths
        state = tmp_path / ("d" * 100) if deep else Path(short)
        context = zmq.Context()
        runner = LocalRunner(context, ("cpu",), state / "logs")
        path = Path(runner._endpoint.address.removeprefix("ipc://"))
        assert (path.parent == state) != deep
        assert mode(path) & 0o077 == 0 and mode(path.parent) == 0o700
        runner.close(0.0)
        context.destroy(0)
        assert not path.exists() and path.parent.exists() != deep


@posix_only
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user")
def test_another_user_cannot_connect_to_the_workers_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        context = zmq.Context()
        endpoint = WorkerEndpoint(context, Path(folder))
        path = endpoint.address.removeprefix("ipc://")
        assert connect_as(None, path) == 0 and connect_as(NOBODY, path) == errno.EACCES
        endpoint.close()
        context.destroy(0)
