# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate sweep`: the paper's figure 9, props by guidance weight and seed.

Each job is load_result in --out: the same command goes on where it was stopped or killed, and adds more prompts, weights or seeds.
"""

from __future__ import annotations

import argparse

WEIGHTS = (1.0, 3.0, 10.0, 30.0, 100.0)
PROMPTS = ("a red mug", "a blue chair")  # a hole and a front: two of the starter's props that are easily got wrong


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
    from .arguments import add_job_arguments

    parser.add_argument(
        "--weights",
        type=float,
        nargs="+",
        default=list(WEIGHTS),
        metavar="OMEGA",
        help="guidance weights; diffusers' guidance_scale is 1 + omega (default 1 3 10 30 100)",
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=list(PROMPTS),
        metavar="PROMPT",
        help=f"default: {', '.join(PROMPTS)} (the paper has two as well)",
    )
    add_job_arguments(parser, "sweep")


def run(options: argparse.Namespace) -> int:
    """Make what is missing, then table and picture. Raises DreamwrightError for everything a person can mend."""
    from dataclasses import replace

    import torch

    from ...config.parsing import OMEGA
    from ...evaluation.baselines import RunResult
    from ...evaluation.captions import captions_for, slug
    from ...evaluation.classifier_metrics import AZIMUTHS, BACKGROUND
    from ...evaluation.contact_sheet import contact_sheet, mesh_tile
    from ...evaluation.image_metrics import mean_chroma, mean_distance
    from ...evaluation.render_retrieval import RenderRetrieval
    from ...evaluation.results_table import Column, ResultsTable
    from ...evaluation.run_settings import record_run_settings, result_settings, weight_hashes
    from ...evaluation.samples import ELEVATION
    from ...geometry.build import Mesh
    from ...text.prompts import clean_prompt
    from ...training.job import make_job
    from ..sample import choose_device
    from ..signals import INTERRUPTED
    from .arguments import (
        MAX_SEEDS,
        build_config,
        check_count,
        load_retrievers,
        parse_weights,
        weights_line,
        write_sheet,
    )
    from .batch_runs import PlannedRun, run_all
    from .r_precision import write_table

    check_count("--seeds", options.seeds, MAX_SEEDS)
    weights = parse_weights(options.weights)
    prompts = tuple(clean_prompt(prompt) for prompt in options.prompts)
    captions, config = captions_for(prompts, "--prompts"), build_config(options, (OMEGA, "guidance.guidance_scale"))
    device = choose_device(options.device)
    settings = result_settings(config)
    settings["guidance"].pop("omega")
    plan = {
        "suite": "sweep",
        "preset": options.preset,
        "model": options.model,
        "weights": weight_hashes(options.model),
        "settings": settings,
    }
    retrieval = RenderRetrieval(prompts, captions, load_retrievers(options.models, captions, device))
    record_run_settings(options.out, plan)

    experiments = {}
    for seed in range(options.seeds):
        for prompt in prompts:
            for omega in weights:  # side by side, so that a short run can be compared as well
                own = replace(
                    config, run=replace(config.run, seed=seed), guidance=replace(config.guidance, omega=omega)
                )
                folder = options.out / f"omega-{omega:g}" / f"{slug(prompt)}.{seed}"
                experiments[
                    PlannedRun(
                        f"omega {omega:g}: {prompt}", make_job(prompt, options.model, options.preset, own), folder
                    )
                ] = (omega, prompt, seed)
    chroma, apart = Column("mean chroma of the albedo", digits=1), Column("distance of seeds", digits=3)
    results, tiles, jobs = ResultsTable([*retrieval.columns, chroma, apart]), {}, []
    renders: dict[tuple[float, str], list[torch.Tensor]] = {}

    def use(cell: PlannedRun, result: RunResult, mesh: Mesh | None) -> None:
        omega, prompt, seed = experiments[cell]
        sample = retrieval.add(results, f"{omega:g}", prompt, seed, mesh)
        jobs.append(
            {"omega": omega, "prompt": prompt, "seed": seed, "seconds": result.seconds, "error": result.error}
        )
        if mesh is None or sample is None:
            return
        results.add(f"{omega:g}", chroma.name, prompt, mean_chroma(sample.albedo, BACKGROUND))
        renders.setdefault((omega, prompt), []).append(sample.albedo)
        tiles[weights.index(omega), prompts.index(prompt) * options.seeds + seed] = mesh_tile(mesh)

    if not run_all(list(experiments), device, use):
        return INTERRUPTED
    for (omega, prompt), seen in renders.items():
        distance = mean_distance(torch.stack(seen))
        if distance is not None:
            results.add(f"{omega:g}", apart.name, prompt, [distance])
    chances = ", ".join(f"{look} {100 * chance:.1f}" for look, chance in retrieval.chances().items())
    table = (
        f"R-Precision in per cent, ± standard error over {len(prompts)} prompt(s) of {options.seeds} seed(s), {config.run.steps} steps each. By chance: {chances}. "
        "Chroma is CIELAB's C* of the prop's pixels without light; the distance is the root mean square difference of two seeds' albedo "
        f"pictures, in [0, 1].\n\n{results.markdown('omega')}\n{weights_line(plan)}\n"
    )
    record = {
        "metric": "figures of renders by guidance weight (figure 9), mean over prompts",
        **plan, "prompts": prompts, "captions": len(captions), "omegas": weights, "seeds": options.seeds, "elevation_deg": ELEVATION, "azimuths": AZIMUTHS,
        "resolution": retrieval.resolution, "chance": retrieval.chances(), "rows": results.as_json(), "jobs": jobs,
    }  # fmt: skip
    write_table(options.out, "sweep", table, record)
    if tiles:
        columns = [f"{prompt} {seed}" for prompt in prompts for seed in range(options.seeds)]
        write_sheet(options.out, "sweep", contact_sheet([f"omega {omega:g}" for omega in weights], columns, tiles))
    return 0
