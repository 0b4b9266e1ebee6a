# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server keeps of pictures: the latest of the jobs that were pictured last, however many jobs it keeps."""

from __future__ import annotations

from typing import Any

from dreamwright.backend.server.transport.subscribers import PICTURES_KEPT, Audience
from dreamwright.shared.messages import PreviewFrame


def test_pictures_of_many_ended_jobs_do_not_pile_up_and_who_comes_to_watch_gets_the_latest() -> None:
    sent: list[tuple[bytes, Any]] = []
    audience = Audience(lambda route, event: sent.append((route, event)) is None, lambda: 0.0)
    for number in range(3 * PICTURES_KEPT):
        for step in (1, 2):
            audience.pictured(PreviewFrame(f"job{number}", step, 1, 1, b"x"))
            audience.pictured(PreviewFrame("long", 2 * number + step, 1, 1, b"x"))
    assert len(audience._latest) == PICTURES_KEPT
    audience.join(b"late", "anna", f"job{3 * PICTURES_KEPT - 1}")
    audience.join(b"long", "anna", "long")
    audience.join(b"past", "anna", "job0")
    audience.settle()
    assert [(route, event.job, event.step) for route, event in sent] == [
        (b"late", f"job{3 * PICTURES_KEPT - 1}", 2), (b"long", "long", 6 * PICTURES_KEPT),
    ]  # fmt: skip
