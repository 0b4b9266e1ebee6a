# SPDX-License-Identifier: GPL-3.0-or-later
"""When will the jobs that wait be ready? Reckoned from what earlier runs took; told when it changed by more than a little."""

from __future__ import annotations

from collections.abc import Sequence

from dreamwright.shared.job_states import JobState

from ..transport.event_publisher import EventPublisher
from .durations import Span, ready_times, recipe

LEAST_S = 2.0  # a change of less is not told
LEAST_SHARE = 0.05  # nor one of a smaller share of the time itself


def forecast(herald: EventPublisher, devices: Sequence[str]) -> None:
    """Note `ready_low_s` and `ready_high_s` of every job that waits, seconds from now; -1 where nothing like it has run."""
    ledger = herald.ledger
    paces, entries = ledger.paces, ledger.entries.values()
    busy = {device: Span(0.0, 0.0) for device in devices}
    for entry in entries:
        job = entry.summary
        if entry.state in (JobState.RUNNING, JobState.CANCELLING) and job.device in busy:
            known = recipe(job)
            if entry.state is JobState.CANCELLING:
                busy[job.device] = paces.rest(known, job.device)
            elif job.eta_s >= 0:
                busy[job.device] = Span(job.eta_s, job.eta_s) + paces.rest(known, job.device)
            else:
                busy[job.device] = paces.whole(known, job.device, job.steps - job.step)
    queue = []
    for entry in ledger.waiting():
        job = entry.summary
        known = recipe(job)
        queue.append((job.job, {device: paces.whole(known, device, job.steps - job.step) for device in busy}))
    spans = ready_times(busy, queue)
    for entry in list(entries):
        job, span = entry.summary, spans.get(entry.summary.job)
        low, high = (span.low_s, span.high_s) if span is not None and span.known else (-1.0, -1.0)
        slack = max(LEAST_S, LEAST_SHARE * high)
        moved = max(abs(high - job.ready_high_s), abs(low - job.ready_low_s))
        if (high < 0) != (job.ready_high_s < 0) or moved > slack:
            herald.note(job.job, ready_low_s=low, ready_high_s=high)
