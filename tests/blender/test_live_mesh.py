# SPDX-License-Identifier: GPL-3.0-or-later
"""The growing prop in Blender: asked for while it is wanted, no datablock, gone at import, and seen in a window."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamwright.shared.errors import ProtocolError
from tests.blender.test_generate_in_window import reddish, seen
from tests.testing.addon_session import addon_module
from tests.testing.blender_reports import report_of, run_at_window
from tests.testing.blenders import Blender, blenders, display, run_script
from tests.testing.built_addon import Built
from tests.testing.fake_props import ball, live_mesh_frame

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver

# --- shading


def test_the_sides_to_the_light_are_brighter_and_colors_stay_colors(installed: Path) -> None:
    frame = live_mesh_frame("job", 7, ball(rings=48, color=(0.8, 0.4, 0.2)))
    mesh = addon_module("live_mesh_shading").drawn(frame)
    assert (mesh.job, mesh.step) == ("job", 7) and mesh.corners.dtype == np.int32
    assert mesh.positions.shape == (len(mesh.colors), 3) and mesh.colors.shape[1] == 4
    assert (mesh.colors >= 0).all() and (mesh.colors <= 1).all() and (mesh.colors[:, 3] == 1).all()
    towards = mesh.positions - mesh.positions.mean(axis=0)
    lit = towards @ np.array([-0.45, -0.6, 0.66]) > 0.35
    shade = towards @ np.array([-0.45, -0.6, 0.66]) < -0.35
    assert mesh.colors[lit, 0].min() > 2 * mesh.colors[shade, 0].max(), "the form is read from the light"
    ratio = mesh.colors[lit, 0] / mesh.colors[lit, 1]
    # Twice as much red as green, each rounded to 1/255 on the wire.
    assert np.allclose(ratio, 2.0, atol=0.03)


def test_hostile_live_meshes_are_refused_before_they_are_unpacked(installed: Path) -> None:
    drawn, fault = addon_module("live_mesh_shading").drawn, addon_module("shared.errors").ProtocolError
    frame = live_mesh_frame("job", 7, ball())
    for false in (replace(frame, vertices=3), replace(frame, triangles=10_000), replace(frame, data=b"\0" * 300_000)):
        with pytest.raises((fault, ProtocolError)):
            drawn(false)


# --- in Blender, without a window


def test_live_meshes_are_asked_for_while_they_are_wanted_and_gone_with_the_import(
    blender: AddonDriver, serve: Callable[..., Any], tmp_path: Path
) -> None:
    limit = tmp_path / "limit"
    limit.write_text("10")
    blender.connect(serve("--live-rings", "24", "--steps", "40", "--step-limit", str(limit)).address)
    live, session, panel = blender.module("live_mesh"), blender.session, blender.panel
    before = {kind: len(getattr(bpy.data, kind)) for kind in ("objects", "meshes", "materials", "collections")}
    job = blender.generate()
    assert blender.poll(lambda: live.shown() is not None and live.shown().step == 10), blender.notices()
    assert session.watched_job == job == live.shown().job
    assert {kind: len(getattr(bpy.data, kind)) for kind in before} == before, "no datablock"
    assert live._handler is None, "nothing can be drawn without a window"

    panel.watch_in_view = False
    assert blender.poll(lambda: live.shown() is None) and session.watched_job == ""
    limit.write_text("20")
    assert blender.poll(lambda: session.jobs[job].step == 20) and live.shown() is None
    panel.watch_in_view = True
    assert blender.poll(lambda: session.watched_job == job)
    limit.write_text("30")
    assert blender.poll(lambda: live.shown() is not None and live.shown().step > 20)
    panel.job_index = -1
    assert blender.poll(lambda: live.shown() is None) and session.watched_job == "", "another job is selected"
    panel.job_index = 0
    assert blender.poll(lambda: session.watched_job == job)
    limit.write_text("35")
    assert blender.poll(lambda: live.shown() is not None and live.shown().step > 30)

    limit.write_text("40")
    assert blender.poll(lambda: session.jobs[job].state == "succeeded")
    blender.poll(seconds=0.05)
    assert live.shown() is not None and session.watched_job == "", "it stays until the prop is imported"
    blender.imported(job)
    assert live.shown() is None


def test_a_live_mesh_waits_for_one_tick_at_most(blender: AddonDriver, serve: Callable[..., Any]) -> None:
    """Where every tick has a preview, as on a slow machine, the prop grows all the same."""
    blender.connect(serve("--steps", "1000000").address)
    job = blender.generate()
    assert blender.poll(lambda: blender.session.watched_job == job)
    live = blender.module("live_mesh")
    frames = blender.module("shared.live_mesh_messages").LiveMeshFrame
    given = live_mesh_frame(job, 7, ball())
    blender.session._live_mesh = frames(given.job, given.step, given.vertices, given.triangles, given.data)
    live.follow(may_unpack=False)
    assert live.shown() is None
    live.follow(may_unpack=False)
    assert live.shown() is not None and live.shown().step == 7


@pytest.mark.parametrize("how", ["fail", "delete", "load", "disable"])
def test_the_prop_goes_when_there_is_nothing_to_import(
    blender: AddonDriver, serve: Callable[..., Any], tmp_path: Path, how: str
) -> None:
    limit = tmp_path / "limit"
    limit.write_text("10")
    blender.connect(serve("--live-rings", "8", "--steps", "40", "--step-limit", str(limit), "--fail-at", "30").address)
    live = blender.module("live_mesh")
    job = blender.generate()
    assert blender.poll(lambda: live.shown() is not None), blender.notices()
    if how == "load":
        bpy.ops.wm.read_factory_settings(use_empty=True)
    elif how == "disable":
        live.unregister()
        assert live.shown() is None
        live.register()
        return
    elif how == "delete":
        assert bpy.ops.dreamwright.cancel() == {"FINISHED"}
        assert blender.poll(lambda: blender.session.jobs[job].state == "cancelled")
        bpy.ops.dreamwright.delete_job()
    else:
        limit.write_text("30")
        assert blender.poll(lambda: blender.session.jobs[job].state == "failed")
    if how == "load":
        assert live.shown() is None
    else:
        assert blender.poll(lambda: live.shown() is None)


# --- in a window


def reds(path: Path) -> int:
    """How many pixels of a screenshot are the fake server's red."""
    return int(reddish(seen(path)).sum())


