# SPDX-License-Identifier: GPL-3.0-or-later
"""The sequence of docs/user/first-prop.md works as described, run by its recorder with few steps."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest

from dreamwright.backend.config.recipes.starter import DRAFT
from tests.blender import record_first_prop
from tests.blender.test_generate_in_window import seen
from tests.testing.blender_reports import ARTEFACTS
from tests.testing.blenders import ROOT
from tests.testing.built_addon import Built

EDITOR = (
    slice(200, 800),
    slice(650, 1040),
)  # rows and columns of the Image Editor, below its header and above the mouse
FEW = {"run.steps": 30, "render.samples": 16, "mesh.resolution": 32}  # controls of the panel, of four views a step
PICTURES = ["install", "preferences", "start", "prompt", "early", "middle", "late", "ready", "prop"]


def differing(one: Path, other: Path, place: tuple[slice, slice] = (slice(None), slice(None))) -> int:
    """Number of different pixels of two images, or of a region in both."""
    return int((np.abs(seen(one)[place] - seen(other)[place]).max(axis=2) > 8).sum())


def fits_a_page(path: Path) -> bool:
    """Whether an image is narrow and small enough."""
    return seen(path).shape[1] <= 1280 and path.stat().st_size <= record_first_prop.LARGEST


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_first_prop_from_zip_to_import(built: Built) -> None:
    if record_first_prop.missing():
        pytest.skip(record_first_prop.missing())
    out = ARTEFACTS / "first-prop"
    report = record_first_prop.record(built.universal, out, "a red mushroom", FEW, job_s=200, timeout=560)
    print(report["seconds"], report["server_s"], report["job_s"])
    assert report["command"] == str(record_first_prop.command()), "pasted into the preferences"
    assert report["before"] == ["Not running", "Press Start Server"], "the panel says what to do"
    assert report["typed"] == "a red mushroom", "letter by letter"
    assert report["submitted"] == ["a red mushroom", "starter", "draft"], "the menu's choice arrives at the server"
    early, middle, late = report["moments"]
    assert early["pictures"] >= 1 and early["step"] < middle["step"] <= late["step"]
    assert {moment["state"] for moment in (early, middle)} == {"running"}
    steps = FEW["run.steps"] + DRAFT.surface.steps  # the panel has no control for those
    assert report["job"][0] == "succeeded" and report["job"][2] == steps, report["job"]
    # Blender's coordinates are float32.
    assert report["object"]["prompt"] == "a red mushroom" and report["object"]["height"] == pytest.approx(1, abs=1e-5)
    assert report["notices"] == ["Imported “a red mushroom”"]
    assert not report["open at the end"] and not report["servers left"], "the panel's button ended the server"
    assert report["state"] == [".local/share/dreamwright/server/jobs.sqlite3"], "in the user's own home"
    pictures = sorted(out.glob("*.png"))
    assert [path.stem for path in pictures] == [f"{place}-{name}" for place, name in enumerate(PICTURES, 1)]
    by_name = dict(zip(PICTURES, pictures, strict=True))
    assert all(fits_a_page(path) for path in pictures)
    assert differing(by_name["prompt"], by_name["early"]) > 5_000, "an Image Editor opened"
    assert differing(by_name["early"], by_name["late"], EDITOR) > 5_000, "the preview grew"
    assert differing(by_name["ready"], by_name["prop"]) > 5_000, "the prop is on the screen"


def test_running_server_keeps_its_port() -> None:
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", record_first_prop.DEFAULT_PORT))
        except OSError:
            pass  # another server has it: as good
        else:
            other.listen()
        address = record_first_prop.free_address()
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+", address) and not address.endswith(
        f":{record_first_prop.DEFAULT_PORT}"
    )


def test_leftover_server_is_stopped_but_no_other_process(tmp_path: Path) -> None:
    waits = [sys.executable, "-c", "import time; print(flush=True); time.sleep(100)"]
    with (
        subprocess.Popen([*waits, "dreamwright"], stdout=PIPE) as server,
        subprocess.Popen([*waits, "other"], stdout=PIPE) as other,
    ):
        try:
            for process in (server, other):
                process.stdout.readline()  # it runs: a process that has only just started has no command line yet
            for name, process in (("a", server), ("b", other)):
                (tmp_path / name).mkdir()
                (tmp_path / name / "server.json").write_text(json.dumps({"process": process.pid}))
            assert record_first_prop.end_servers(tmp_path) == [server.pid]
            assert server.wait(10) != 0 and other.poll() is None
        finally:
            server.kill()
            other.kill()


def test_first_prop_page_shows_all_pictures() -> None:
    page = (ROOT / "docs" / "user" / "first-prop.md").read_text()
    names = [f"../pictures/first-prop/{place}-{name}.png" for place, name in enumerate(PICTURES, 1)]
    places = [page.find(f"]({name})") for name in names]
    assert -1 not in places and places == sorted(places)
    assert all(fits_a_page(ROOT / "docs" / "user" / name) for name in names)
