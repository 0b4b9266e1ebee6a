# SPDX-License-Identifier: GPL-3.0-or-later
"""A server and an artist on two networks: two network namespaces with a cable between them."""

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


class Talker:
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

    def facts(self) -> dict[str, Any]:
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
    talkers: list[Talker] = []

    def talk(command: list[str], name: str) -> Talker:
        talkers.append(Talker(command, tmp_path / name))
        return talkers[-1]

    def artist(phase: str, address: str) -> Talker:
        script = [
            sys.executable,
            "tests/testing/second_machine.py",
            str(installed.parent),
            PACKAGE,
            str(tmp_path / "user"),
            phase,
            address,
        ]
        return talk(there.command(*script), f"{phase}.log")

    try:
        server = talk(serve, "server.log")
        said = "".join(server.line() for _ in range(5))
        string = next(word for word in said.split() if word.startswith("dreamwright://"))
        assert parse_connection_string(string).address == f"tcp://{SERVER}:47630"

        unauthorized = artist("unauthorized", f"tcp://{SERVER}:47630")
        told = unauthorized.facts()
        assert told["link"] == "unauthorized" and "requires an encrypted connection" in told["reason"]
        assert unauthorized.end() == 0

        first = artist("pair", string)
        told = first.facts()
        assert "does not know this computer's key yet" in told["reason"]
        assert told["server"] == fingerprint(keys.pair().public) and told["server"] in said
        keys.allow("anna", told["key"])
        began = time.monotonic()
        assert "online" in first.facts()
        let_in = time.monotonic() - began
        job = first.facts()["job"]
        here.ip("link set cable down")
        assert first.facts() == {"link": "lost"}
        here.ip("link set cable up")
        began = time.monotonic()
        assert first.facts() == {"link": "online"}
        back = time.monotonic() - began
        assert first.end() == 0

        second = artist("return", f"tcp://{SERVER}:47630")
        assert "online" in second.facts()
        fetched = second.facts()
        assert second.end() == 0
        assert fetched["job"] == job and fetched["owner"] == "anna"
        assert fetched["sha"] == hashlib.sha256(ball(12).vertices.tobytes()).hexdigest()
        # Reconnects are tried at most 5 s apart (libzmq's limit) and a request after 5 s: twice the sum.
        assert let_in < 20
        print(f"let in {let_in:.1f} s after being allowed; back {back:.1f} s after the cable was")
    finally:
        for talker in talkers:
            talker.end(kill=True)
