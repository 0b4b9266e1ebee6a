# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: the list of models, the question before a download, its progress, the stop, and the model ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bpy
import ui_driver
from ui_driver import (
    MOMENT,
    SIDEBAR,
    VIEW,
    addon,
    center,
    click,
    delete_cube,
    open_connected_tab,
    perform_connected,
    picture,
    point,
    press,
    region_of,
    report,
    session,
    until,
)

finish: Callable[[int], None]  # given by run_installed.py

NAME = "sd-1.5"


def download() -> Any:
    """The download as the server last said."""
    return session().models.downloads.get(NAME)


def select(name: str) -> None:
    """Select a model in the list."""
    mine = addon("model_rows").models()
    mine.index = [row.model for row in mine.rows].index(name)


def opened() -> None:
    """Open the panel of models: its heading is no button that the driver could find."""
    kind = bpy.types.DREAMWRIGHT_PT_models
    bpy.utils.unregister_class(kind)
    kind.bl_options = set()
    bpy.utils.register_class(kind)


def shown(name: str) -> Iterator[float]:
    """A screenshot once the panel is drawn anew."""
    yield from point(center(VIEW))
    for _ in range(20):
        region_of(SIDEBAR).tag_redraw()
        yield MOMENT
    yield from picture(name)


def work() -> Iterator[float]:
    """From the list to a model that is ready."""
    yield from delete_cube()
    opened()
    yield from open_connected_tab()
    yield from until(lambda: len(addon("model_rows").models().rows) > 0, "the list")
    select("sd3-medium")
    yield from shown("gated")
    select(NAME)
    yield from shown("list")
    yield from click("dreamwright.download_model")
    for _ in range(20):  # the question is drawn, and takes its keys, some moments later
        yield MOMENT
    yield from picture("question")
    yield from press("RET", ui_driver.pointer)
    yield from until(lambda: download() is not None and download().received_bytes > 2**20, "some megabytes")
    report["running"] = download().state
    yield from shown("progress")
    yield from click("dreamwright.stop_model_download", across=0.78)  # a small button at the row's end
    yield from until(lambda: download().state == "stopped", "the stop")
    yield from shown("stopped")
    bpy.ops.dreamwright.download_model(model=NAME)
    # Its check loads large libraries.
    yield from until(lambda: download().state in ("done", "failed"), "the end", 900)
    report["ended"] = download().state
    yield from until(
        lambda: any(one.name == NAME and one.ready for one in session().capabilities.models), "the new capabilities"
    )
    yield from shown("ready")


perform_connected(work(), finish)
