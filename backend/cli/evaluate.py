# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate starter`: lift every prompt of the starter's test and measure it against the named prop."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser("evaluate", help="measure lifting quality", description=__doc__)
    parser.add_argument("suite", choices=("starter",), help="what to measure")
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder for evaluation.json, table.png and the meshes")
    parser.add_argument("--prompts", nargs="*", metavar="PROMPT", help="only these prompts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def run(options: argparse.Namespace) -> int:
    """Lift, measure, write after every prompt; prompts already measured in --out are not lifted again."""
    from importlib import resources

    import numpy as np
    import torch
    from safetensors.numpy import load_file, save_file
    from tqdm import tqdm

    from dreamwright.backend.cli.sample import choose_device
    from dreamwright.backend.distillation import ScoreDistillation
    from dreamwright.backend.errors import DreamwrightError, PromptError
    from dreamwright.backend.evaluation.starter import PROMPTS, Row, measure, picture_table, report
    from dreamwright.backend.events import Progress
    from dreamwright.backend.guidance.pixel import PixelDiffusion
    from dreamwright.backend.job import make_job
    from dreamwright.backend.meshing.mesh import Mesh, build_mesh
    from dreamwright.backend.models import resolve_model
    from dreamwright.backend.optimization import optimise
    from dreamwright.backend.presets import get_preset
    from dreamwright.backend.prompts import PromptBank
    from dreamwright.backend.settings import apply_settings
    from dreamwright.backend.starter import domain
    from dreamwright.backend.starter.classifier import load_judge

    config = apply_settings(get_preset(options.preset).config, [f"run.seed={options.seed}", *options.set])
    prompts = options.prompts or PROMPTS
    for prompt in prompts:
        try:
            domain.parse(prompt)
        except ValueError as error:
            raise PromptError(str(error)) from error
    judge = load_judge(Path(str(resources.files("dreamwright.backend.starter"))) / "classifier")
    denoiser = PixelDiffusion.load(resolve_model(options.model), device=choose_device(options.device))
    options.out.mkdir(parents=True, exist_ok=True)
    meshes: list[tuple[Row, Mesh]] = []
    for prompt in tqdm(prompts, unit="prompt"):
        stem = options.out / prompt.replace(" ", "-")
        fingerprint = make_job(prompt, options.model, options.preset, config).fingerprint()
        record = stem.with_suffix(".json")
        if record.is_file() and json.loads(record.read_text())["fingerprint"] == fingerprint:
            row = Row(**json.loads(record.read_text())["row"])
            mesh = Mesh(**load_file(stem.with_suffix(".safetensors")))
        else:
            begun = time.monotonic()
            task = optimise(
                config, ScoreDistillation(denoiser, config.guidance), PromptBank(denoiser, prompt, config.guidance)
            )
            try:
                for event in task:
                    if isinstance(event, Progress) and event.step % 100 == 0:
                        tqdm.write(f"{prompt}: step {event.step}, {event.eta_s:.0f} s left")
                with torch.no_grad():
                    task.distiller.field.begin_step(1.0)
                    mesh, _ = build_mesh(task.distiller.field, config.mesh)
            except DreamwrightError as error:
                tqdm.write(f"{prompt}: failed ({error})")
                continue
            row = measure(judge, mesh, prompt, time.monotonic() - begun)
            save_file({k: np.ascontiguousarray(v) for k, v in vars(mesh).items()}, stem.with_suffix(".safetensors"))
            record.write_text(json.dumps({"fingerprint": fingerprint, "row": vars(row)}, indent=2) + "\n")
        meshes.append((row, mesh))
        tqdm.write(f"{prompt}: IoU {row.silhouette_iou:.2f}, seen as {row.retrieved} / {row.retrieved_geometry}")
        result = report([r for r, _ in meshes], options.preset)
        (options.out / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
        picture_table(meshes).save(options.out / "table.png")
    if meshes:
        print(json.dumps(report([r for r, _ in meshes], options.preset)["summary"], indent=2))
    return 0
