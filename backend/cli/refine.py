# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright refine`: a mesh is moved and colored towards a prompt; its faces and its vertices' order stay."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .lora_option import add_lora_argument, with_loras
from .run_display import LiveMeshFile, PreviewFolder
from .signals import StopSignal
from .training_run import (
    STOP_MESSAGE,
    add_run_arguments,
    check_folders,
    finish,
    locked_job,
    take_steps,
    work_folder,
)

if TYPE_CHECKING:
    from ..geometry.build import Mesh, MeshReport
    from ..geometry.input_mesh import InputMesh
    from ..training.job import Job

RADIUS = 0.5  # of the sphere around the mesh, in scene units


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser(
        "refine", help="move and color an existing mesh towards a prompt", description=__doc__
    )
    parser.add_argument("mesh", type=Path, help="mesh file: .glb, .gltf, .ply or .obj")
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
    add_lora_argument(parser)
    parser.add_argument("--seed", type=int, help="another number draws other views and noise (default 0)")
    parser.add_argument("--steps", type=int, help="optimization steps, instead of the recipe's")
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
        help="a setting that docs/user/settings.md marks for refine, such as guidance.omega=10; the options above win",
    )
    add_run_arguments(parser)
    return parser


def job_from(options: argparse.Namespace, input_mesh: InputMesh) -> Job:
    """The validated job that the options describe."""
    from ..config.parsing import apply_settings
    from ..config.presets import REFINE_PRESET
    from ..training.job import make_job
    from ..training.recipe_choice import choose_recipe

    named = {"run.seed": options.seed, "run.steps": options.steps, "refine.strength": options.strength}
    named |= {"refine.positions": False} if options.keep_positions else {}
    named |= {"refine.colors": False} if options.keep_colors else {}
    settings = [*options.set, *(f"{name}={value}" for name, value in named.items() if value is not None)]
    recipe = choose_recipe(REFINE_PRESET, options.model, has_mesh=True)
    config = apply_settings(recipe.config, settings)
    config = replace(config, model=with_loras(config.model, options.lora))
    return make_job(options.prompt, options.model, REFINE_PRESET, config, input_mesh.digest(), recipe.family)


def run(options: argparse.Namespace) -> int:
    """Refine. Raises DreamwrightError for what the user can mend."""
    import numpy as np

    from ..io.mesh_export import check_output_path
    from ..io.mesh_reader import read_input_mesh
    from ..training.pipeline import TextTo3DPipeline
    from .sample import choose_device

    check_output_path(options.out)
    check_folders(options)
    input_mesh = read_input_mesh(options.mesh, options.up)
    job, previews = job_from(options, input_mesh), PreviewFolder(options.previews)
    live_mesh = LiveMeshFile(options.live_mesh)
    device = choose_device(options.device)

    def describe(mesh: Mesh, report: MeshReport) -> str:
        moved = 100 * np.linalg.norm(mesh.vertices - input_mesh.vertices.astype(np.float64), axis=1)
        moved *= input_mesh.scale / RADIUS
        return (
            f"{report.triangles} triangles, {report.vertices} vertices as before; moved by {moved.mean():.1f}% of the "
            f"radius on average, {moved.max():.1f}% at most; {100 * (report.folded or 0):.1f}% of the faces folded over"
        )

    with StopSignal(STOP_MESSAGE) as stop, locked_job(options, job) as (job, resumed):
        pipeline = TextTo3DPipeline(
            job, device, resumed, stop, input_mesh=input_mesh, is_watched=lambda: live_mesh.is_wanted
        )
        outcome = take_steps(pipeline, work_folder(options), previews, live_mesh)
        return finish(options, pipeline, outcome, previews, describe)
