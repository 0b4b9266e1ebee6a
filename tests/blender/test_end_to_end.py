# SPDX-License-Identifier: GPL-3.0-or-later
"""From the built add-on in a Blender through the real server and the starter model to an object."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.testing.blender_reports import report_of
from tests.testing.blenders import ROOT, Blender, run_script
from tests.testing.built_addon import Built
from tests.testing.serve_command import serve_command

INSIDE = Path(__file__).parent / "scripts"


class RealServer:
    """`dreamwright serve` in its own process."""

    def __init__(self, state: Path, log: Path) -> None:
        with log.open("wb") as written:
            self.process = subprocess.Popen(
                serve_command(state), stdout=subprocess.PIPE, stderr=written, text=True, cwd=ROOT
            )
        assert self.process.stdout is not None
        silent = threading.Timer(120, self.process.kill)  # a server that never says its address must not hang the test
        silent.start()
        first = self.process.stdout.readline()
        silent.cancel()
        found = re.search(r"tcp://\S+?:\d+", first)
        assert found, f"{first!r}; {log.read_text()[-2000:]}"
        self.address = found[0]

    def stop(self) -> tuple[int, float]:
        """SIGTERM; its status and the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(30)
        finally:
            self.end()
        return status, time.monotonic() - started

    def end(self) -> None:
        """Leave nothing running, whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.mark.slow
def test_prompt_to_object_with_the_real_server(blender_install: Blender, built: Built, tmp_path: Path) -> None:
    """In each Blender from 3.4 to 5.2, with the built zip."""
    server = RealServer(tmp_path / "state", tmp_path / "log")
    try:
        done = run_script(
            blender_install,
            INSIDE / "real_server.py",
            built.universal,
            {"SERVER": server.address},
            timeout=260,
        )
        report = report_of(done)
        assert "Traceback" not in done.stdout + done.stderr
        status, seconds = server.stop()
    finally:
        server.end()
    assert "starter" in report["models"] and report["chosen"] == ["starter", "draft"], (
        "what suits a server without a GPU"
    )
    assert report["job"] == ["succeeded", report["job"][1], 15], "12 steps of the field and 3 of its mesh"
    assert report["previews"] >= 2 and report["first and last"][0] < report["first and last"][1] == 15, report
    width, height, values = report["image"]
    assert width >= height >= 16 and values > 3, "a picture, not one color"
    kind, domain, low, high = report["albedo"]
    assert (kind, domain) == ("FLOAT_COLOR", "POINT") and 0 <= low < high <= 1
    width, height, space, values, corners = report["picture"]
    assert (width, height, space, corners) == (64, 64, "sRGB", 3 * report["triangles"]) and values > 3, (
        "the texture it asked for"
    )
    assert (
        report["triangles"] > 10
        and report["height"] == pytest.approx(0.5, abs=1e-6)  # float32
        and report["base"] == pytest.approx(0, abs=1e-6)
    )
    made_by = report["provenance"]
    assert (made_by["prompt"], made_by["model"], made_by["preset"], made_by["seed"]) == (
        "a red mushroom",
        "starter",
        "draft",
        3,
    )
    assert json.loads(made_by["settings"])["mesh.resolution"] == 32
    assert report["notices"] == ["Imported “a red mushroom”"]
    # An idle server and its worker stop within about a second; 15 s are for a busy machine, half of what `stop` waits.
    assert status == 0 and seconds < 15, (
        f"status {status} after {seconds:.1f} s; {(tmp_path / 'log').read_text()[-2000:]}"
    )
    print(f"the server stopped in {seconds:.1f} s")
