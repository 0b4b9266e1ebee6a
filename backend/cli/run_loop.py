# SPDX-License-Identifier: GPL-3.0-or-later
"""A run in a terminal: what it says first, its events shown, its checkpoints written, and Ctrl-C."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from .progress import RunDisplay

if TYPE_CHECKING:
    from ..training.job import Job
    from ..training.pipeline import TextTo3DPipeline
    from ..training.refine_job import RefineJob
    from ..training.refine_pipeline import RefineProduction

INTERRUPTED = 130  # exit code of what Ctrl-C ended, as shells have it


class StopSignal:
    """First Ctrl-C: finish the step, keep what there is. Second: leave at once."""

    def __init__(self, aloud: bool = True) -> None:
        self.asked, self._aloud = False, aloud

    def __enter__(self) -> StopSignal:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def __call__(self) -> bool:
        return self.asked

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._aloud:
            print(
                "\nstopping after this step; the mesh so far will be written (Ctrl-C again leaves at once)",
                file=sys.stderr,
            )


def check_work(work: Path, resume: bool) -> None:
    """Raise CheckpointError for a work folder that is a file, or that holds a checkpoint nobody asked to resume."""
    from ..training.checkpoints import has_checkpoint

    if work.exists() and not work.is_dir():
        raise CheckpointError(f"{work} is a file, so no checkpoint can go there; choose a folder with --work")
    if has_checkpoint(work) and not resume:
        raise CheckpointError(
            f"{work} holds the checkpoint of an unfinished run; add --resume to continue it, or delete the folder to start afresh"
        )


def watched(
    production: TextTo3DPipeline | RefineProduction, job: Job | RefineJob, work: Path, previews: Path | None, done: int
) -> bool:
    """Take all steps from step `done` on, show them, write each checkpoint to `work`; whether none was left when it ended."""
    from ..training.checkpoints import write_checkpoint
    from ..training.events import Checkpoint, Finished

    for notice in production.notices:
        print(notice, file=sys.stderr)
    for warning in production.warnings:
        print(f"dreamwright: warning: {warning}", file=sys.stderr)
    complete = True
    with RunDisplay(job, previews, done) as display:
        for event in production.events():
            display.show(event)
            if isinstance(event, Checkpoint):
                write_checkpoint(work, job, event.state)
            elif isinstance(event, Finished):
                complete = event.complete
    return complete
