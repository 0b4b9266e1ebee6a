# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate guidance-2d`: the paper's figure 2 as a table, ancestral samples beside 2D score distillation by weight.

SDS is that of a plain image and that of the symmetric generator. Each weight and prompt is load_result in --out: the same command
goes on where it was stopped or killed, and adds more prompts or weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ...evaluation.samplers import SampleResult, SamplerSettings, SampleSpec

WEIGHTS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
SHEET_PROMPTS = 4  # prompts in the picture
SHEET_SEEDS = 2
STEPS_SHOWN = 10  # steps between two updates of the bar
MAX_STEPS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
    from ..sample import DEFAULT_STEPS
    from .arguments import add_common_arguments

    parser.add_argument(
        "--weights",
        type=float,
        nargs="+",
        default=list(WEIGHTS),
        metavar="OMEGA",
        help="guidance weights; diffusers' guidance_scale is 1 + omega (default 0 1 3 10 30 100)",
    )
    parser.add_argument(
        "--prompts",
        type=int,
        default=8,
        metavar="N",
        help="N of the starter's test prompts, different props first (default 8, at most 24)",
    )
    parser.add_argument(
        "--seeds", type=int, default=4, metavar="K", help="pictures a prompt, result together (default 4)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=DEFAULT_STEPS["sds"],
        metavar="N",
        help=f"steps of score distillation (default {DEFAULT_STEPS['sds']})",
    )
    parser.add_argument(
        "--ancestral-steps",
        type=int,
        default=DEFAULT_STEPS["ancestral"],
        metavar="N",
        help=f"steps of sampling (default {DEFAULT_STEPS['ancestral']})",
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: torch's own choice)")
    add_common_arguments(parser, "guidance-2d")


def run(options: argparse.Namespace) -> int:
    """Draw what is missing, then table and picture. Raises DreamwrightError for everything a person can mend."""
    from dataclasses import asdict

    import torch

    from ...evaluation.baselines import PROMPT_ORDER
    from ...evaluation.classifier_metrics import AZIMUTHS, render_views
    from ...evaluation.contact_sheet import contact_sheet
    from ...evaluation.results_table import ResultsTable
    from ...evaluation.retrievers import load_starter_judge
    from ...evaluation.run_settings import record_run_settings, weight_hashes
    from ...evaluation.sample_metrics import COLUMNS, add_image_metrics
    from ...evaluation.samplers import SAMPLERS, SamplerSettings, sample_specs
    from ...evaluation.samples import starter_prop
    from ...models.local import resolve_model
    from ...training.methods import check_model
    from ..sample import SDS_LEARNING_RATE, SDS_T_MAX_END, choose_device
    from ..signals import INTERRUPTED
    from .arguments import (
        MAX_SEEDS,
        check_count,
        parse_weights,
        weights_line,
        write_sheet,
    )
    from .r_precision import write_table

    check_count("--prompts", options.prompts, len(PROMPT_ORDER))
    check_count("--seeds", options.seeds, MAX_SEEDS)
    check_count("--steps", options.steps, MAX_STEPS)
    check_count("--ancestral-steps", options.ancestral_steps, MAX_STEPS)
    check_count("--threads", options.threads, 1024, 0)
    weights, prompts, device = parse_weights(options.weights), PROMPT_ORDER[: options.prompts], choose_device(options.device)
    check_model("dreamfusion", options.model, resolve_model(options.model))
    settings = SamplerSettings(options.seeds, options.ancestral_steps, options.steps, SDS_LEARNING_RATE, SDS_T_MAX_END)
    plan = {
        "suite": "guidance-2d",
        "model": options.model,
        "weights": weight_hashes(options.model),
        "settings": asdict(settings),
    }
    record_run_settings(options.out, plan)
    if options.threads:
        torch.set_num_threads(options.threads)

    judge, results, tiles, made = load_starter_judge(), ResultsTable(COLUMNS), {}, []
    for prompt in prompts:  # what saturation and detail the domain itself has
        for seed in range(options.seeds):
            add_image_metrics(
                results,
                "the true props",
                prompt,
                render_views(starter_prop(prompt, seed), 0.0, False),
                AZIMUTHS,
                judge,
                alike=False,
            )
    lines = [f"{omega:g}: {sampler}" for omega in weights for sampler in SAMPLERS]

    def use(spec: SampleSpec, result: SampleResult, pictures: torch.Tensor | None) -> None:
        line = f"{spec.omega:g}: {spec.sampler}"
        add_image_metrics(results, line, spec.prompt, pictures, options.seeds, judge)
        made.append({**asdict(spec), "seconds": result.seconds, "error": result.error})
        if pictures is not None and spec.prompt in prompts[:SHEET_PROMPTS]:
            tiles[lines.index(line), prompts.index(spec.prompt)] = torch.cat(list(pictures[:SHEET_SEEDS]), dim=-1)

    if not _run_all(sample_specs(weights, prompts), settings, plan, options, device, use):
        return INTERRUPTED
    table = (
        f"Per cent of pictures in which the judge sees the prompt's prop and color, ± standard error over {len(prompts)} prompt(s) of {options.seeds} picture(s); "
        f"{options.ancestral_steps} steps of sampling, {options.steps} of distillation. Chroma is CIELAB's C*, detail the mean difference of neighboring pixels; "
        "the distance of two seeds is their root mean square difference, in the judge's features 1 - cosine.\n\n"
        f"{results.markdown('omega')}\n{weights_line(plan)}\n"
    )
    record = {
        "metric": "the judge's agreement, saturation and diversity of 2D samples by guidance weight (figure 2), mean over prompts",
        **plan, "samplers": dict(SAMPLERS), "prompts": prompts, "omegas": weights, "rows": results.as_json(), "experiments": made,
    }  # fmt: skip
    write_table(options.out, "guidance-2d", table, record)
    if tiles:
        write_sheet(options.out, "guidance-2d", contact_sheet(lines, prompts[:SHEET_PROMPTS], tiles))
    return 0


def _run_all(
    planned: Sequence[SampleSpec],
    settings: SamplerSettings,
    plan: Mapping[str, Any],
    options: argparse.Namespace,
    device: torch.device,
    use: Callable[[SampleSpec, SampleResult, torch.Tensor | None], None],
) -> bool:
    """Draw what is missing and hand every cell to `use`, in order; False when Ctrl-C stopped it."""
    import sys

    from tqdm import tqdm

    from ...errors import StoppedError
    from ...evaluation.samplers import load_result, run_sampler, spec_fingerprint
    from ...guidance.denoisers.loading import load_denoiser
    from ...models.local import resolve_model
    from ..signals import StopSignal

    denoiser = None
    there = sum(load_result(spec.folder(options.out), spec_fingerprint(spec, plan)) is not None for spec in planned)
    with (
        StopSignal() as stop,
        tqdm(total=len(planned), initial=there, unit="cell", dynamic_ncols=True) as bar,
    ):
        for spec in planned:
            folder, wanted = spec.folder(options.out), spec_fingerprint(spec, plan)
            known = load_result(folder, wanted)
            if known is None:

                def watch(
                    step: int, steps: int, words: str = f"{spec.sampler}, omega {spec.omega:g}: {spec.prompt}"
                ) -> None:
                    if step % STEPS_SHOWN == 0:
                        bar.set_postfix_str(f"{words}, step {step} of {steps}")

                try:
                    denoiser = denoiser or load_denoiser(resolve_model(options.model), device)
                    known = run_sampler(spec, settings, denoiser, folder, wanted, stop, watch)
                except StoppedError as stopped:
                    tqdm.write(f"{stopped}; {bar.n} of {len(planned)} experiments are load_result", file=sys.stderr)
                    return False
                if known[0].error:
                    tqdm.write(
                        f"{spec.sampler}, omega {spec.omega:g}: {spec.prompt}: failed ({known[0].error}); it counts as wrong",
                        file=sys.stderr,
                    )
                bar.update()
            use(spec, *known)
    return True
