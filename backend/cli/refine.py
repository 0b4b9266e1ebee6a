# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright refine`: a mesh is moved and colored towards a prompt; its faces and its vertices' order stay."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .progress import check_preview_folder
from .run_loop import INTERRUPTED, StopSignal, check_work, watched

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
    from ..training.refine_job import REFINE, make_refine_job

    named = {"run.seed": options.seed, "run.steps": options.steps, "refine.strength": options.strength}
    named |= {"refine.positions": False} if options.keep_positions else {}
    named |= {"refine.colors": False} if options.keep_colors else {}
    settings = [*options.set, *(f"{name}={value}" for name, value in named.items() if value is not None)]
    return make_refine_job(options.prompt, options.model, apply_settings(REFINE, settings), subject)


def run(options: argparse.Namespace) -> int:
    """Refine; raises DreamwrightError for everything a person can mend."""
    from ..io.mesh_export import check_output_path
    from ..io.mesh_reader import read_input_mesh
    from ..training.checkpoints import read_checkpoint, remove_checkpoints
    from .sample import choose_device

    check_output_path(options.out)
    work = options.work or options.out.with_name(options.out.name + ".work")
    check_work(work, options.resume)
    if options.previews is not None:
        check_preview_folder(options.previews)
    subject = read_input_mesh(options.mesh, options.up)
    job = job_from(options, subject)
    resumed = None
    if options.resume:
        restored = read_checkpoint(work, job)
        resumed = restored.state
        print(restored.notice or f"resuming at step {resumed.step}", file=sys.stderr)
    production, complete = _refined(options, job, subject, work, resumed, choose_device(options.device))
    _write_mesh(production, options)
    if not complete:
        print(f"stopped at step {production.step}; continue with the same command and --resume", file=sys.stderr)
        return INTERRUPTED
    if not options.keep_work:
        remove_checkpoints(work)
    return 0


def _refined(
    options: argparse.Namespace, job: RefineJob, subject: InputMesh, work: Path, resumed: Any, device: Any
) -> tuple[RefineProduction, bool]:
    """The production at the end of its steps, or where it was stopped, and whether they were all taken."""
    from ..training.refine_pipeline import RefineProduction

    with StopSignal() as stop:
        production = RefineProduction(job, subject, device, resumed, stop)
        return production, watched(production, job, work, options.previews, resumed.step if resumed else 0)


def _write_mesh(production: RefineProduction, options: argparse.Namespace) -> None:
    """Export, tell."""
    from ..io.mesh_export import export_mesh
    from ..mesh_rendering.turntable import turntable_picture

    mesh = production.mesh()
    export_mesh(mesh, options.out, production.provenance())
    if options.previews is not None:
        turntable_picture(mesh).save(options.previews / "turntable.png")
    figures = production.run.scene.figures()
    print(
        f"{options.out}: {len(mesh.faces)} triangles, {len(mesh.vertices)} vertices as before; moved by {100 * figures['moved'] / 0.5:.1f}% "
        f"of the radius on average, {100 * figures['moved_most'] / 0.5:.1f}% at most; {100 * figures['folded']:.1f}% of the faces folded over"
    )
