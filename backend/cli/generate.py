# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright generate`: a prompt becomes a mesh file; checkpoints, previews, Ctrl-C and resume on the way."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from dreamwright.backend.cli.progress import RunDisplay, check_preview_folder
from dreamwright.backend.errors import CheckpointError, DreamwrightError
from dreamwright.backend.presets import PRESETS, get_preset
from dreamwright.shared import __version__

if TYPE_CHECKING:
    from dreamwright.backend.production import Production

INTERRUPTED = 130


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser("generate", help="make a 3D prop from a prompt", description=__doc__)
    parser.add_argument("prompt", help='what to make, for example "a red mushroom"')
    parser.add_argument("--out", type=Path, default=Path("prop.glb"), help="mesh file: .glb, .ply or .obj; replaced only once a mesh is made, never by a failed run")
    parser.add_argument("--model", default="starter", help="a name from `dreamwright models`, or a diffusers folder")
    parser.add_argument("--preset", default="draft", help=f"one of: {', '.join(f'{p.name} ({p.summary})' for p in PRESETS.values())}")
    parser.add_argument("--seed", type=int, help="another number makes another prop (default 0)")
    parser.add_argument("--steps", type=int, help="optimisation steps, instead of the preset's")
    parser.add_argument("--negative", default=None, help="what to avoid (the unconditional prompt)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, for example guidance.omega=30; --seed and --steps win over it")
    parser.add_argument("--previews", type=Path, metavar="DIR", help="folder for preview pictures and a turntable")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for checkpoints (default: OUT.work beside the output)")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in the work folder")
    parser.add_argument("--keep-work", action="store_true", help="keep the checkpoints after success")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def job_from(options: argparse.Namespace) -> Any:
    """The validated job that the options describe."""
    from dreamwright.backend.job import make_job
    from dreamwright.backend.settings import apply_settings

    config = get_preset(options.preset).config
    named = {"run.seed": options.seed, "run.steps": options.steps}
    settings = [*options.set, *(f"{name}={value}" for name, value in named.items() if value is not None)]
    config = apply_settings(config, settings)
    if options.negative is not None:
        config = replace(config, guidance=replace(config.guidance, negative_prompt=options.negative))
    return make_job(options.prompt, options.model, options.preset, config)


class StopSignal:
    """First Ctrl-C: finish the step, keep what there is. Second: leave at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopSignal":
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
        print("\nstopping after this step; the mesh so far will be written (Ctrl-C again leaves at once)", file=sys.stderr)


def run(options: argparse.Namespace) -> int:
    """Generate; raises DreamwrightError for everything a person can mend."""
    from dreamwright.backend.meshing.export import check_output_path

    job = job_from(options)
    check_output_path(options.out)
    work = options.work or options.out.with_name(options.out.name + ".work")
    if work.exists() and not work.is_dir():
        raise CheckpointError(f"{work} is a file, so no checkpoint can go there; choose a folder with --work")
    if options.previews is not None:
        check_preview_folder(options.previews)

    from dreamwright.backend.checkpoints import has_checkpoint, read_checkpoint, remove_checkpoints, write_checkpoint
    from dreamwright.backend.cli.sample import choose_device
    from dreamwright.backend.events import Checkpoint, Finished
    from dreamwright.backend.production import Production

    resumed = None
    if options.resume:
        restored = read_checkpoint(work, job)
        resumed = restored.state
        print(restored.notice or f"resuming at step {resumed.step}", file=sys.stderr)
    elif has_checkpoint(work):
        raise CheckpointError(
            f"{work} holds the checkpoint of an unfinished run; add --resume to continue it, or delete the folder to start afresh"
        )
    complete = True
    with StopSignal() as stop:
        production = Production(job, choose_device(options.device), resumed, stop)
        for warning in production.warnings:
            print(f"dreamwright: warning: {warning}", file=sys.stderr)
        with RunDisplay(job, options.previews, resumed.step if resumed else 0) as display:
            for event in production.events():
                display.show(event)
                if isinstance(event, Checkpoint):
                    write_checkpoint(work, job, event.state)
                elif isinstance(event, Finished):
                    complete = event.complete
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


def _write_mesh(production: "Production", options: argparse.Namespace) -> None:
    """Extract, export, tell."""
    from dreamwright.backend.meshing.export import export_mesh
    from dreamwright.backend.meshing.turntable import turntable_picture

    mesh, report = production.mesh()
    export_mesh(mesh, options.out, production.provenance())
    if options.previews is not None:
        turntable_picture(mesh).save(options.previews / "turntable.png")
    error = report.error
    print(
        f"{options.out}: {report.triangles} triangles, {report.vertices} vertices, "
        f"{'watertight' if report.watertight else 'open'}, {report.components} part(s)"
        + (f"; mesh against field: {error.psnr_object:.1f} dB, silhouette IoU {error.silhouette_iou:.3f}" if error else "")
    )
