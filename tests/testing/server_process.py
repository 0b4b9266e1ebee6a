# SPDX-License-Identifier: GPL-3.0-or-later
"""A `dreamwright serve` process for one test, with its address and output.

python -m tests.testing.server_process serve …      with workers that accept a job and never report
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamwright.backend.cli import main as command
from dreamwright.backend.server import app
from dreamwright.shared.client import Client
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.connection_state import ConnectionState
from tests.testing.scripted_worker_server import ScriptedRunner
from tests.testing.serve_command import serve_command

LIMIT_S = 240.0  # limit for any wait on a busy machine


@dataclass
class ServerProcess:
    """The process, its address, its metrics address, and the file with its output."""

    process: subprocess.Popen[bytes]
    output: Path
    address: str = ""
    metrics: str = ""

    def wrote(self, words: str) -> bool:
        """Whether its output has a text."""
        return words in self.output.read_text()

    def wait_until(self, condition: Callable[[], Any], client: Client | None = None) -> Any:
        """Wait until a function returns a true value, and return that."""
        end = time.monotonic() + LIMIT_S
        while not (found := condition()):
            if self.process.poll() is not None or time.monotonic() > end:
                raise TimeoutError(
                    f"the condition does not hold; exit code {self.process.poll()}\n{self.output.read_text()[-4000:]}"
                )
            if client is not None:
                client.tick()
            time.sleep(0.01)
        return found

    def request(self, client: Client, message: Any) -> Any:
        answers: list[Any] = []
        client.request(message, answers.append)
        self.wait_until(lambda: bool(answers), client)
        return answers[0]

    @contextlib.contextmanager
    def connected_client(self, lock: CurveCredentials | None = None) -> Iterator[Client]:
        """A connected client."""
        client = Client(self.address, credentials=lock)
        client.connect()
        try:
            self.wait_until(lambda: client.state is ConnectionState.ONLINE, client)
            yield client
        finally:
            client.close()


@contextlib.contextmanager
def server_process(
    folder: Path, *arguments: str, module: str = "dreamwright.backend.cli.main"
) -> Iterator[ServerProcess]:
    """A running server on `folder`/state; killed at the end if it still runs."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "output.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with output.open("wb") as file:
        process = subprocess.Popen(
            serve_command(folder / "state", *arguments, program=("-m", module)),
            stdout=file,
            stderr=file,
            env=environment,
        )
    server = ServerProcess(process, output)
    try:
        server.address = server.wait_until(lambda: re.search(r"serves on (\S+)", output.read_text()))[1]
        if "--metrics" in arguments:
            server.metrics = server.wait_until(
                lambda: re.search(r"metrics for Prometheus are at (\S+)", output.read_text())
            )[1]
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


if __name__ == "__main__":
    app.LocalRunner = ScriptedRunner
    sys.exit(command.main(sys.argv[1:]))
