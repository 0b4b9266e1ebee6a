# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright refine`: a mesh is moved and colored towards a prompt; its faces and its vertices' order stay."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .run_display import PreviewFolder
from .signals import INTERRUPTED, StopSignal
from .training_run import STOP_MESSAGE, check_folders, report_stop, take_steps, write_mesh

if TYPE_CHECKING:
    from ..geometry.input_mesh import InputMesh
    from ..training.refine_job import RefineJob
    from ..training.refine_pipeline import RefineProduction


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser(
        "refine", help="move and color an existing mesh towards a prompt", description=__doc__
    )
    parser.add_argument("mesh", type=Path, help="mesh file: .glb, .ply or .obj")
    parser.add_argument("prompt", help='what it should be, for example "a red mushroom"')
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("refined.glb"),
        help="mesh file: .glb, .ply or .obj; replaced only once the mesh is made",
    )
    parser.add_argument(
        "--strength",
        type=float,
        help="0 changes nothing, 1 moves vertices by up to half the mesh's radius (default 0.5)",
    )
    parser.add_argument("--model", default="starter", help="a name from `dreamwright models`, or a diffusers folder")
    parser.add_argument("--seed", type=int, help="another number draws other views and noise (default 0)")
    parser.add_argument("--steps", type=int, help="optimization steps (default 300)")
    parser.add_argument("--keep-positions", action="store_true", help="change colors only")
    parser.add_argument("--keep-colors", action="store_true", help="move vertices only")
    parser.add_argument(
        "--up",
        choices=("auto", "y", "z"),
        default="auto",
        help="the file's upward axis; auto: y for glTF, z for the others",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting that docs/user/refine-mesh.md lists, for example guidance.omega=10; the options above win over it",
    )
    parser.add_argument("--previews", type=Path, metavar="DIR", help="folder for preview pictures and a turntable")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="folder for checkpoints (default: OUT.work beside the output)"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in the work folder")
    parser.add_argument("--keep-work", action="store_true", help="keep the checkpoints after success")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def job_from(options: argparse.Namespace, subject: InputMesh) -> RefineJob:
    """The validated job that the options describe."""
    from ..config.parsing import apply_settings
    from ..config.presets import REFINE
    from ..training.refine_job import make_refine_job

    named = {"run.seed": options.seed, "run.steps": options.steps, "refine.strength": options.strength}
    named |= {"refine.positions": False} if options.keep_positions else {}
    named |= {"refine.colors": False} if options.keep_colors else {}
    settings = [*options.set, *(f"{name}={value}" for name, value in named.items() if value is not None)]
    return make_refine_job(options.prompt, options.model, apply_settings(REFINE, settings), subject)


def run(options: argparse.Namespace) -> int:
    """Refine. Raises DreamwrightError for what the user can mend."""
    from ..io.mesh_export import check_output_path
    from ..io.mesh_reader import read_input_mesh
    from ..training.checkpoints import read_checkpoint, remove_checkpoints
    from ..training.refine_pipeline import RefineProduction
    from .sample import choose_device

    work = options.work or options.out.with_name(options.out.name + ".work")
    check_output_path(options.out)
    check_folders(work, options.previews, options.resume)
    subject = read_input_mesh(options.mesh, options.up)
    for notice in subject.notices:
        print(f"dreamwright: warning: {options.mesh}: {notice}", file=sys.stderr)
    job = job_from(options, subject)
    resumed = None
    if options.resume:
        restored = read_checkpoint(work, job)
        resumed = restored.state
        print(restored.notice or f"resuming at step {resumed.step}", file=sys.stderr)
    device, previews = choose_device(options.device), PreviewFolder(options.previews)
    with StopSignal(STOP_MESSAGE) as stop:
        pipeline = RefineProduction(job, subject, device, resumed, stop)
        outcome = take_steps(pipeline, job, work, previews, resumed.step if resumed else 0)
        _write_mesh(pipeline, options.out, work, previews)
    if not outcome.is_complete:
        report_stop(pipeline.step, outcome)
        return INTERRUPTED
    if not options.keep_work:
        remove_checkpoints(work)
    return 0


def _write_mesh(pipeline: RefineProduction, out: Path, work: Path, previews: PreviewFolder) -> None:
    """Export the mesh, and print its figures."""
    from ..io.mesh_export import export_mesh
    from ..mesh_rendering.turntable import turntable_picture

    mesh = pipeline.mesh()
    write_mesh(lambda path: export_mesh(mesh, path, pipeline.provenance()), out, work)
    previews.save("turntable", turntable_picture(mesh))
    figures = pipeline.run.scene.figures()
    radius = 0.5  # of the sphere around the mesh, in scene units
    print(
        f"{out}: {len(mesh.faces)} triangles, {len(mesh.vertices)} vertices as before; "
        f"moved by {100 * figures['moved'] / radius:.1f}% of the radius on average, "
        f"{100 * figures['moved_most'] / radius:.1f}% at most; {100 * figures['folded']:.1f}% of the faces folded over"
    )
