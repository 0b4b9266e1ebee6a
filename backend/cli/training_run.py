# SPDX-License-Identifier: GPL-3.0-or-later
"""What `generate` and `refine` share: places checked at the start, events shown, checkpoints and the mesh written."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, ExportError, RunError
from .run_display import PreviewFolder, RunDisplay, print_warning

if TYPE_CHECKING:
    from ..training.job import Job
    from ..training.pipeline import TextTo3DPipeline
    from ..training.refine_job import RefineJob
    from ..training.refine_pipeline import RefineProduction

STOP_MESSAGE = "stopping after this step; the mesh so far will be written (a second signal ends at once)"


@dataclass(frozen=True)
class Outcome:
    """How the steps of a run ended: whether all were taken, and why the newest checkpoint is missing ("": it is not)."""

    is_complete: bool
    checkpoint_error: str = ""


def check_folders(work: Path, previews: Path | None, resume: bool) -> None:
    """Check the folders that a run writes to; creates nothing.

    Raises ExportError for a place that cannot be written, and CheckpointError for a work folder that is a file or that
    holds the checkpoint of another run without `resume`.
    """
    from ..io.output_files import check_folder_writable
    from ..training.checkpoints import has_checkpoint

    for option, folder in (("--work", work), ("--previews", previews)):
        if folder is not None:
            try:
                check_folder_writable(folder)
            except ExportError as error:
                raise ExportError(f"{option}: {error}") from error
    if has_checkpoint(work) and not resume:
        raise CheckpointError(
            f"{work} holds the checkpoint of an unfinished run; add --resume to continue it, or delete the folder to start afresh"
        )


def take_steps(
    pipeline: TextTo3DPipeline | RefineProduction, job: Job | RefineJob, work: Path, previews: PreviewFolder, done: int
) -> Outcome:
    """Take the steps after step `done`, show the events, and write each checkpoint to `work`.

    A checkpoint that cannot be written is reported, and the run goes on.
    """
    from ..training.checkpoints import write_checkpoint
    from ..training.events import Checkpoint, Finished

    for notice in pipeline.notices:
        print(notice, file=sys.stderr)
    for warning in pipeline.warnings:
        print_warning(warning)
    is_complete, failure = True, ""
    with RunDisplay(job.prompt, job.config.run.steps, done, previews) as display:
        for event in pipeline.events():
            display.show(event)
            if isinstance(event, Checkpoint):
                try:
                    write_checkpoint(work, job, event.state)
                    failure = ""
                except CheckpointError as error:
                    if not failure:
                        print_warning(f"{error}; the run goes on without it")
                    failure = str(error)
            elif isinstance(event, Finished):
                is_complete = event.complete
    return Outcome(is_complete, failure)


def write_mesh(write: Callable[[Path], object], out: Path, work: Path) -> None:
    """Call `write(out)`; if that fails, write the mesh to the work folder or a temporary folder instead.

    Raises RunError that says where the mesh is.
    """
    try:
        write(out)
        return
    except (ExportError, OSError) as error:
        reason = str(error)
    again = f"continue with --resume --work {work} and another --out to write it anew"
    for is_temporary in (False, True):
        try:
            folder = Path(tempfile.mkdtemp(prefix="dreamwright-")) if is_temporary else work
            folder.mkdir(parents=True, exist_ok=True)
            kept = folder / f"mesh{out.suffix.lower()}"
            write(kept)
        except (ExportError, OSError):
            continue
        raise RunError(f"{reason}; the mesh is kept as {kept}; {again}")
    raise RunError(f"{reason}; the checkpoint is kept; {again}")


def report_stop(step: int, outcome: Outcome) -> None:
    """Say how an interrupted run is continued. Raises RunError when its last checkpoint could not be written."""
    if outcome.checkpoint_error:
        raise RunError(f"stopped at step {step}, which is not kept: {outcome.checkpoint_error}")
    print(f"stopped at step {step}; continue with the same command and --resume", file=sys.stderr)
