# SPDX-License-Identifier: GPL-3.0-or-later
"""Import of a prop with an image texture in each Blender, from the built zip: look, packing, undo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.blender.test_generate_in_window import seen
from tests.testing.blender_reports import report_of, run_at_window
from tests.testing.blenders import Blender, run_script
from tests.testing.built_addon import Built
from tests.testing.fake_props import ball

INSIDE = Path(__file__).parent / "scripts"
RED, BLUE, GREEN = [round(c / 255, 3) for c in (200, 20, 10)], [round(c / 255, 3) for c in (10, 20, 200)], [0, 1, 0]


@pytest.mark.slow
def test_texture_is_packed_connected_and_upright(
    blender_install: Blender, built: Built, serve: Callable[..., Any]
) -> None:
    """The fake server's texture is red above, blue below, with a green texel at the top left."""
    server = serve("--pace", "20")
    done = run_script(
        blender_install, INSIDE / "textured_import.py", built.universal, {"SERVER": server.address}, timeout=200
    )
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    assert report["settings"]["mesh.texture"] == 64
    assert (
        report["image"] == ["a red mushroom", [64, 64], "sRGB", True, False]
        and report["named"] == ["a red mushroom"] * 2
    )
    # Half a level of 8 bits is 2e-3; coordinates of float32 below 1 err by 6e-8.
    assert report["corner"] == pytest.approx(GREEN, abs=2e-3), "the file's first row is Blender's last"
    assert report["rows"][0] == pytest.approx(BLUE, abs=2e-3) and report["rows"][1] == pytest.approx(RED, abs=2e-3)
    name, corners, off = report["uv"]
    assert (name, corners) == ("UVMap", 3 * len(ball().faces)) and off < 1e-5
    assert report["wired"] == ["ShaderNodeTexImage", "ShaderNodeUVMap", "UVMap"]
    assert report["waits beside"] == ["albedo"] and report["attributes"] == ["albedo"], (
        "the vertex colors are still there"
    )
    assert report["sound"] and report["users"] == 1
    assert report["roughness"] == pytest.approx([0.6, 0.0])
    assert report["again"] == ["IMAGE", 64], "Generate Again asks for an image again"
    above, below = report["picture"]
    assert above[0] > 3 * above[2] and below[2] > 3 * below[0], report["picture"]
    for half in report["by vertices"]:
        assert half[0] > 2 * half[2], "by its vertex colors it is red all over"
    assert report["kept"] == [[64, 64], report["rows"][0]], "the picture is in the .blend"


@pytest.mark.slow
def test_undo_of_a_textured_import(built: Built, serve: Callable[..., Any]) -> None:
    server = serve("--pace", "20", "--rings", "48")
    report, folder, _ = run_at_window(
        "textured_import_in_window.py", built.universal, "textured", {"SERVER": server.address}
    )
    nothing = {"meshes": [], "materials": [], "images": []}
    brought = {kind: ["a red mushroom"] for kind in nothing}
    assert report["held"] == [nothing, brought, nothing, brought] and report["redone"] == [64, 64]
    screen = seen(folder / report["pictures"][-1])
    red, green, blue = screen.transpose(2, 0, 1)
    bluish = (blue > 60) & (blue > 2 * red) & (blue > 2 * green)
    assert int(bluish.sum()) > 5_000, "the picture's blue half is on the screen"
    assert np.flatnonzero(bluish.any(axis=1)).min() > 100, "not in the header"


class TestInThisProcess:
    """What needs no Blender of its own."""

    def test_unreadable_texture_leaves_nothing(self, installed: Path, request: pytest.FixtureRequest) -> None:
        bpy = pytest.importorskip("bpy")
        delivery = __import__(f"{installed.name}.import_mesh", fromlist=["x"])
        before = len(bpy.data.images)
        with pytest.raises(ValueError, match="cannot be decoded"):
            delivery.build_image("broken", b"\x89PNG\r\n\x1a\nnothing more")
        assert len(bpy.data.images) == before
