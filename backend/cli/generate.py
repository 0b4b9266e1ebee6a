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
from .progress import BakeDisplay, check_preview_folder
from .run_loop import INTERRUPTED, StopSignal, check_work, watched

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
    """Generate, alone or as one of torchrun's ranks; raises DreamwrightError for everything a person can mend."""
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
    device = rank_device(choose_device(options.device))
    with joined(device) as ranks:
        ranks.rows(job.config.run.views_per_step)  # refused before a model is loaded
        production, complete = _optimized(options, job, work, resumed, origin, device, ranks)
    if not ranks.main:
        return 0 if complete else INTERRUPTED
    try:
        _write_mesh(production, options)
    except DreamwrightError as error:
        if complete:
            raise
        print(f"dreamwright: warning: no mesh yet: {error}", file=sys.stderr)  # the checkpoint is what matters
    if not complete:
        print(f"stopped at step {production.step}; continue with the same command and --resume", file=sys.stderr)
        return INTERRUPTED
    if not options.keep_work:
        remove_checkpoints(work)
    return 0


def _check_places(options: argparse.Namespace, work: Path, textured: bool) -> None:
    """Raise ExportError or CheckpointError for places that cannot take what the run will write."""
    from ..io.mesh_export import check_output_path

    check_output_path(options.out, textured)
    if options.origin is not None and options.origin.resolve() in (work.resolve(), *work.resolve().parents):
        raise CheckpointError(
            f"--from {options.origin} is where this run would write its own checkpoints; choose another --work or --out"
        )
    if options.previews is not None:
        check_preview_folder(options.previews)
    check_work(work, options.resume)


def _optimized(
    options: argparse.Namespace,
    job: Job,
    work: Path,
    resumed: RunState | None,
    origin: InitialField | None,
    device: Any,
    ranks: ProcessGroup,
) -> tuple[TextTo3DPipeline, bool]:
    """The production at the end of its steps, or where it was stopped, and whether they were all taken."""
    from ..training.events import Finished
    from ..training.pipeline import TextTo3DPipeline

    with StopSignal(aloud=ranks.main) as stop:
        production = TextTo3DPipeline(job, device, resumed, stop, ranks, origin)
        if not ranks.main:
            complete = True
            for event in production.events():
                complete = event.complete if isinstance(event, Finished) else complete
            return production, complete
        return production, watched(production, job, work, options.previews, production.step)


def _write_mesh(production: TextTo3DPipeline, options: argparse.Namespace) -> None:
    """Extract, export, tell."""
    from ..io.mesh_export import export_mesh
    from ..mesh_rendering.turntable import turntable_picture

    with BakeDisplay() as bake:
        mesh, report = production.mesh(bake.show)
    export_mesh(mesh, options.out, production.provenance())
    if options.previews is not None:
        turntable_picture(mesh).save(options.previews / "turntable.png")
    error = report.error
    print(
        f"{options.out}: {report.triangles} triangles, {report.vertices} vertices, "
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
