# SPDX-License-Identifier: GPL-3.0-or-later
"""The server keeps the latest previews of the jobs that sent one last, however many jobs it has."""

from __future__ import annotations

from typing import Any

from dreamwright.backend.server.transport.event_publisher import PREVIEWS_KEPT, EventPublisher
from dreamwright.shared.messages import PreviewFrame


def test_previews_of_ended_jobs_are_dropped_and_new_subscribers_get_the_latest() -> None:
    sent: list[tuple[bytes, Any]] = []
    publisher = EventPublisher(lambda route, event: sent.append((route, event)) is None, lambda: 0.0)
    for number in range(3 * PREVIEWS_KEPT):
        for step in (1, 2):
            publisher.previews.publish(PreviewFrame(f"job{number}", step, 1, 1, b"x"))
            publisher.previews.publish(PreviewFrame("long", 2 * number + step, 1, 1, b"x"))
    assert len(publisher.previews.newest) == PREVIEWS_KEPT
    publisher.subscribe(b"late", "anna", f"job{3 * PREVIEWS_KEPT - 1}")
    publisher.subscribe(b"long", "anna", "long")
    publisher.subscribe(b"past", "anna", "job0")
    publisher.flush()
    assert [(route, event.job, event.step) for route, event in sent] == [
        (b"late", f"job{3 * PREVIEWS_KEPT - 1}", 2), (b"long", "long", 6 * PREVIEWS_KEPT),
    ]  # fmt: skip
