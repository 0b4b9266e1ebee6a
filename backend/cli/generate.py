# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright generate`: a prompt becomes a mesh file, or several variations of it; it can be stopped and resumed."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamwright.shared.limits import VARIATIONS_LARGEST

from ..config.presets import PRESETS, method_of
from ..errors import CheckpointError, ConfigError, PromptError, one_line
from ..training.methods import METHODS, get_method, preset_of
from .lora_option import add_lora_argument, with_loras
from .run_display import LiveMeshFile, PreviewFolder
from .signals import INTERRUPTED, StopSignal
from .training_run import (
    STOP_MESSAGE,
    add_run_arguments,
    check_folders,
    finish,
    locked_job,
    take_steps,
    work_folder,
)
from .variations import run_variations

if TYPE_CHECKING:
    from ..geometry.build import Mesh, MeshReport
    from ..training.job import Job

PROP, VARIATIONS = Path("prop.glb"), Path("variations")  # default outputs of one prop, and of several


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser("generate", help="make a 3D prop from a prompt", description=__doc__)
    parser.add_argument(
        "prompt", nargs="?", help='what to make, for example "a red mushroom"; with --like its prompt by default'
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=f"mesh file: .glb, .ply or .obj (default {PROP}); replaced only once a mesh is made, never by a failed "
        f"run; with --variations a folder (default {VARIATIONS})",
    )
    parser.add_argument(
        "--method",
        help=f"one of: {', '.join(f'{m.name} ({m.summary})' for m in METHODS.values())}; default: the preset's, "
        "dreamfusion without one",
    )
    parser.add_argument(
        "--model",
        help="a name from `dreamwright models`, or a folder (diffusers for dreamfusion, CLIP for dream-fields and "
        "clip-mesh); default: the method's built-in one",
    )
    parser.add_argument(
        "--preset",
        help=f"default: the method's first; what each means depends on the model's family; with the starter: "
        f"{', '.join(f'{p.name} ({p.summary})' for p in PRESETS.values())}",
    )
    parser.add_argument(
        "--surface-model",
        metavar="MODEL",
        help="another model for the stage after the field, a name or a folder, as Magic3D has Stable Diffusion after "
        "an image model of 64 pixels; it brings the numbers of its family's fine; one model is in memory at a time",
    )
    add_lora_argument(parser)
    parser.add_argument("--seed", type=int, help="another number makes another prop (default 0)")
    parser.add_argument("--steps", type=int, help="optimization steps, instead of the preset's")
    parser.add_argument(
        "--texture",
        type=int,
        metavar="SIZE",
        help="colors as an image of SIZE texels a side (64 to 4096, for example 1024) instead of vertex colors; in the "
        ".glb, or beside the .obj",
    )
    parser.add_argument("--negative", default=None, help="what to avoid (the unconditional prompt)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting, for example guidance.omega=30, or guidance.guidance_scale=31 (diffusers' 1 + omega); "
        "--seed, --steps and --texture override it",
    )
    parser.add_argument(
        "--from",
        dest="initial_field",
        type=Path,
        metavar="DIR",
        help="start from the field of another run (its work folder, kept with --keep-work) to fine-tune it to this "
        "prompt; run.finetune_share says how much of it to keep",
    )
    parser.add_argument(
        "--variations",
        type=int,
        metavar="N",
        help=f"make N props (1 to {VARIATIONS_LARGEST}) that differ in their seed, --seed and those after it, with a "
        "contact sheet; the same command continues where it was stopped",
    )
    parser.add_argument(
        "--like",
        type=Path,
        metavar="PATH",
        help="make variations of a finished one, given as its mesh file or its folder: start from its field with the "
        "seeds after its own; run.finetune_share says how much of it to keep",
    )
    add_run_arguments(parser)
    return parser


def job_from(options: argparse.Namespace) -> Job:
    """The validated job that the options describe."""
    from ..training.job import make_job
    from ..training.recipe_choice import SURFACE_MODEL, choose_recipe, recipe_config

    preset = preset_of(options.method, options.preset)
    model = options.model or get_method(method_of(preset)).model
    recipe = choose_recipe(preset, model)
    named = {
        "run.seed": options.seed,
        "run.steps": options.steps,
        "mesh.texture": options.texture,
        SURFACE_MODEL: options.surface_model,
    }
    settings = [*options.set, *(f"{name}={value}" for name, value in named.items() if value is not None)]
    config = recipe_config(recipe, settings)
    config = replace(config, model=with_loras(config.model, options.lora))
    if options.negative is not None:
        config = replace(config, guidance=replace(config.guidance, negative_prompt=options.negative))
    return make_job(options.prompt, model, preset, config, family=recipe.family)


def run(options: argparse.Namespace) -> int:
    """Generate, in one process or as one process of torchrun. Raises DreamwrightError for what the user can mend."""
    from ..io.mesh_export import check_output_path
    from ..runtime.distributed import is_main_process, process_group, rank_device
    from ..scenes.initial_field import read_initial_field
    from ..training.events import Finished
    from ..training.pipeline import TextTo3DPipeline
    from .sample import choose_device

    if options.variations is not None or options.like is not None:
        if options.live_mesh is not None:
            raise ConfigError("--live-mesh shows one prop; leave it out, or leave out --variations and --like")
        return run_variations(options, job_from, describe)
    if options.prompt is None:
        raise PromptError('there is no prompt; give one, for example "a red mushroom", or --like')
    options.out = options.out or PROP
    job, is_main = job_from(options), is_main_process()
    if is_main:
        check_output_path(options.out, job.config.mesh.texture > 0)
        check_folders(options)
    initial_field = None
    if options.initial_field is not None:
        _check_not_own(options)
        initial_field = read_initial_field(options.initial_field)
        job = replace(job, initial_field=initial_field.digest)
    device, previews = rank_device(choose_device(options.device)), PreviewFolder(options.previews)
    live_mesh = LiveMeshFile(options.live_mesh)
    with StopSignal(STOP_MESSAGE if is_main else "") as stop, locked_job(options, job, is_main) as (job, resumed):
        with process_group(device) as group:
            group.local_views(job.config.run.views_per_step)  # refused before a model is loaded
            group.local_views(job.config.render.coarse_views, "render.coarse_views")
            pipeline = TextTo3DPipeline(
                job, device, resumed, stop, group, initial_field, is_watched=lambda: live_mesh.is_wanted
            )
            if not is_main:
                endings = [event.complete for event in pipeline.events() if isinstance(event, Finished)]
                return 0 if all(endings) else INTERRUPTED
            outcome = take_steps(pipeline, work_folder(options), previews, live_mesh)
        return finish(options, pipeline, outcome, previews, describe)


def _check_not_own(options: argparse.Namespace) -> None:
    """Raise CheckpointError for --from a folder that the run's own checkpoints would go to."""
    work = work_folder(options).resolve()
    try:
        is_own = options.initial_field.resolve() in (work, *work.parents)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise CheckpointError(f"--from {options.initial_field} cannot be read: {one_line(error)}") from error
    if is_own:
        raise CheckpointError(
            f"--from {options.initial_field} is where this run would write its own checkpoints; "
            "choose another --work or --out"
        )


def describe(mesh: Mesh, report: MeshReport) -> str:
    """The figures of a mesh in one line."""
    error = report.error
    return (
        f"{report.triangles} triangles, {report.vertices} vertices, "
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
