# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate ablation`: the paper's figure 6, five rungs from a base to the whole preset, by what each retrieves.

Each job is kept in --out: the same command goes on where it was stopped or killed, and adds more prompts or seeds.
"""

from __future__ import annotations

import argparse

PICTURED = 8  # prompts in the picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
    from .evaluate_choices import add_job_arguments

    parser.add_argument(
        "--prompts",
        default="4",
        metavar="N",
        help="N of the starter's test prompts, different props first (default 4, at most 24), or a file with one prompt a line",
    )
    add_job_arguments(parser, "ablation")


def run(options: argparse.Namespace) -> int:
    """Make what is missing, then table and picture. Raises DreamwrightError for everything a person can mend."""
    from dataclasses import replace

    from ..evaluation.ablation import RUNGS, held_values, rung_config
    from ..evaluation.baselines import Outcome
    from ..evaluation.captions import STARTER_CAPTIONS, captions_for, slug
    from ..evaluation.classifier_metrics import AZIMUTHS
    from ..evaluation.contact_sheet import labeled_sheet, mesh_tile
    from ..evaluation.render_retrieval import RenderRetrieval
    from ..evaluation.results_table import Scoreboard
    from ..evaluation.run_settings import settings_of, settle, weights_of
    from ..evaluation.samples import ELEVATION, starter_prop
    from ..geometry.build import Mesh
    from ..training.job import make_job
    from .batch_runs import PlannedCell, make_cells
    from .evaluate_choices import (
        MOST_SEEDS,
        check_count,
        chosen_config,
        chosen_prompts,
        described,
        load_retrievers,
        write_picture,
    )
    from .evaluate_r_precision import write_table
    from .run_loop import INTERRUPTED
    from .sample import choose_device

    check_count("--seeds", options.seeds, MOST_SEEDS)
    prompts, config = chosen_prompts(options.prompts), chosen_config(options)
    captions, device = captions_for(prompts, "--prompts"), choose_device(options.device)
    configs = {rung.name: rung_config(config, rung.name) for rung in RUNGS}
    plan = {
        "suite": "ablation",
        "preset": options.preset,
        "model": options.model,
        "weights": weights_of(options.model),
        "settings": settings_of(config),
    }
    retrieval = RenderRetrieval(prompts, captions, load_retrievers(options.models, captions, device))
    settle(options.out, plan)

    cells = {}
    for seed in range(options.seeds):
        for prompt in prompts:
            for rung in RUNGS:  # side by side, so that a short run can be compared as well
                seeded = replace(configs[rung.name], run=replace(configs[rung.name].run, seed=seed))
                job = make_job(prompt, options.model, options.preset, seeded)
                folder = options.out / rung.folder / f"{slug(prompt)}.{seed}"
                cells[PlannedCell(f"{rung.name}: {prompt}", job, folder)] = (rung.name, prompt, seed)
    board, tiles, jobs = Scoreboard(retrieval.columns), {}, []
    names = [rung.name for rung in RUNGS]

    def use(cell: PlannedCell, outcome: Outcome, mesh: Mesh | None) -> None:
        rung, prompt, seed = cells[cell]
        retrieval.add(board, rung, prompt, seed, mesh)
        jobs.append({"rung": rung, "prompt": prompt, "seed": seed, "seconds": outcome.seconds, "error": outcome.error})
        if mesh is not None and seed == 0 and prompt in prompts[:PICTURED]:
            tiles[names.index(rung), prompts.index(prompt)] = mesh_tile(mesh)

    if captions is STARTER_CAPTIONS:
        for seed in range(options.seeds):
            for prompt in prompts:
                retrieval.add(board, "the true props", prompt, seed, starter_prop(prompt, seed))
    if not make_cells(list(cells), device, use):
        return INTERRUPTED
    pairs = [(above, above, below) for below, above in zip(names, names[1:])] + [
        ("the whole ladder", names[-1], names[0])
    ]
    chances = ", ".join(f"{look} {100 * chance:.1f}" for look, chance in retrieval.chances().items())
    table = (
        f"R-Precision in per cent, ± standard error over {len(prompts)} prompt(s) of {options.seeds} seed(s), {config.run.steps} steps each. By chance: {chances}.\n\n"
        + board.markdown("rung")
        + "\nChange from the rung below, paired by prompt:\n\n"
        + board.changes_markdown("rung", pairs)
        + f"\n{described(plan)}\n"
    )
    record = {
        "metric": "R-Precision of renders (figure 6): share of views whose own caption scores highest, mean over prompts",
        **plan, "prompts": prompts, "captions": len(captions), "seeds": options.seeds, "elevation_deg": ELEVATION, "azimuths": AZIMUTHS,
        "resolution": retrieval.resolution, "chance": retrieval.chances(), "rungs": [vars(rung) for rung in RUNGS], "held": held_values(config), "rows": board.as_json(), "jobs": jobs,
    }  # fmt: skip
    write_table(options.out, "ablation", table, record)
    if tiles:
        write_picture(options.out, "ablation", labeled_sheet(names, prompts[:PICTURED], tiles))
    return 0
