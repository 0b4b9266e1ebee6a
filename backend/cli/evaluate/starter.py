# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate starter`: lift the starter's test prompts and compare each mesh with the prop that it names.

Each job is kept in --out: the same command continues where it was stopped or killed. Silhouettes are compared at 0 to
55 degrees of elevation. The classifier sees the meshes at 30 degrees: the targets of this suite were set at that
elevation.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...evaluation.baselines import RunResult
    from ...evaluation.starter import PromptResult
    from ...geometry.build import Mesh
    from ...starter.classifier import StarterClassifier

# Previews and checkpoints have no part in the results, and take a tenth of the time.
NOT_NEEDED = ("run.preview_interval=1000000", "run.checkpoint_interval=1000000")
METRICS = "metrics.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
    from .arguments import add_common_arguments

    parser.add_argument("--preset", default="draft", help="the settings to begin from (default draft)")
    parser.add_argument("--prompts", nargs="+", metavar="PROMPT", help="only these prompts (default: all 24)")
    parser.add_argument("--seed", type=int, default=0, help="of every job (default 0)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of every job, for example run.threads=1",
    )
    add_common_arguments(parser, "evaluation")


def run(options: argparse.Namespace) -> int:
    """Lift and measure; the table is written after every prompt. Raises DreamwrightError for what the user can mend."""
    from tqdm import tqdm

    from ...config.parsing import apply_settings
    from ...config.presets import get_preset
    from ...errors import ConfigError, PromptError
    from ...evaluation.captions import slug
    from ...evaluation.retrievers import load_starter_classifier
    from ...evaluation.starter import PROMPTS, prompt_sheet, report
    from ...io.output_files import write_output
    from ...starter import domain
    from ...training.job import make_job
    from ..sample import choose_device
    from ..signals import INTERRUPTED
    from .batch_runs import PlannedRun, run_all
    from .output import write_sheet

    settings = [*NOT_NEEDED, f"run.seed={options.seed}", *options.set]
    config = apply_settings(get_preset(options.preset).config, settings)
    prompts = tuple(dict.fromkeys(options.prompts or PROMPTS))
    for prompt in prompts:
        try:
            domain.parse(prompt)
        except ValueError as error:
            raise PromptError(f"--prompts: {error}; change it") from error
    if config.run.method != "dreamfusion":
        raise ConfigError(
            f"the preset {options.preset!r} is one of {config.run.method}; `dreamwright evaluate baselines` runs that; "
            "choose another with --preset"
        )
    device, classifier = choose_device(options.device), load_starter_classifier()
    planned = [
        PlannedRun(
            prompt,
            make_job(prompt, options.model, options.preset, config),
            options.out / f"{slug(prompt)}.{config.run.seed}",
        )
        for prompt in prompts
    ]
    meshes: list[tuple[PromptResult, Mesh | None]] = []

    def use(done: PlannedRun, result: RunResult, mesh: Mesh | None) -> None:
        metrics = _metrics(done.folder / METRICS, classifier, done.label, result, mesh)
        meshes.append((metrics, mesh))
        seen = f"{metrics.retrieved} / {metrics.retrieved_geometry}"
        tqdm.write(f"{done.label}: IoU {metrics.silhouette_iou:.2f}, seen as {seen}")
        record = report([found for found, _ in meshes], options.preset)
        write_output(options.out / "evaluation.json", (json.dumps(record, indent=2) + "\n").encode())

    if not run_all(planned, device, use):
        return INTERRUPTED
    write_sheet(options.out, "evaluation", prompt_sheet([(found, mesh) for found, mesh in meshes if mesh is not None]))
    print(json.dumps(report([found for found, _ in meshes], options.preset)["summary"], indent=2))
    return 0


def _metrics(
    path: Path, classifier: StarterClassifier, prompt: str, result: RunResult, mesh: Mesh | None
) -> PromptResult:
    """Metrics of a mesh, from the file if they were measured before by the same classifier."""
    from ...evaluation.starter import PromptResult, failed_result, measure
    from ...io.output_files import write_output

    known_by = {"fingerprint": result.fingerprint, "classifier": _classifier_hash()}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # no file, or a damaged one: measure again
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["known_by"] == known_by:
            return PromptResult(**kept["metrics"])
    if mesh is None:
        metrics = failed_result(prompt, result.seconds)
    else:
        metrics = measure(classifier, mesh, prompt, result.seconds)
    write_output(path, (json.dumps({"known_by": known_by, "metrics": vars(metrics)}, indent=2) + "\n").encode())
    return metrics


def _classifier_hash() -> str:
    """SHA-256 of the classifier's weights."""
    from ...evaluation.retrievers import classifier_folder

    digest = hashlib.sha256()
    for path in sorted(classifier_folder().glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
