# SPDX-License-Identifier: GPL-3.0-or-later
"""The built add-on in a real Blender on a second machine, and a real server with a real worker on the first."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared.credentials import fingerprint
from dreamwright.shared.mesh_file import decode_mesh
from tests.testing.blender_reports import report_of
from tests.testing.blenders import ROOT, Blender, blenders, run_script
from tests.testing.built_addon import Built
from tests.testing.network_namespaces import SERVER, NetworkNamespace
from tests.testing.tiny_model import QUICK, offer_tiny_model

INSIDE = Path(__file__).parent / "scripts"
OTHER_LOOP = "127.0.0.1"  # of the second machine: nothing listens there
OUTAGE_S = 2.0  # that the link is down after the artist's side has noticed


class ServerSide:
    """Runs the server and the network; acts on requests that the Blender process writes to a file."""

    def __init__(self, requests: Path, keys: KeyFolder, server: NetworkNamespace) -> None:
        self._requests, self._keys, self._server = requests, keys, server
        self.is_over = False
        self.done: list[str] = []
        self.thread = threading.Thread(target=self._act)
        self.thread.start()

    def _wait(self, name: str) -> str | None:
        while not (self._requests / name).exists():
            if self.is_over:
                return None
            time.sleep(0.05)
        return (self._requests / name).read_text()

    def _act(self) -> None:
        key = self._wait("key")
        if key is None:
            return
        self._keys.allow("anna", key)
        if self._wait("unplug") is None:
            return
        self._server.ip("link set cable down")
        self.done.append("down")
        self._wait("lost")
        time.sleep(OUTAGE_S)
        self._server.ip("link set cable up")
        self.done.append("up")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_blender_on_a_second_machine(
    networks: tuple[NetworkNamespace, NetworkNamespace],
    built: Built,
    tmp_path: Path,
) -> None:
    blender: Blender = next(one for one in blenders() if one.name == "bpy-4.5.15")
    if blender.missing:
        pytest.skip(blender.missing)
    here, there = networks
    keys, requests = KeyFolder(tmp_path / "state"), tmp_path / "requests"
    pair = keys.create()
    requests.mkdir()
    model = offer_tiny_model(tmp_path / "models")
    settings = dict(one.split("=") for one in QUICK) | {
        "run.steps": "400",
        "optimizer.learning_rate": "0.0005",  # an untrained model would fill the scene before the first check
        "mesh.threshold": "1.0",
        "run.max_restarts": "0",
        "run.threads": "1",
    }
    serve = here.command(
        sys.executable, "-m", "dreamwright.backend.cli.main", "serve", "--address", f"tcp://{SERVER}:47630"
    )
    serve += ["--device", "cpu", "--state", str(keys.state)]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            serve,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={**os.environ, "DREAMWRIGHT_MODELS": str(tmp_path / "models"), "OMP_NUM_THREADS": "1"},
        )
    server_side = ServerSide(requests, keys, here)
    try:
        output = ""
        while "allow a user's key with" not in output:
            line = process.stdout.readline()
            assert line, (tmp_path / "server.log").read_text()[-3000:]
            output += line
        environment = {
            "STRING": re.search(r"dreamwright://\S+", output)[0],
            "SERVER": f"tcp://{OTHER_LOOP}:9",
            "REQUESTS": str(requests),
        }
        environment |= {
            "MODEL": model,
            "SETTINGS": json.dumps(settings),
            "BLENDER_USER_RESOURCES": str(tmp_path / "blender"),
        }
        far = replace(blender, command=tuple(there.command(*blender.command)))
        done = run_script(far, INSIDE / "second_machine.py", built.universal, environment, timeout=800)
    finally:
        server_side.is_over = True
        server_side.thread.join(30)
        process.terminate()
        process.wait(30)
        process.stdout.close()
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    assert server_side.done == ["down", "up"]
    assert report["network"] == ["cable", "lo"], "it had a network of its own"
    assert report["server"] == fingerprint(pair.public) and "does not know this computer's key yet" in report["reason"]
    assert report["step on return"] >= report["step at the outage"]
    assert report["state before leaving"] == "running" and report["away s"] >= OUTAGE_S - 1.0
    content = (keys.state / "jobs" / report["job"] / "mesh.dwm").read_bytes()
    assert report["sha"] == hashlib.sha256(content).hexdigest()
    assert report["vertices"] == len(decode_mesh(content).vertices) > 10
    assert report["prompt"] == "a red mushroom" and report["owner"] == "anna"
    print(json.dumps(report))
