# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright demo`: the whole way, cut down to seconds, and what it says when something is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamwright.backend.cli.main import main
from tests.addon.blenders import ROOT
from tests.addon.built import Built, built  # noqa: F401 (fixture)

SMALL = (
    "run.steps=12", "run.threads=1", "render.resolution=16", "render.coarse_resolution=16", "render.samples=16",
    "mesh.resolution=32", "mesh.threshold=1.0",
)  # fmt: skip


@pytest.mark.slow
def test_the_demo_leaves_a_scene_and_a_picture_under_each_light(built: Built, tmp_path: Path) -> None:
    """A server, a headless Blender with the built zip, a dreamt prop: white sun, orange lamp."""
    pytest.importorskip("bpy")
    command = [sys.executable, "-m", "dreamwright.backend.cli.main", "demo", "--out", str(tmp_path), "--addon", str(built.universal)]
    settings = [word for setting in SMALL for word in ("--set", setting)]
    done = subprocess.run([*command, "--size", "48", "--samples", "8", *settings], capture_output=True, text=True, cwd=ROOT, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "imported 'a red mushroom'" in done.stdout and "12/12" in done.stderr
    assert (tmp_path / "scene.blend").read_bytes()[:7] in (b"BLENDER", b"\x28\xb5\x2f\xfd" + (tmp_path / "scene.blend").read_bytes()[4:7])
    sun, lamp = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"), float) for name in ("sun", "lamp"))
    assert sun.shape == lamp.shape == (48, 48, 3) and min(sun.std(), lamp.std()) > 5
    # The lamp is orange: what it lights is redder than it is blue, far more than under the white sun.
    assert (lamp[..., 0] / (lamp[..., 2] + 1)).max() > 1.5 * (sun[24:, :, 0] / (sun[24:, :, 2] + 1)).mean()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--addon", "no-such.zip"], "no add-on at .*no-such.zip; build one"),
        (["--blender", "/no/such/blender"], "no Blender at /no/such/blender"),
        (["--set", "run.steps"], "has no '='"),
        (["--size", "0"], "--size is 0; allowed is 1 to 8192"),
    ],
)
def test_what_the_demo_lacks_is_said_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert main(["demo", "--out", str(tmp_path / "demo"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(words, error) and len(error.splitlines()) == 1
