# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: a dreamt prop grows in the 3D view, early, in the middle and late, and is imported."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import ui_driver
from ui_driver import VIEW, addon, area_of, center, click, panel, picture, point, report, session, until

finish: Callable[[int], None]  # given by run_installed.py

PROMPT, SETTINGS = json.loads(os.environ["PROMPTS"])[0], json.loads(os.environ["SETTINGS"])
PATIENCE_S = float(os.environ["PATIENCE_S"])
SHARES = {"early": 0.1, "middle": 0.4, "late": 0.95}  # of the steps


def job() -> Any:
    """The only job."""
    return next(iter(session().jobs.values()))


def has_grown(share: float) -> bool:
    """Whether the mesh of this share of the steps is drawn; the newest of a job that has ended."""
    shown = addon("live_mesh").shown()
    return shown is not None and (shown.step >= share * job().steps or job().state == "succeeded")


def frame_the_cursor() -> None:
    """Look at a meter above the 3D cursor."""
    region = area_of("VIEW_3D").spaces.active.region_3d
    region.view_location, region.view_distance = (0.35, 0.0, 0.45), 3.2


def work() -> Iterator[float]:
    """Generate, watch, import."""
    yield from ui_driver.delete_cube()
    yield from ui_driver.open_connected_tab()
    frame_the_cursor()
    panel().prompt = PROMPT
    panel().settings_text = json.dumps(SETTINGS)
    yield from click("dreamwright.generate()")
    yield from until(lambda: bool(session().jobs), "the job")
    report["steps"] = []
    for name, share in SHARES.items():
        yield from until(lambda share=share: has_grown(share), name, PATIENCE_S)
        report["steps"].append(addon("live_mesh").shown().step)
        yield from point(center(VIEW))
        yield from ui_driver.redrawn()
        yield from picture(name)
    yield from until(lambda: job().state in ("succeeded", "failed"), "its end", PATIENCE_S)
    yield from click("dreamwright.import_mesh", upwards=True)
    yield from until(lambda: bool(ui_driver.imported_objects()), "the import")
    report["triangles"] = len(ui_driver.imported_objects()[0].data.polygons)
    # Solid with its colors, as few as the picture may have; Material Preview needs more.
    area_of("VIEW_3D").spaces.active.shading.color_type = "VERTEX"
    yield from point(center(VIEW))
    yield from ui_driver.redrawn()
    yield from picture("imported")


ui_driver.perform_connected(work(), finish)
