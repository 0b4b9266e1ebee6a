# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole workflow in a window, with simulated mouse and keyboard; screenshots are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.testing.blender_reports import run_at_window
from tests.testing.blenders import SCREEN
from tests.testing.built_addon import Built


def seen(path: Path) -> np.ndarray:
    """A screenshot as (height, width, 3) numbers."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)


def reddish(pixels: np.ndarray) -> np.ndarray:
    """Which pixels are the fake server's red, in whatever light."""
    red, green, blue = pixels.transpose(2, 0, 1)
    return (red > 60) & (red > 2 * green) & (red > 2 * blue)


@pytest.mark.slow
def test_generate_preview_import_and_undo_in_a_window(built: Built, serve: Callable[..., Any], tmp_path: Path) -> None:
    step_limit = tmp_path / "step_limit"
    step_limit.write_text("60")  # however slow the window is, the job waits there until the preview is open
    server = serve(
        *("--steps", "250", "--size", "256", "--rings", "48", "--wait", "0.02", "--step-limit", str(step_limit)),
    )
    report, folder, printed = run_at_window(
        "generate_in_window.py", built.universal, "window", {"SERVER": server.address, "STEP_LIMIT": str(step_limit)}
    )
    assert report["typed"] == "a red mushroom", "letter by letter"
    assert report["jobs"] == ["a red mushroom"] and report["state while running"] == "running"
    assert report["object"]["prompt"] == "a red mushroom" and report["object"]["attributes"] == ["albedo"]
    assert report["object"]["selected"]
    assert report["after undo"] == {"objects": 0, "jobs": 1, "prompt": "a red mushroom"}
    assert report["notices"] == ["Imported “a red mushroom”"]
    assert len(report["drawn"]) >= 4
    pictures = [folder / name for name in report["pictures"]]
    assert [path.stem for path in pictures] == ["1-before", "2-running", "3-ready", "4-imported"]
    screens = [seen(path) for path in pictures]
    assert {screen.shape for screen in screens} == {(SCREEN[1], SCREEN[0], 3)}
    before, running, ready, imported = (int(reddish(screen).sum()) for screen in screens)
    assert running > before + 5_000, "the preview is on the screen"
    reds = [float(np.median(screen[reddish(screen)][:, 0])) for screen in screens[1:3]]
    assert reds[1] > reds[0] + 20, f"the picture on the screen grows with the job: {reds}"
    assert imported > ready + 5_000, "so is the prop, in its color"
    assert "Blender quit" in printed
