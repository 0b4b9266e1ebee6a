# SPDX-License-Identifier: GPL-3.0-or-later
"""A server process whose workers finish jobs at once, with raw sockets and authorized keys for its clients."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import zmq

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.credentials import format_key, generate_key_pair
from tests.testing.serve_command import serve_command

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_LIMITER = """
import runpy
from dreamwright.backend.server.transport.connection_limiter import ConnectionLimiter
ConnectionLimiter.enforce = lambda self: 0
runpy.run_module("tests.testing.fast_worker_server", run_name="__main__")
"""


class FastServerProcess:
    """The server process and its keys. `limit_connections=False` turns off the limit on incoming data."""

    def __init__(self, folder: Path, encrypt: bool = True, limit_connections: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state, self.encrypt = folder / "state", encrypt
        self.keys = KeyFolder(self.state)
        self.server_keys = self.keys.create() if encrypt else None
        self.log_path = folder / "server.log"
        program = ("-m", "tests.testing.fast_worker_server") if limit_connections else ("-c", WITHOUT_LIMITER)
        with self.log_path.open("ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                serve_command(self.state, *(["--encrypt"] if encrypt else []), program=program),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=ROOT,
            )
        found = re.search(r"serves on (\S+)", self.process.stdout.readline())
        if found is None:
            raise RuntimeError(f"the server did not start; see {self.log_path}")
        self.address = found.group(1)

    def authorized_client(self, name: str, is_admin: bool = False) -> CurveCredentials | None:
        """Credentials with a newly authorized key; None for an unencrypted server."""
        if self.server_keys is None:
            return None
        key_pair = generate_key_pair()
        self.keys.allow(name, format_key(key_pair.public), is_admin)
        return CurveCredentials(self.server_keys.public, key_pair)

    def socket(self, credentials: CurveCredentials | None) -> zmq.Socket:
        """A raw DEALER socket, connected."""
        connection = zmq.Context.instance().socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 0), (zmq.SNDHWM, 0)):
            connection.setsockopt(option, value)
        if credentials is not None:
            credentials.apply_to(connection)
        connection.connect(self.address)
        return connection

    def rss_mb(self) -> float:
        """Resident memory of the server, MiB."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def peak_mb(self) -> float:
        """Peak resident memory of the server, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        if self.is_alive:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        self.process.stdout.close()
