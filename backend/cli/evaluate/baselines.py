# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate baselines`: the starter's prompts by every method, and R-Precision like the paper's table 1.

Each job is kept in --out: the same command continues where it was stopped or killed, and adds prompts, seeds or
methods.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dreamwright.shared.numbers import number_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
    from .arguments import add_retrieval_arguments

    parser.add_argument(
        "--prompts",
        type=int,
        default=4,
        metavar="N",
        help="the first N of the starter's test prompts (default 4, at most 24)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="props of each prompt (default 1; the paper has 2)"
    )
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="default: all")
    add_retrieval_arguments(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of every job whose method reads it, for example run.steps=300",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("baselines"),
        help="folder for the props, baselines.json, baselines.md and baselines.png",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def run(options: argparse.Namespace) -> int:
    """Run the missing jobs, then write table and contact sheet. Raises DreamwrightError for what the user can mend."""
    from ...evaluation import baselines
    from ...evaluation.captions import STARTER_CAPTIONS
    from ...evaluation.classifier_metrics import AZIMUTHS
    from ...evaluation.r_precision import markdown, measure_method, method_sheet, to_json
    from ...evaluation.render_retrieval import MIN_RESOLUTION
    from ...evaluation.samples import RenderedSample, check_elevation, render_sample, starter_prop
    from ...geometry.build import Mesh
    from ...training.methods import METHODS, get_method
    from ..sample import choose_device
    from ..signals import INTERRUPTED
    from .arguments import MAX_SEEDS, check_count, load_retrievers
    from .batch_runs import PlannedRun, run_all
    from .output import write_sheet, write_table

    check_count("--prompts", options.prompts, len(baselines.PROMPT_ORDER))
    check_count("--seeds", options.seeds, MAX_SEEDS)
    elevation = check_elevation(options.elevation)
    methods = [get_method(name) for name in dict.fromkeys(options.methods or METHODS)]
    prompts, device = baselines.PROMPT_ORDER[: options.prompts], choose_device(options.device)
    planned = baselines.experiments([method.name for method in methods], prompts, options.seeds)
    runs = {
        PlannedRun(
            f"{experiment.method}: {experiment.prompt}",
            baselines.experiment_job(experiment, options.set),
            experiment.folder(options.out),
        ): experiment
        for experiment in planned
    }
    models = load_retrievers(options.models, STARTER_CAPTIONS, device)
    resolution = max(MIN_RESOLUTION, *(model.image_size for model in models.values()))
    samples: dict[str, list[RenderedSample]] = {method.name: [] for method in methods}
    jobs: list[dict[str, object]] = []

    def use(done: PlannedRun, result: baselines.RunResult, mesh: Mesh | None) -> None:
        experiment = runs[done]
        number = prompts.index(experiment.prompt)
        if mesh is None:
            sample = RenderedSample(number, experiment.seed, None, None)
        else:
            sample = render_sample(mesh, number, experiment.seed, resolution, elevation)
        samples[experiment.method].append(sample)
        jobs.append({**vars(experiment), "seconds": result.seconds, "error": result.error})

    if not run_all(list(runs), device, use):
        return INTERRUPTED
    oracle = [
        render_sample(starter_prop(prompt, seed), number, seed, resolution, elevation)
        for seed in range(options.seeds)
        for number, prompt in enumerate(prompts)
    ]
    rows = [measure_method("oracle (reference props)", "", oracle, prompts, STARTER_CAPTIONS, models)]
    rows += [measure_method(m.name, m.model, samples[m.name], prompts, STARTER_CAPTIONS, models) for m in methods]
    settings = {
        "elevation_deg": elevation,
        "azimuths": AZIMUTHS,
        "resolution": resolution,
        "seeds": options.seeds,
        "jobs": jobs,
    }
    table = (
        f"R-Precision in per cent, ± standard error over {len(prompts)} prompt(s) of {options.seeds} seed(s), "
        f"{AZIMUTHS} views at {number_text(elevation)} degrees of elevation.\n\n{markdown(rows, list(models))}"
    )
    write_table(options.out, "baselines", table, to_json(rows, prompts, STARTER_CAPTIONS, settings))
    write_sheet(options.out, "baselines", method_sheet({"oracle": oracle, **samples}, prompts))
    return 0
