# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright demo` from prompt to renders in a few steps, and its messages when something is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamwright.backend.cli.main import main
from tests.testing.blenders import ROOT
from tests.testing.built_addon import Built

SMALL = (
    "run.steps=12", "surface.steps=0", "guidance.noises=1", "run.threads=1", "render.resolution=16",
    "render.coarse_resolution=16", "render.samples=16", "mesh.resolution=32", "mesh.threshold=1.0",
)  # fmt: skip


@pytest.mark.slow
def test_demo_writes_scene_and_renders(built: Built, tmp_path: Path) -> None:
    """A server, a headless Blender with the built zip, and renders under a white sun and an orange lamp."""
    pytest.importorskip("bpy")
    command = [
        sys.executable,
        "-m",
        "dreamwright.backend.cli.main",
        "demo",
        "--out",
        str(tmp_path),
        "--addon",
        str(built.universal),
    ]
    settings = [word for setting in SMALL for word in ("--set", setting)]
    done = subprocess.run(
        [*command, "--size", "48", "--samples", "8", *settings], capture_output=True, text=True, cwd=ROOT, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "imported 'a red mushroom'" in done.stdout and "12/12" in done.stderr
    begins = (tmp_path / "scene.blend").read_bytes()[:7]
    assert begins == b"BLENDER" or begins[:4] == bytes.fromhex("28b52ffd"), "a .blend file, plain or zstd"
    sun, lamp = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"), float) for name in ("sun", "lamp"))
    assert sun.shape == lamp.shape == (48, 48, 3) and min(sun.std(), lamp.std()) > 5
    # The lowest lines show the white floor alone: grey under the white sun, orange where the lamp shines from the left.
    sun, lamp = sun[40:, :24].mean((0, 1)), lamp[40:, :24].mean((0, 1))
    # Path tracing with 8 samples a pixel and 192 pixels leaves some per cent of noise; the lamp's red is far above its
    # blue.
    assert sun[0] < 1.15 * sun[2] and lamp[0] > 1.3 * lamp[2], (sun, lamp)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--addon", "no-such.zip"], "no add-on at .*no-such.zip; build one"),
        (["--blender", "/no/such/blender"], "no Blender at /no/such/blender"),
        (["--set", "run.steps"], "has no '='"),
        (["--size", "0"], "--size is 0; allowed is 1 to 8192"),
    ],
)
def test_demo_reports_missing_parts_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(words, error) and len(error.splitlines()) == 1
