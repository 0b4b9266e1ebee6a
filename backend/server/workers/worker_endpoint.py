# SPDX-License-Identifier: GPL-3.0-or-later
"""Where workers report to: a Unix socket that no other user of the machine can reach; a loopback port on Windows."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

import zmq

from dreamwright.shared import limits

from ...errors import ConfigError

log = logging.getLogger(__name__)

SOCKET_FILE = "workers.socket"
LONGEST_PATH = 100  # bytes; the kernel's limit is 103 on macOS and 107 on Linux
REPORTS_QUEUED = 64  # by connection; then a worker waits, which slows nobody else


class WorkerEndpoint:
    """A bound ROUTER socket for workers, in the private state folder. Raises OSError, ConfigError."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], state: Path) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.RCVHWM, REPORTS_QUEUED)
        self.socket.setsockopt(zmq.MAXMSGSIZE, 2 * limits.REPLY_BYTES)  # the largest message is a preview
        self._folder: Path | None = None  # made for the socket alone
        self._path: Path | None = None
        if os.name != "posix":
            # Every user of the machine can connect there, and is ignored without the secret.
            self.address = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
            return
        path = state.absolute() / SOCKET_FILE
        if len(os.fsencode(path)) > LONGEST_PATH or not self._bind(path):
            # A long path, or a network's file system that knows no sockets.
            self._folder = Path(tempfile.mkdtemp(prefix="dreamwright-"))  # mode 0700
            path = self._folder / SOCKET_FILE
            if not self._bind(path):
                shutil.rmtree(self._folder, ignore_errors=True)
                self.socket.close(0)
                raise ConfigError(
                    f"no socket for the workers can be made in {path.parent}; set TMPDIR to another folder"
                )
        self._path, self.address = path, f"ipc://{path}"

    def _bind(self, path: Path) -> bool:
        before = os.umask(0o177)  # in the moment of binding, the socket is its owner's alone
        try:
            self.socket.bind(f"ipc://{path}")
        except zmq.ZMQError as error:
            log.info("no socket for the workers there", extra={"path": str(path), "why": str(error)})
            return False
        finally:
            os.umask(before)
        return True

    def close(self) -> None:
        """Close the socket and remove its file."""
        self.socket.close(0)
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("socket of the workers not removed", extra={"path": str(self._path), "why": str(error)})
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
