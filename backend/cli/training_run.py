# SPDX-License-Identifier: GPL-3.0-or-later
"""What `generate` and `refine` share: folders checked and locked, steps taken, checkpoints and the mesh written."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, DreamwrightError, ExportError, RunError
from .run_display import BakeDisplay, LiveMeshFile, PreviewFolder, RunDisplay, print_warning
from .signals import INTERRUPTED

if TYPE_CHECKING:
    from ..geometry.build import Mesh, MeshReport
    from ..scenes.interfaces import RunState
    from ..training.job import Job
    from ..training.pipeline import TextTo3DPipeline

STOP_MESSAGE = "stopping after this step; the mesh so far will be written (a second signal ends at once)"


@dataclass(frozen=True)
class Outcome:
    """How the steps of a run ended: whether all were taken, and why the last checkpoint is missing ("": it is not)."""

    is_complete: bool
    checkpoint_error: str = ""


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments of both commands about files and devices, but for --out."""
    parser.add_argument("--previews", type=Path, metavar="DIR", help="folder for preview images and a turntable")
    parser.add_argument(
        "--live-mesh",
        type=Path,
        metavar="FILE",
        help="mesh file (.glb, .ply or .obj) that shows the growing prop, coarsely: replaced every "
        "run.live_mesh_interval steps",
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="folder for checkpoints (default: OUT.work beside the output)"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in the work folder")
    parser.add_argument("--keep-work", action="store_true", help="keep the checkpoints after success")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def work_folder(options: argparse.Namespace) -> Path:
    """The folder for checkpoints."""
    chosen: Path | None = options.work
    out: Path = options.out
    return chosen or out.with_name(f"{out.name}.work")


def check_folders(options: argparse.Namespace) -> None:
    """Raise ExportError for a work or previews folder, or a live mesh, that cannot be written; creates nothing."""
    from ..io.output_files import check_folder_writable

    for option, folder in (("--work", work_folder(options)), ("--previews", options.previews)):
        if folder is not None:
            try:
                check_folder_writable(folder)
            except ExportError as error:
                raise ExportError(f"{option}: {error}") from error
    if options.live_mesh is not None:
        from ..io.mesh_export import check_output_path

        try:
            check_output_path(options.live_mesh)
        except ExportError as error:
            raise ExportError(f"--live-mesh: {error}") from error
        if options.live_mesh.absolute() == options.out.absolute():
            raise ExportError(f"--live-mesh and --out are both {str(options.out)!r}; choose two files")


@contextmanager
def locked_job(options: argparse.Namespace, job: Job, is_main: bool = True) -> Iterator[tuple[Job, RunState | None]]:
    """Lock the work folder; yields the job with its model's digest, and the state to resume from.

    Of several processes of one run the main one locks the folder. Raises CheckpointError and ModelError.
    """
    from ..training.checkpoints import read_checkpoint
    from ..training.job import identify_model
    from ..training.run_lock import locked_work_folder

    @contextmanager
    def not_locked() -> Iterator[None]:
        yield

    work = work_folder(options)
    with locked_work_folder(work, options.resume) if is_main else not_locked():
        job, resumed = identify_model(job), None
        if options.resume:
            restored = read_checkpoint(work, job)
            resumed = restored.state
            if is_main:
                print(restored.notice or f"resuming at step {resumed.step}", file=sys.stderr)
        yield job, resumed


def take_steps(
    pipeline: TextTo3DPipeline, work: Path, previews: PreviewFolder, live_mesh: LiveMeshFile = LiveMeshFile(None)
) -> Outcome:
    """Take the remaining steps, show the events, and write each checkpoint to `work`.

    A checkpoint that cannot be written is reported, and the run goes on.
    """
    from ..training.checkpoints import write_checkpoint
    from ..training.events import Checkpoint, Finished

    for notice in pipeline.notices:
        print(notice, file=sys.stderr)
    for warning in pipeline.warnings:
        print_warning(warning)
    job, is_complete, failure = pipeline.job, True, ""
    with RunDisplay(job.prompt, job.config.total_steps, pipeline.step, previews, live_mesh) as display:
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


def finish(
    options: argparse.Namespace,
    pipeline: TextTo3DPipeline,
    outcome: Outcome,
    previews: PreviewFolder,
    describe: Callable[[Mesh, MeshReport], str],
    on_complete: Callable[[Mesh], None] = lambda mesh: None,
    go_on: str = "continue with the same command and --resume",
) -> int:
    """Write the mesh, print what `describe` says of it, and remove the checkpoints of a complete run.

    `on_complete` receives the mesh of a complete run before its checkpoints are removed; `go_on` says how to continue a
    stopped one. Returns the exit code. Raises RunError when there is no mesh, or when it had to be written to another
    place.
    """
    from ..training.checkpoints import remove_checkpoints

    work = work_folder(options)
    try:
        with BakeDisplay() as bake:
            mesh, report = pipeline.mesh(bake.show)
        write_mesh(mesh, options.out, work, pipeline.provenance())
        for warning in report.warnings:
            print_warning(warning)
        if options.previews is not None:
            from ..mesh_rendering.turntable import turntable_image

            previews.save("turntable", turntable_image(mesh))
        print(f"{options.out}: {describe(mesh, report)}")
        if outcome.is_complete:
            on_complete(mesh)
    except DreamwrightError as error:
        if outcome.is_complete:
            raise
        print_warning(f"no mesh yet: {error}")  # the checkpoint is what matters
    if not outcome.is_complete:
        if outcome.checkpoint_error:
            raise RunError(f"stopped at step {pipeline.step}, which is not kept: {outcome.checkpoint_error}")
        print(f"stopped at step {pipeline.step}; {go_on}", file=sys.stderr)
        return INTERRUPTED
    if not options.keep_work:
        remove_checkpoints(work)
    return 0


def write_mesh(mesh: Mesh, out: Path, work: Path, provenance: Any) -> None:
    """Write the mesh to `out`; if that fails, to the work folder or a temporary folder.

    Raises RunError that names the file for a mesh that is not in `out`.
    """
    from ..io.mesh_export import export_mesh

    try:
        export_mesh(mesh, out, provenance)
        return
    except (ExportError, OSError) as error:
        reason = str(error)
    again = f"continue with --resume --work {work} and another --out to write it anew"
    for is_temporary in (False, True):
        try:
            folder = Path(tempfile.mkdtemp(prefix="dreamwright-")) if is_temporary else work
            folder.mkdir(parents=True, exist_ok=True)
            kept = folder / f"mesh{out.suffix.lower()}"
            export_mesh(mesh, kept, provenance)
        except (ExportError, OSError):
            continue
        raise RunError(f"{reason}; the mesh is kept as {kept}; {again}")
    raise RunError(f"{reason}; the checkpoint is kept; {again}")