@pytest.mark.slow
def test_a_prop_grows_in_the_3d_views_of_a_window(built: Built, serve: Callable[..., Any], tmp_path: Path) -> None:
    limit = tmp_path / "step_limit"
    limit.write_text("20")
    server = serve("--live-rings", "48", "--steps", "100", "--rings", "48", "--step-limit", str(limit))
    report, folder, _ = run_at_window(
        "live_mesh_in_window.py", built.universal, "live-mesh", {"SERVER": server.address, "STEP_LIMIT": str(limit)}
    )
    assert report["triangles"] > 5000
    assert report["same datablocks"] and abs(report["bytes more"]) < 20_000, "the mesh alone would have 100 kB"
    assert report["undone"] != -4.0 and report["drawn after undo"], "the user's step was the last one"
    assert report["local view"] and not report["handler when off"]
    assert report["drawn at the end"] and not report["handler after import"]
    assert np.allclose(report["place"], [1.5, -1.0, 0.25], atol=1e-6)
    assert report["handler was there"] and not report["drawn after loading a file"]
    names = ("before", "early", "late", "local", "two-views", "off", "imported")
    red = {name: reds(folder / f"{place}-{name}.png") for place, name in enumerate(names, 1)}
    # 20 % and 60 % of the steps: 0.6 and 0.8 of the height.
    assert red["early"] > red["before"] + 1000 and red["late"] > 1.3 * red["early"], red
    assert red["local"] > 0.7 * red["late"] and red["two-views"] > red["before"] + 1000, red
    assert red["off"] < red["two-views"] - 1000, red


def test_nothing_is_drawn_and_nothing_fails_in_any_blender(
    blender_install: Blender, built: Built, serve: Callable[..., Any]
) -> None:
    server = serve("--live-rings", "16", "--steps", "60", "--wait", "0.02")
    script = Path(__file__).parent / "scripts" / "live_mesh.py"
    done = run_script(blender_install, script, built.universal, {"SERVER": server.address})
    assert done.returncode == 0 and "SHOWN" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stdout + done.stderr


def test_the_prop_is_drawn_at_the_cursor_in_the_units_of_the_scene(built: Built, serve: Callable[..., Any]) -> None:
    """In a Blender that can draw without a window, which the latest can: its shader has another name than in 3.4."""
    newest = blenders()[-1]
    if newest.missing or shutil.which("Xvfb") is None:
        pytest.skip(newest.missing or "no virtual display")
    server = serve("--live-rings", "32", "--steps", "1000000", "--wait", "0.02")
    script = Path(__file__).parent / "scripts" / "live_mesh_offscreen.py"
    with display((640, 480)) as screen:
        done = run_script(newest, script, built.universal, {"SERVER": server.address, **screen})
    report = report_of(done)
    height = report["height"]
    # 16 pixels a unit; the origin is in the middle, and the ball stands on the cursor at x = 1.
    for name, scale in (("meters", 1.0), ("half", 0.5)):
        size = 16 * height * scale
        wanted = [48 - size / 2, 47 + size / 2, 32, 31 + size]
        assert np.allclose(report[name], wanted, atol=1.5), report
        red, green, blue = report[f"{name} red"]
        assert red > 40 and red > 3 * green and red > 3 * blue, report
