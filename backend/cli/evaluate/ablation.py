# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate ablation`: the paper's figure 6, R-Precision of five stages from a base to the whole preset.

Each job is kept in --out: the same command continues where it was stopped or killed, and adds more prompts or seeds.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

from dreamwright.shared.numbers import number_text

SHEET_PROMPTS = 8  # prompts in the contact sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
    from .arguments import add_job_arguments

    parser.add_argument(
        "--prompts",
        default="4",
        metavar="N",
        help="the first N of the starter's test prompts (default 4, at most 24), or a file with one prompt a line",
    )
    add_job_arguments(parser, "ablation")


def run(options: argparse.Namespace) -> int:
    """Run the missing jobs, then write table and contact sheet. Raises DreamwrightError for what the user can mend."""
    from dataclasses import replace

    from ...evaluation.ablation import STAGES, fixed_values, stage_config
    from ...evaluation.baselines import RunResult
    from ...evaluation.captions import STARTER_CAPTIONS, captions_for, slug
    from ...evaluation.classifier_metrics import AZIMUTHS
    from ...evaluation.contact_sheet import contact_sheet, mesh_tile
    from ...evaluation.render_retrieval import RenderRetrieval
    from ...evaluation.results_table import ResultsTable
    from ...evaluation.run_settings import record_run_settings, result_settings, weight_hashes
    from ...evaluation.samples import check_elevation, starter_prop
    from ...geometry.build import Mesh
    from ...training.job import make_job
    from ...training.recipe_choice import choose_recipe
    from ..sample import choose_device
    from ..signals import INTERRUPTED
    from .arguments import MAX_SEEDS, build_config, check_count, load_retrievers, parse_prompts
    from .batch_runs import PlannedRun, run_all
    from .output import weights_line, write_sheet, write_table

    check_count("--seeds", options.seeds, MAX_SEEDS)
    elevation = check_elevation(options.elevation)
    prompts, config = parse_prompts(options.prompts), build_config(options)
    captions, device = captions_for(prompts, "--prompts"), choose_device(options.device)
    configs = {stage.name: stage_config(config, stage.name) for stage in STAGES}
    plan = {
        "suite": "ablation",
        "preset": options.preset,
        "model": options.model,
        "weights": weight_hashes(options.model),
        "settings": result_settings(config),
    }
    retrieval = RenderRetrieval(prompts, captions, load_retrievers(options.models, captions, device), elevation)
    record_run_settings(options.out, plan)
    family = choose_recipe(options.preset, options.model).family

    planned = {}
    for seed in range(options.seeds):
        for prompt in prompts:
            for stage in STAGES:  # prompt by prompt, so that an unfinished evaluation compares the stages as well
                own = replace(configs[stage.name], run=replace(configs[stage.name].run, seed=seed))
                job = make_job(prompt, options.model, options.preset, own, family=family)
                folder = options.out / stage.folder / f"{slug(prompt)}.{seed}"
                planned[PlannedRun(f"{stage.name}: {prompt}", job, folder)] = (stage.name, prompt, seed)
    results, tiles, jobs = ResultsTable(retrieval.columns), {}, []
    names = [stage.name for stage in STAGES]

    def use(done: PlannedRun, result: RunResult, mesh: Mesh | None) -> None:
        stage, prompt, seed = planned[done]
        retrieval.add(results, stage, prompt, seed, mesh)
        jobs.append({"stage": stage, "prompt": prompt, "seed": seed, "seconds": result.seconds, "error": result.error})
        if mesh is not None and seed == 0 and prompt in prompts[:SHEET_PROMPTS]:
            tiles[names.index(stage), prompts.index(prompt)] = mesh_tile(mesh, elevation)

    if captions is STARTER_CAPTIONS:
        for seed in range(options.seeds):
            for prompt in prompts:
                retrieval.add(results, "reference props", prompt, seed, starter_prop(prompt, seed))
    if not run_all(list(planned), device, use):
        return INTERRUPTED
    pairs = [(after, after, before) for before, after in pairwise(names)]
    pairs.append(("all stages", names[-1], names[0]))
    chances = ", ".join(f"{kind} {100 * chance:.1f}" for kind, chance in retrieval.chances().items())
    table = (
        f"R-Precision in per cent, ± standard error over {len(prompts)} prompt(s) of {options.seeds} seed(s), "
        f"{config.run.steps} steps each, {AZIMUTHS} views at {number_text(elevation)} degrees of elevation. "
        f"By chance: {chances}.\n\n"
        f"{results.markdown('stage')}\nChange from the stage before, paired by prompt:\n\n"
        f"{results.changes_markdown('stage', pairs)}\n{weights_line(plan)}\n"
    )
    record = {
        "metric": "R-Precision of renders (figure 6): fraction of hits over views, mean over prompts",
        **plan,
        "prompts": prompts,
        "captions": len(captions),
        "seeds": options.seeds,
        "elevation_deg": elevation,
        "azimuths": AZIMUTHS,
        "resolution": retrieval.resolution,
        "chance": retrieval.chances(),
        "stages": [vars(stage) for stage in STAGES],
        "fixed": fixed_values(config),
        "rows": results.to_json(),
        "jobs": jobs,
    }
    write_table(options.out, "ablation", table, record)
    if tiles:
        write_sheet(options.out, "ablation", contact_sheet(names, prompts[:SHEET_PROMPTS], tiles))
    return 0
