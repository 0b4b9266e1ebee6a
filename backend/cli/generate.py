# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright generate`: a prompt becomes a mesh file; checkpoints, previews, Ctrl-C and resume on the way."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.presets import PRESETS, get_preset
from ..errors import CheckpointError, DreamwrightError
from ..training.methods import METHODS, get_method, preset_of
from .run_display import BakeDisplay, PreviewFolder, print_warning
from .signals import INTERRUPTED, StopSignal
from .training_run import STOP_MESSAGE, Outcome, check_folders, report_stop, take_steps, write_mesh

if TYPE_CHECKING:
    from ..runtime.distributed import ProcessGroup
    from ..scenes.initial_field import InitialField
    from ..training.events import RunState
    from ..training.job import Job
    from ..training.pipeline import TextTo3DPipeline


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser("generate", help="make a 3D prop from a prompt", description=__doc__)
    parser.add_argument("prompt", help='what to make, for example "a red mushroom"')
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("prop.glb"),
        help="mesh file: .glb, .ply or .obj; replaced only once a mesh is made, never by a failed run",
    )
    parser.add_argument(
        "--method",
        help=f"one of: {', '.join(f'{m.name} ({m.summary})' for m in METHODS.values())}; default: the preset's, dreamfusion without one",
    )
    parser.add_argument(
        "--model",
        help="a name from `dreamwright models`, or a folder (diffusers for dreamfusion, CLIP for dream-fields and clip-mesh); default: the method's built-in one",
    )
    parser.add_argument(
        "--preset",
        help=f"default: the method's first; one of: {', '.join(f'{p.name} ({p.summary})' for p in PRESETS.values())}",
    )
    parser.add_argument("--seed", type=int, help="another number makes another prop (default 0)")
    parser.add_argument("--steps", type=int, help="optimization steps, instead of the preset's")
    parser.add_argument(
        "--texture",
        type=int,
        metavar="SIZE",
        help="colors as a picture of SIZE texels a side (64 to 4096, for example 1024) instead of vertex colors; in the .glb, or beside the .obj",
    )
    parser.add_argument("--negative", default=None, help="what to avoid (the unconditional prompt)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting, for example guidance.omega=30, or guidance.guidance_scale=31, diffusers' name for 1 + omega; --seed, --steps and --texture win over it",
    )
    parser.add_argument("--previews", type=Path, metavar="DIR", help="folder for preview pictures and a turntable")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="folder for checkpoints (default: OUT.work beside the output)"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in the work folder")
    parser.add_argument("--keep-work", action="store_true", help="keep the work folder after success, for --from")
    parser.add_argument(
        "--from",
        dest="origin",
        type=Path,
        metavar="DIR",
        help="begin from the field of another run (its work folder, kept with --keep-work) instead of a fresh one: refine its prompt; run.finetune_share says how much of it to keep",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def job_from(options: argparse.Namespace) -> Any:
    """The validated job that the options describe."""
    from ..config.parsing import apply_settings
    from ..training.job import make_job

    preset = preset_of(options.method, options.preset)
    config = get_preset(preset).config
    named = {"run.seed": options.seed, "run.steps": options.steps, "mesh.texture": options.texture}
    settings = [*options.set, *(f"{name}={value}" for name, value in named.items() if value is not None)]
    config = apply_settings(config, settings)
    if options.negative is not None:
        config = replace(config, guidance=replace(config.guidance, negative_prompt=options.negative))
    return make_job(options.prompt, options.model or get_method(config.run.method).model, preset, config)


def run(options: argparse.Namespace) -> int:
    """Generate, in one process or as one rank of torchrun. Raises DreamwrightError for what the user can mend."""
    from ..runtime.distributed import is_main_process, joined, rank_device

    job = job_from(options)
    work = options.work or options.out.with_name(options.out.name + ".work")
    if is_main_process():
        _check_places(options, work, job.config.mesh.texture > 0)

    from ..scenes.initial_field import read_initial_field
    from ..training.checkpoints import read_checkpoint, remove_checkpoints
    from .sample import choose_device

    origin = None
    if options.origin is not None:
        origin = read_initial_field(options.origin)
        job = replace(job, origin=origin.digest)

    resumed = None
    if options.resume:
        restored = read_checkpoint(work, job)
        resumed = restored.state
        if is_main_process():
            print(restored.notice or f"resuming at step {resumed.step}", file=sys.stderr)
    device, previews = rank_device(choose_device(options.device)), PreviewFolder(options.previews)
    with StopSignal(STOP_MESSAGE if is_main_process() else "") as stop:
        with joined(device) as ranks:
            ranks.rows(job.config.run.views_per_step)  # refused before a model is loaded
            pipeline, outcome = _optimize(job, work, resumed, origin, device, ranks, stop, previews)
        if not ranks.main:
            return 0 if outcome.is_complete else INTERRUPTED
        try:
            _write_mesh(pipeline, options.out, work, previews)
        except DreamwrightError as error:
            if outcome.is_complete:
                raise
            print_warning(f"no mesh yet: {error}")  # the checkpoint is what matters
    if not outcome.is_complete:
        report_stop(pipeline.step, outcome)
        return INTERRUPTED
    if not options.keep_work:
        remove_checkpoints(work)
    return 0


def _check_places(options: argparse.Namespace, work: Path, textured: bool) -> None:
    """Raise ExportError or CheckpointError for places that cannot take what the run will write."""
    from ..io.mesh_export import check_output_path

    check_output_path(options.out, textured)
    check_folders(work, options.previews, options.resume)
    if options.origin is not None and options.origin.resolve() in (work.resolve(), *work.resolve().parents):
        raise CheckpointError(
            f"--from {options.origin} is where this run would write its own checkpoints; choose another --work or --out"
        )


def _optimize(
    job: Job,
    work: Path,
    resumed: RunState | None,
    origin: InitialField | None,
    device: Any,
    ranks: ProcessGroup,
    stop: StopSignal,
    previews: PreviewFolder,
) -> tuple[TextTo3DPipeline, Outcome]:
    """The pipeline after its last step, or after the step at which it was stopped, and how it ended."""
    from ..training.events import Finished
    from ..training.pipeline import TextTo3DPipeline

    pipeline = TextTo3DPipeline(job, device, resumed, stop, ranks, origin)
    if ranks.main:
        return pipeline, take_steps(pipeline, job, work, previews, pipeline.step)
    is_complete = True
    for event in pipeline.events():
        is_complete = event.complete if isinstance(event, Finished) else is_complete
    return pipeline, Outcome(is_complete)


def _write_mesh(pipeline: TextTo3DPipeline, out: Path, work: Path, previews: PreviewFolder) -> None:
    """Extract and export the mesh, and print its figures."""
    from ..io.mesh_export import export_mesh
    from ..mesh_rendering.turntable import turntable_picture

    with BakeDisplay() as bake:
        mesh, report = pipeline.mesh(bake.show)
    write_mesh(lambda path: export_mesh(mesh, path, pipeline.provenance()), out, work)
    previews.save("turntable", turntable_picture(mesh))
    error = report.error
    print(
        f"{out}: {report.triangles} triangles, {report.vertices} vertices, "
        f"{'watertight' if report.watertight else 'open'}, {report.components} part(s)"
        + (f", texture {report.texture} x {report.texture}" if report.texture else "")
        + (
            f"; mesh against field: {error.psnr_object:.1f} dB, silhouette IoU {error.silhouette_iou:.3f}"
            if error
            else ""
        )
        + (f"; {100 * report.folded:.1f}% of the faces folded over" if report.folded is not None else "")
        + (f", {100 * report.inside:.1f}% of what is seen is its inside" if report.inside is not None else "")
    )
