# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate sweep`: the paper's figure 9, props by guidance weight and seed.

Each job is kept in --out: the same command continues where it was stopped or killed, and adds prompts, weights or
seeds.
"""

from __future__ import annotations

import argparse

from dreamwright.shared.numbers import number_text

WEIGHTS = (1.0, 3.0, 10.0, 30.0, 100.0)
PROMPTS = ("a red mug", "a blue chair")  # a prop with a hole and one with a front, both hard for the starter


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
    """Run the missing jobs, then write table and contact sheet. Raises DreamwrightError for what the user can mend."""
    from dataclasses import replace

    import torch

    from ...config.parsing import GUIDANCE_SCALE, OMEGA
    from ...evaluation.baselines import RunResult
    from ...evaluation.captions import captions_for, slug
    from ...evaluation.classifier_metrics import AZIMUTHS, BACKGROUND
    from ...evaluation.contact_sheet import contact_sheet, mesh_tile
    from ...evaluation.image_metrics import mean_chroma, mean_distance
    from ...evaluation.render_retrieval import RenderRetrieval
    from ...evaluation.results_table import Column, ResultsTable
    from ...evaluation.run_settings import record_run_settings, result_settings, weight_hashes
    from ...evaluation.samples import check_elevation
    from ...geometry.build import Mesh
    from ...text.prompts import clean_prompt
    from ...training.job import make_job
    from ...training.recipe_choice import choose_recipe
    from ..sample import choose_device
    from ..signals import INTERRUPTED
    from .arguments import MAX_SEEDS, build_config, check_count, load_retrievers, parse_weights
    from .batch_runs import PlannedRun, run_all
    from .output import weights_line, write_sheet, write_table

    check_count("--seeds", options.seeds, MAX_SEEDS)
    elevation, weights = check_elevation(options.elevation), parse_weights(options.weights)
    prompts = tuple(clean_prompt(prompt) for prompt in options.prompts)
    captions, config = captions_for(prompts, "--prompts"), build_config(options, (OMEGA, GUIDANCE_SCALE))
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
    retrieval = RenderRetrieval(prompts, captions, load_retrievers(options.models, captions, device), elevation)
    record_run_settings(options.out, plan)
    family = choose_recipe(options.preset, options.model).family

    planned = {}
    for seed in range(options.seeds):
        for prompt in prompts:
            for omega in weights:  # prompt by prompt, so that an unfinished sweep compares the weights as well
                own = replace(
                    config, run=replace(config.run, seed=seed), guidance=replace(config.guidance, omega=omega)
                )
                job = make_job(prompt, options.model, options.preset, own, family=family)
                folder = options.out / f"omega-{number_text(omega)}" / f"{slug(prompt)}.{seed}"
                planned[PlannedRun(f"omega {number_text(omega)}: {prompt}", job, folder)] = (omega, prompt, seed)
    chroma, distance = Column("mean chroma of the albedo", digits=1), Column("distance of seeds", digits=3)
    results, tiles, jobs = ResultsTable([*retrieval.columns, chroma, distance]), {}, []
    renders: dict[tuple[float, str], list[torch.Tensor]] = {}

    def use(done: PlannedRun, result: RunResult, mesh: Mesh | None) -> None:
        omega, prompt, seed = planned[done]
        sample = retrieval.add(results, number_text(omega), prompt, seed, mesh)
        jobs.append({"omega": omega, "prompt": prompt, "seed": seed, "seconds": result.seconds, "error": result.error})
        if mesh is None or sample is None or sample.albedo is None:
            return
        results.add(number_text(omega), chroma.name, prompt, mean_chroma(sample.albedo, BACKGROUND))
        renders.setdefault((omega, prompt), []).append(sample.albedo)
        tiles[weights.index(omega), prompts.index(prompt) * options.seeds + seed] = mesh_tile(mesh, elevation)

    if not run_all(list(planned), device, use):
        return INTERRUPTED
    for (omega, prompt), images in renders.items():
        apart = mean_distance(torch.stack(images))
        if apart is not None:
            results.add(number_text(omega), distance.name, prompt, [apart])
    chances = ", ".join(f"{kind} {100 * chance:.1f}" for kind, chance in retrieval.chances().items())
    table = (
        f"R-Precision in per cent, ± standard error over {len(prompts)} prompt(s) of {options.seeds} seed(s), "
        f"{config.run.steps} steps each, {AZIMUTHS} views at {number_text(elevation)} degrees of elevation. "
        f"By chance: {chances}. Chroma is CIELAB's C* of the prop's unlit pixels. "
        "The distance of seeds is the root mean square difference of "
        f"two seeds' albedo renders, in [0, 1].\n\n{results.markdown('omega')}\n{weights_line(plan)}\n"
    )
    record = {
        "metric": "metrics of renders by guidance weight (figure 9), mean over prompts",
        **plan,
        "prompts": prompts,
        "captions": len(captions),
        "omegas": weights,
        "seeds": options.seeds,
        "elevation_deg": elevation,
        "azimuths": AZIMUTHS,
        "resolution": retrieval.resolution,
        "chance": retrieval.chances(),
        "rows": results.to_json(),
        "jobs": jobs,
    }
    write_table(options.out, "sweep", table, record)
    if tiles:
        columns = [f"{prompt} {seed}" for prompt in prompts for seed in range(options.seeds)]
        rows = [f"omega {number_text(omega)}" for omega in weights]
        write_sheet(options.out, "sweep", contact_sheet(rows, columns, tiles))
    return 0
