# SPDX-License-Identifier: GPL-3.0-or-later
"""A `dreamwright serve` process with user keys, and measurements of its memory, open files, folders and log."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared.client import Client
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.credentials import KeyPair, format_key, generate_key_pair
from tests.soak.worker_processes import children

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessStats:
    """Resource use of one process, read from /proc."""

    rss_mb: float
    fds: int
    threads: int
    cpu_s: float


def process_stats(pid: int) -> ProcessStats:
    """Resource use of a process. Raises OSError when it no longer exists."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    cpu_s = (int(fields[11]) + int(fields[12])) / TICKS
    return ProcessStats(round(pages * PAGE / 1e6, 2), len(os.listdir(f"/proc/{pid}/fd")), int(fields[17]), cpu_s)


def folder_mb(folder: Path) -> float:
    """Total size of the files under a folder, MB. A file deleted during the walk is not counted."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue
    return round(total / 1e6, 2)


class ObservedServer:
    """A server in its own process. `module` is the program to run, for example tests.testing.fast_worker_server."""

    def __init__(
        self,
        folder: Path,
        users: Iterable[str] = (),
        admins: Iterable[str] = (),
        options: Iterable[str] = (),
        module: str = "dreamwright.backend.cli.main",
        files: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state, self.log_path = folder / "state", folder / "server.log"
        self._keys = KeyFolder(self.state)
        self.pairs: dict[str, KeyPair] = {}
        self.server_key = b""
        for name in (*users, *admins):
            if not self.server_key:
                self.server_key = self._keys.create().public
            self.pairs[name] = generate_key_pair()
            self._keys.allow(name, format_key(self.pairs[name].public), name in tuple(admins))
        self._options, self._module, self._files = tuple(options), module, files
        self.address = "tcp://127.0.0.1:*"
        self.models = folder / "models"
        self.process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self) -> ObservedServer:
        """Start the server and wait until it listens. A restarted server keeps its address."""
        command = [
            sys.executable,
            "-m",
            self._module,
            "serve",
            "--address",
            self.address,
            "--state",
            str(self.state),
            "--device",
            "cpu",
        ]
        command += [*self._options, *(["--encrypt"] if self.pairs else [])]
        environment = {
            **os.environ,
            "DREAMWRIGHT_MODELS": str(self.models),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        limit = (
            None
            if self._files is None
            else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (self._files, self._files))
        )
        with self.log_path.open("ab") as log:
            # A separate session: Ctrl-C interrupts only the soak, which then stops the server.
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
                preexec_fn=limit,  # noqa: PLW1509 (the soak has no thread when it starts its server)
            )
        line = self.process.stdout.readline()
        found = re.search(r"serves on (\S+)", line)
        if found is None:
            self.stop(signal.SIGKILL)
            raise RuntimeError(f"the server printed {line!r} instead of its address; see {self.log_path}")
        self.address = found.group(1)
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal and wait 30 s. Kills the server and raises TimeoutExpired if it has not ended by then."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send_signal(how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            process.stdout.close()

    def stats(self) -> ProcessStats:
        """Resource use of the server process."""
        return process_stats(self.pid)

    def workers(self) -> list[int]:
        return children(self.pid)

    def client(self, user: str = "", **how: Any) -> Client:
        """A client with the key of a user, connecting."""
        credentials = CurveCredentials(self.server_key, self.pairs[user]) if user else None
        client = Client(self.address, credentials=credentials, **how)
        client.connect()
        return client

    def faults(self) -> list[str]:
        """Lines of the server log that report an error."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return [line for line in lines if re.search(r" (ERROR|CRITICAL) |Traceback|Assertion failed|Error: ", line)]

    def warnings(self) -> dict[str, int]:
        """Count of each warning in the server log, with numbers and job ids replaced by N."""
        found: dict[str, int] = {}
        for line in self.log_path.read_text(errors="replace").splitlines():
            if " WARNING " in line:
                kind = re.sub(r"\b[0-9a-f]{16}\b|\d+", "N", line.partition(" WARNING ")[2])
                found[kind] = found.get(kind, 0) + 1
        return found


def tick_until(
    clients: Iterable[Client], happened: Callable[[], bool], limit_s: float = 60.0, wait_s: float = 0.002
) -> list[Any]:
    """Tick the clients until a condition holds; returns their events. Raises TimeoutError."""
    events: list[Any] = []
    end = time.monotonic() + limit_s
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(
                f"the condition does not hold after {limit_s} s; clients: "
                f"{[(client.state.value, client.reason) for client in clients]}"
            )
        for client in clients:
            events += client.tick()
        time.sleep(wait_s)
    return events


def online(client: Client, limit_s: float = 60.0) -> Client:
    """Wait until the client is connected and authorized; returns it."""
    tick_until([client], lambda: client.state is ConnectionState.ONLINE, limit_s)
    return client


def ask(client: Client, message: Any, limit_s: float = 180.0) -> Any:
    """Send one request and return its reply."""
    answers: list[Any] = []
    client.request(message, answers.append)
    tick_until([client], lambda: bool(answers), limit_s)
    return answers[0]
