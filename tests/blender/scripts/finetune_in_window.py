# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: press both fine-tune buttons and confirm their dialogs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bpy
import ui_driver
from ui_driver import (
    MOMENT,
    VIEW,
    center,
    click,
    delete_cube,
    imported_objects,
    open_connected_tab,
    panel,
    perform_connected,
    picture,
    point,
    press,
    report,
    session,
    until,
)

finish: Callable[[int], None]  # given by run_installed.py

EDGE = 0.78  # of the sidebar's width, where a row's last small button is


def newest(known: set[str]) -> Any:
    """The job that came since."""
    return next((job for name, job in session().jobs.items() if name not in known), None)


def dialog(name: str) -> Iterator[float]:
    """Confirm the dialog that has just opened, and note the job that it made."""
    known = set(session().jobs)
    for _ in range(20):  # it is drawn, and takes its keys, some moments later
        yield MOMENT
    yield from picture(name.replace(" ", "-"))
    yield from press("RET", ui_driver.pointer)
    yield from until(lambda: newest(known) is not None, "the refined job")
    job = newest(known)
    report[name] = [job.prompt, job.parent_job, job.settings["run.finetune_share"]]


def work() -> Iterator[float]:
    """Generate, import, press both buttons."""
    yield from delete_cube()
    yield from open_connected_tab()
    view = center(VIEW)
    panel().prompt = "a red mushroom"
    bpy.ops.dreamwright.generate()
    yield from until(lambda: any(job.state == "succeeded" for job in session().jobs.values()), "the job")
    (first,) = session().jobs
    report["first"] = first
    bpy.ops.dreamwright.import_mesh(job=first)
    yield from until(lambda: bool(imported_objects()), "the import")
    yield from point(view)
    yield from click("dreamwright.finetune_object", across=EDGE)
    yield from dialog("by object")
    yield from until(
        lambda: all(job.state == "succeeded" for job in session().jobs.values()), "the end of the refined job"
    )
    panel().job_index = next(place for place, row in enumerate(panel().job_rows) if row.job == first)
    yield from point(view)
    yield from click("dreamwright.finetune_job", upwards=True, across=EDGE)
    yield from dialog("by job")


perform_connected(work(), finish)
