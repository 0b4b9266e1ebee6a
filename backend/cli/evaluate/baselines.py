# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate baselines`: the starter's prompts by every method, and their R-Precision like the paper's table 1.

Each job is load_result in --out: the same command goes on where it was stopped or killed, and adds what more it is asked for.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
    parser.add_argument(
        "--prompts",
        type=int,
        default=4,
        metavar="N",
        help="N of the starter's test prompts, different props first (default 4, at most 24)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="props a prompt (default 1; the paper's is 2)"
    )
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="default: all")
    parser.add_argument(
        "--models", nargs="+", metavar="MODEL", help="retrieval models (default: the starter's two and its judge)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of every job whose method knows it, for example run.steps=300",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("baselines"),
        help="folder for the props, baselines.json, baselines.md and baselines.png",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def run(options: argparse.Namespace) -> int:
    """Make what is missing, measure what there is. Raises DreamwrightError for everything a person can mend."""
    from ...errors import ConfigError
    from ...evaluation.baselines import PROMPT_ORDER, RunResult, experiment_job, experiments
    from ...evaluation.captions import STARTER_CAPTIONS
    from ...evaluation.classifier_metrics import AZIMUTHS
    from ...evaluation.r_precision import as_json, markdown, measure_row, picture
    from ...evaluation.retrievers import DEFAULT_RETRIEVERS, load_retriever
    from ...evaluation.samples import ELEVATION, RenderedSample, render_sample, starter_prop
    from ...geometry.build import Mesh
    from ...training.methods import METHODS, get_method
    from ..sample import choose_device
    from ..signals import INTERRUPTED
    from .batch_runs import PlannedRun, run_all
    from .r_precision import write_table

    for name, value, most in (("--prompts", options.prompts, len(PROMPT_ORDER)), ("--seeds", options.seeds, 100)):
        if not 1 <= value <= most:
            raise ConfigError(f"{name} is {value}; allowed is 1 to {most}; change it")
    methods = [get_method(name) for name in options.methods or METHODS]
    prompts, device = PROMPT_ORDER[: options.prompts], choose_device(options.device)
    models = {name: load_retriever(name, device) for name in options.models or DEFAULT_RETRIEVERS}
    resolution = max(64, *(model.image_size for model in models.values()))
    samples: dict[str, list[RenderedSample]] = {method.name: [] for method in methods}
    jobs: list[dict[str, object]] = []
    planned = {
        cell.folder(options.out): cell for cell in experiments([method.name for method in methods], prompts, options.seeds)
    }

    def use(done: PlannedRun, result: RunResult, mesh: Mesh | None) -> None:
        cell = planned[done.folder]
        number = prompts.index(cell.prompt)
        made = RenderedSample(number, cell.seed, None, None) if mesh is None else render_sample(mesh, number, cell.seed, resolution)
        samples[cell.method].append(made)
        jobs.append(
            {
                "method": cell.method,
                "prompt": cell.prompt,
                "seed": cell.seed,
                "seconds": result.seconds,
                "error": result.error,
            }
        )

    if not run_all(
        [PlannedRun(f"{c.method}: {c.prompt}", experiment_job(c, options.set), folder) for folder, c in planned.items()],
        device,
        use,
    ):
        return INTERRUPTED
    oracle = [
        render_sample(starter_prop(prompt, seed), n, seed, resolution)
        for seed in range(options.seeds)
        for n, prompt in enumerate(prompts)
    ]
    rows = [measure_row("oracle (the true props)", "", oracle, prompts, STARTER_CAPTIONS, models)]
    rows += [measure_row(m.name, m.model, samples[m.name], prompts, STARTER_CAPTIONS, models) for m in methods]
    settings = {
        "elevation_deg": ELEVATION,
        "azimuths": AZIMUTHS,
        "resolution": resolution,
        "seeds": options.seeds,
        "jobs": jobs,
    }
    try:
        picture({"oracle": oracle, **samples}, prompts).save(options.out / "baselines.png")
    except OSError as error:
        raise ConfigError(
            f"cannot write to {options.out} ({error.strerror}); give another folder with --out"
        ) from error
    write_table(
        options.out, "baselines", markdown(rows, list(models)), as_json(rows, prompts, STARTER_CAPTIONS, settings)
    )
    return 0
