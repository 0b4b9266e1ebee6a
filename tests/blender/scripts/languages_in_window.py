# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: the add-on's tab in German and in Japanese, with a job that is done and a message."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bpy
from ui_driver import (
    addon,
    imported_objects,
    open_connected_tab,
    perform_connected,
    picture,
    redrawn,
    report,
    session,
    until,
)

finish: Callable[[int], None]

LANGUAGES = ("de_DE", "ja_JP")


def work() -> Iterator[float]:
    """Dream a prop, import it, and take a picture in each language."""
    view = bpy.context.preferences.view
    view.use_translate_interface = view.use_translate_tooltips = True
    yield from open_connected_tab()
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    yield from until(lambda: any(job.state == "succeeded" for job in session().jobs.values()), "the end of the job")
    for language in LANGUAGES:
        view.language = language
        session().notices.clear()
        before = len(imported_objects())
        bpy.ops.dreamwright.import_mesh(job=next(iter(session().jobs)))
        yield from until(lambda before=before: len(imported_objects()) > before, "the import")
        yield from redrawn()
        yield from picture(language)
        report[language] = [notice.text for notice in session().notices] + [addon("labels").duration(75)]


perform_connected(work(), finish)
