# SPDX-License-Identifier: GPL-3.0-or-later
"""A server and a client in two network namespaces with a link between them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared.credentials import fingerprint, parse_connection_string
from tests.testing.fake_props import ball
from tests.testing.installed_addon import PACKAGE
from tests.testing.network_namespaces import SERVER, NetworkNamespace

ROOT = Path(__file__).resolve().parents[2]


class MachineProcess:
    """A process on a machine, whose lines are read in turn."""

    def __init__(self, command: list[str], log: Path) -> None:
        with log.open("wb") as written:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written, text=True, cwd=ROOT)
        self._log = log
        self._silent = threading.Timer(100, self.process.kill)
        self._silent.start()

    def line(self) -> str:
        line = self.process.stdout.readline()
        assert line, self._log.read_text()[-3000:]
        return line

    def report(self) -> dict[str, Any]:
        return json.loads(self.line())

    def end(self, kill: bool = False) -> int:
        if kill:
            self.process.kill()
        status = self.process.wait(30)
        self._silent.cancel()
        self.process.stdout.close()
        return status


@pytest.mark.slow
def test_second_machine_pairs_disconnects_and_fetches(
    networks: tuple[NetworkNamespace, NetworkNamespace],
    installed: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("bpy")  # which the add-on's package asks for
    here, there = networks
    keys = KeyFolder(tmp_path / "state")
    state = ["--state", str(keys.state)]
    serve = here.command(
        sys.executable,
        "-m",
        "tests.testing.fast_worker_server",
        "serve",
        "--address",
        f"tcp://{SERVER}:47630",
        "--device",
        "cpu",
        *state,
    )
    refused = subprocess.run(serve, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert refused.returncode == 2 and f"dreamwright keys create --state {keys.state}" in refused.stderr
    keys.create()
    processes: list[MachineProcess] = []

    def start_process(command: list[str], name: str) -> MachineProcess:
        processes.append(MachineProcess(command, tmp_path / name))
        return processes[-1]

    def artist(phase: str, address: str) -> MachineProcess:
        script = [
            sys.executable,
            "tests/testing/second_machine.py",
            str(installed.parent),
            PACKAGE,
            str(tmp_path / "user"),
            phase,
            address,
        ]
        return start_process(there.command(*script), f"{phase}.log")

    try:
        server = start_process(serve, "server.log")
        output = "".join(server.line() for _ in range(5))
        connection_string = next(word for word in output.split() if word.startswith("dreamwright://"))
        assert parse_connection_string(connection_string).address == f"tcp://{SERVER}:47630"

        unauthorized = artist("unauthorized", f"tcp://{SERVER}:47630")
        report = unauthorized.report()
        assert report["link"] == "unauthorized" and "requires an encrypted connection" in report["reason"]
        assert unauthorized.end() == 0

        first = artist("pair", connection_string)
        report = first.report()
        assert "does not know this computer's key yet" in report["reason"]
        assert report["server"] == fingerprint(keys.pair().public) and report["server"] in output
        keys.allow("anna", report["key"])
        started = time.monotonic()
        assert "online" in first.report()
        authorized_s = time.monotonic() - started
        job = first.report()["job"]
        here.ip("link set cable down")
        assert first.report() == {"link": "lost"}
        here.ip("link set cable up")
        started = time.monotonic()
        assert first.report() == {"link": "online"}
        reconnected_s = time.monotonic() - started
        assert first.end() == 0

        second = artist("return", f"tcp://{SERVER}:47630")
        assert "online" in second.report()
        fetched = second.report()
        assert second.end() == 0
        assert fetched["job"] == job and fetched["owner"] == "anna"
        assert fetched["sha"] == hashlib.sha256(ball(12).vertices.tobytes()).hexdigest()
        # Reconnects are tried at most 5 s apart (libzmq's limit) and a request after 5 s: twice the sum.
        assert authorized_s < 20
        print(f"online {authorized_s:.1f} s after being allowed, and {reconnected_s:.1f} s after the link was restored")
    finally:
        for process in processes:
            process.end(kill=True)
