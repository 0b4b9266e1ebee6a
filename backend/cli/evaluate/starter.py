# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate starter`: lift every prompt of the starter's test and measure it against the named prop."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--model", default="starter")
    parser.add_argument(
        "--out", type=Path, default=Path("evaluation"), help="folder for evaluation.json, table.png and the meshes"
    )
    parser.add_argument("--prompts", nargs="*", metavar="PROMPT", help="only these prompts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def _hash(folder: Path) -> str:
    """SHA-256 of the weights in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(options: argparse.Namespace) -> int:
    """Lift, measure, write after every prompt; prompts already measured in --out are not lifted again."""
    from importlib import resources

    import numpy as np
    import torch
    from safetensors.numpy import load_file, save_file
    from tqdm import tqdm

    from ...config.parsing import apply_settings
    from ...config.presets import get_preset
    from ...errors import ConfigError, DreamwrightError, PromptError
    from ...evaluation.starter import PROMPTS, Row, failed_row, measure, prompt_sheet, report
    from ...geometry.build import Mesh, build_mesh
    from ...guidance.denoisers.loading import load_denoiser
    from ...guidance.sds import ScoreDistillation
    from ...models.local import resolve_model
    from ...starter import domain
    from ...starter.classifier import load_classifier
    from ...text.prompts import PromptEmbeddings
    from ...training.events import StepCompleted
    from ...training.job import make_job
    from ...training.methods import check_model
    from ...training.trainer import optimize
    from ..sample import choose_device

    # Nobody sees a preview here or resumes a prompt: neither has a part in the figures, and both take time.
    unseen = ["run.preview_interval=1000000", "run.checkpoint_interval=1000000"]
    config = apply_settings(get_preset(options.preset).config, [*unseen, f"run.seed={options.seed}", *options.set])
    prompts = options.prompts or PROMPTS
    for prompt in prompts:
        try:
            domain.parse(prompt)
        except ValueError as error:
            raise PromptError(str(error)) from error
    judged_by = Path(str(resources.files("dreamwright.backend.starter"))) / "classifier"
    judge = load_classifier(judged_by)
    folder, device = resolve_model(options.model), choose_device(options.device)
    check_model("dreamfusion", options.model, folder)
    if config.run.method != "dreamfusion":
        raise ConfigError(
            f"the preset {options.preset!r} is one of {config.run.method}; `dreamwright evaluate baselines` runs that; choose another with --preset"
        )
    denoiser = load_denoiser(folder, device, config=config.model)
    # Other weights make other meshes, and another judge other verdicts on the same ones.
    model_hash, judge_hash = _hash(folder / "unet"), _hash(judged_by)
    options.out.mkdir(parents=True, exist_ok=True)
    meshes: list[tuple[Row, Mesh | None]] = []
    for prompt in tqdm(prompts, unit="prompt"):
        stem = options.out / prompt.replace(" ", "-")
        fingerprint = make_job(prompt, options.model, options.preset, config).fingerprint() + model_hash
        record = stem.with_suffix(".json")
        known = json.loads(record.read_text()) if record.is_file() else {}
        if known.get("fingerprint") == fingerprint:
            row, mesh = Row(**known["row"]), None
            if known["meshed"]:
                mesh = Mesh(**load_file(stem.with_suffix(".safetensors")))
                if known["judge"] != judge_hash:
                    row = measure(judge, mesh, prompt, row.seconds)
        else:
            begun = time.monotonic()
            guidance = ScoreDistillation(denoiser, config.guidance)
            task = optimize(config, guidance, PromptEmbeddings(denoiser, prompt, config.guidance), device=device)
            try:
                for event in task:
                    if isinstance(event, StepCompleted) and event.step % 100 == 0:
                        tqdm.write(f"{prompt}: step {event.step}, {event.eta_s:.0f} s left")
                with torch.no_grad():
                    task.scene.field.begin_step(1.0)
                    mesh, _ = build_mesh(task.scene.field, config.mesh)
                row = measure(judge, mesh, prompt, time.monotonic() - begun)
                save_file(
                    {k: np.ascontiguousarray(v) for k, v in vars(mesh).items() if v is not None},
                    stem.with_suffix(".safetensors"),
                )
            except DreamwrightError as error:
                # A prompt that gives nothing counts as nothing, or failing would raise the means.
                tqdm.write(f"{prompt}: failed ({error})")
                row, mesh = failed_row(prompt, time.monotonic() - begun), None
        known = {"fingerprint": fingerprint, "judge": judge_hash, "meshed": mesh is not None, "row": vars(row)}
        record.write_text(json.dumps(known, indent=2) + "\n")
        meshes.append((row, mesh))
        tqdm.write(f"{prompt}: IoU {row.silhouette_iou:.2f}, seen as {row.retrieved} / {row.retrieved_geometry}")
        result = report([r for r, _ in meshes], options.preset)
        (options.out / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
        prompt_sheet([(r, m) for r, m in meshes if m is not None]).save(options.out / "table.png")
    if meshes:
        print(json.dumps(report([r for r, _ in meshes], options.preset)["summary"], indent=2))
    return 0
