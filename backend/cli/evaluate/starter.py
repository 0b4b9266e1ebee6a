# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate starter`: lift the starter's test prompts and compare each mesh with the prop that it names.

Each job is kept in --out: the same command continues where it was stopped or killed, and adds prompts or seeds. With
--meshes nothing is generated: given files are measured. Silhouettes are compared at 0 to 55 degrees of elevation. The
classifier sees the meshes at 30 degrees.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...evaluation.baselines import RunResult
    from ...evaluation.starter import PromptResult
    from ...geometry.build import Mesh
    from ...starter.classifier import StarterClassifier

    Add = Callable[[PromptResult, Mesh | None], None]

# Previews and checkpoints have no part in the results, and take a tenth of the time.
NOT_NEEDED = ("run.preview_interval=1000000", "run.checkpoint_interval=1000000")
METRICS = "metrics.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
    from .arguments import add_common_arguments

    parser.add_argument("--preset", default="draft", help="the settings to begin from (default draft)")
    parser.add_argument("--prompts", nargs="+", metavar="PROMPT", help="only these prompts (default: all 24)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed of every prompt (default 0)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="props of each prompt (default 1)")
    parser.add_argument(
        "--meshes",
        type=Path,
        metavar="DIR",
        help="measure these files instead: a-red-mushroom.glb, or a-red-mushroom.1.glb of seed 1",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of every job, for example run.threads=1",
    )
    add_common_arguments(parser, "evaluation")


def run(options: argparse.Namespace) -> int:
    """Lift and measure; the tables are written after every prompt. Raises DreamwrightError for what users can mend."""
    from tqdm import tqdm

    from ...evaluation.retrievers import load_starter_classifier
    from ...evaluation.starter import PROMPTS
    from ...evaluation.starter_report import markdown, report
    from ...evaluation.starter_sheet import prompt_sheet
    from ..signals import INTERRUPTED
    from .arguments import MAX_SEEDS, check_count
    from .output import save_table, write_sheet

    check_count("--seeds", options.seeds, MAX_SEEDS)
    _check_settings(options)
    prompts, classifier = _checked_prompts(options.prompts), load_starter_classifier()
    measured: list[tuple[PromptResult, Mesh | None]] = []

    def add(metrics: PromptResult, mesh: Mesh | None) -> None:
        measured.append((metrics, mesh))
        seen = f"{metrics.retrieved} / {metrics.retrieved_geometry}"
        tqdm.write(f"{metrics.prompt}, seed {metrics.seed}: IoU {metrics.silhouette_iou:.2f}, seen as {seen}")
        rows = [row for row, _ in measured]
        save_table(options.out, "evaluation", markdown(rows, options.preset), report(rows, options.preset))

    if options.meshes is not None:
        _measure_files(options.meshes, prompts, classifier, add)
    elif not _lift(options, prompts or PROMPTS, classifier, add):
        return INTERRUPTED
    print(markdown([row for row, _ in measured], options.preset), end="")
    write_sheet(options.out, "evaluation", prompt_sheet(measured))
    return 0


def _check_settings(options: argparse.Namespace) -> None:
    """Raise ConfigError for settings that the suite makes itself, and for any where nothing is generated."""
    from ...errors import ConfigError

    for setting in options.set:
        if setting.partition("=")[0].strip() == "run.seed":
            raise ConfigError(f"--set {setting}: `evaluate starter` sets run.seed itself; give it as --seed")
        if options.meshes is not None:
            raise ConfigError(f"--set {setting} with --meshes, which generates nothing; leave one of them out")


def _checked_prompts(given: Sequence[str] | None) -> tuple[str, ...]:
    """The prompts, each once; none when none were given. Raises PromptError for one of another domain."""
    from ...errors import PromptError
    from ...starter import domain

    prompts = tuple(dict.fromkeys(given or ()))
    for prompt in prompts:
        try:
            domain.parse(prompt)
        except ValueError as error:
            raise PromptError(f"--prompts: {error}; change it") from error
    return prompts


def _measure_files(folder: Path, prompts: Sequence[str], classifier: StarterClassifier, add: Add) -> None:
    """Measure the folder's meshes of the prompts, by default of all captions of the domain; missing ones fail.

    Raises ExportError for a folder that is not there or holds none of them, and for a file that cannot be read.
    """
    from ...errors import ExportError
    from ...evaluation.captions import STARTER_CAPTIONS, slug
    from ...evaluation.samples import MESH_SUFFIXES, files_by_prompt, read_mesh_file
    from ...evaluation.starter import failed_result, measure

    files = files_by_prompt(folder, MESH_SUFFIXES)
    wanted = prompts or [caption for caption in STARTER_CAPTIONS if slug(caption) in files]
    if not any(slug(prompt) in files for prompt in wanted):
        raise ExportError(f"{str(folder)!r} holds no mesh of these prompts; needed are files like a-red-mushroom.glb")
    for prompt in wanted:
        if slug(prompt) not in files:
            add(failed_result(prompt), None)
        for seed, path in sorted(files.get(slug(prompt), {}).items()):
            mesh = read_mesh_file(path)
            add(measure(classifier, mesh, prompt, seed), mesh)


def _lift(options: argparse.Namespace, prompts: Sequence[str], classifier: StarterClassifier, add: Add) -> bool:
    """Run the missing jobs of all prompts and seeds, and measure every mesh; False when a signal stopped it."""
    from ...config.parsing import apply_settings
    from ...config.presets import method_of
    from ...errors import ConfigError
    from ...evaluation.captions import slug
    from ...training.job import make_job
    from ...training.recipe_choice import choose_recipe
    from ..sample import choose_device
    from .batch_runs import PlannedRun, run_all

    if (method := method_of(options.preset)) != "dreamfusion":
        raise ConfigError(
            f"the preset {options.preset!r} is one of {method}; `dreamwright evaluate baselines` runs that; "
            "choose another with --preset"
        )
    recipe = choose_recipe(options.preset, options.model)
    seeds = range(options.seed, options.seed + options.seeds)
    configs = {seed: apply_settings(recipe.config, [*NOT_NEEDED, f"run.seed={seed}", *options.set]) for seed in seeds}
    planned = {}
    for seed, config in configs.items():
        for prompt in prompts:
            job = make_job(prompt, options.model, options.preset, config, family=recipe.family)
            planned[PlannedRun(f"{prompt}, seed {seed}", job, options.out / f"{slug(prompt)}.{seed}")] = (prompt, seed)

    def use(done: PlannedRun, result: RunResult, mesh: Mesh | None) -> None:
        prompt, seed = planned[done]
        add(_metrics(done.folder / METRICS, classifier, prompt, seed, result, mesh), mesh)

    return run_all(list(planned), choose_device(options.device), use)


def _metrics(
    path: Path, classifier: StarterClassifier, prompt: str, seed: int, result: RunResult, mesh: Mesh | None
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
        metrics = failed_result(prompt, seed, result.seconds)
    else:
        metrics = measure(classifier, mesh, prompt, seed, result.seconds)
    write_output(path, (json.dumps({"known_by": known_by, "metrics": vars(metrics)}, indent=2) + "\n").encode())
    return metrics


def _classifier_hash() -> str:
    """SHA-256 of the classifier's weights."""
    from ...evaluation.retrievers import classifier_folder

    digest = hashlib.sha256()
    for path in sorted(classifier_folder().glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
