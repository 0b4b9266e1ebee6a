# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate guidance-2d`: the paper's figure 2, ancestral samples beside 2D score distillation by weight.

SDS is that of a plain image and that of the symmetric generator. Each sampler, weight and prompt is kept in --out: the
same command continues where it was stopped or killed, and adds prompts or weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dreamwright.shared.numbers import number_text

if TYPE_CHECKING:
    import torch

    from ...evaluation.samplers import SampleResult, SamplerSettings, SampleSpec

WEIGHTS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
SHEET_PROMPTS, SHEET_SEEDS = 4, 2  # in the contact sheet
BAR_STEPS = 10  # steps between two updates of the progress bar
MAX_STEPS = 100_000
MAX_THREADS = 1024


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
        help="the first N of the starter's test prompts (default 8, at most 24)",
    )
    parser.add_argument(
        "--seeds", type=int, default=4, metavar="K", help="images of each prompt, drawn together (default 4)"
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
    """Draw what is missing, then write table and contact sheet. Raises DreamwrightError for what the user can mend."""
    from dataclasses import asdict

    import torch

    from ...evaluation.baselines import PROMPT_ORDER
    from ...evaluation.classifier_metrics import AZIMUTHS, render_views
    from ...evaluation.contact_sheet import contact_sheet
    from ...evaluation.results_table import ResultsTable
    from ...evaluation.retrievers import load_starter_classifier
    from ...evaluation.run_settings import record_run_settings, weight_hashes
    from ...evaluation.sample_metrics import COLUMNS, add_image_metrics
    from ...evaluation.samplers import SAMPLERS, SamplerSettings, sample_specs
    from ...evaluation.samples import starter_prop
    from ...models.local import resolve_model
    from ...training.methods import check_model
    from ..sample import SDS_LEARNING_RATE, SDS_T_MAX_END, choose_device
    from ..signals import INTERRUPTED
    from .arguments import MAX_SEEDS, check_count, parse_weights
    from .output import weights_line, write_sheet, write_table

    check_count("--prompts", options.prompts, len(PROMPT_ORDER))
    check_count("--seeds", options.seeds, MAX_SEEDS)
    check_count("--steps", options.steps, MAX_STEPS)
    check_count("--ancestral-steps", options.ancestral_steps, MAX_STEPS)
    check_count("--threads", options.threads, MAX_THREADS, 0)
    weights, device = parse_weights(options.weights), choose_device(options.device)
    prompts = PROMPT_ORDER[: options.prompts]
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

    classifier, results, tiles, specs = load_starter_classifier(), ResultsTable(COLUMNS), {}, []
    for prompt in prompts:  # saturation and detail of the domain itself
        for seed in range(options.seeds):
            images = render_views(starter_prop(prompt, seed), 0.0, False)
            add_image_metrics(results, "reference props", prompt, images, AZIMUTHS, classifier, are_repetitions=False)
    rows = [f"{number_text(omega)}: {sampler}" for omega in weights for sampler in SAMPLERS]

    def use(spec: SampleSpec, result: SampleResult, images: torch.Tensor | None) -> None:
        row = f"{number_text(spec.omega)}: {spec.sampler}"
        add_image_metrics(results, row, spec.prompt, images, options.seeds, classifier)
        specs.append({**asdict(spec), "seconds": result.seconds, "error": result.error})
        if images is not None and spec.prompt in prompts[:SHEET_PROMPTS]:
            tiles[rows.index(row), prompts.index(spec.prompt)] = torch.cat(list(images[:SHEET_SEEDS]), dim=-1)

    if not _run_all(sample_specs(weights, prompts), settings, plan, options, device, use):
        return INTERRUPTED
    table = (
        "Per cent of images in which the classifier sees the prompt's prop and color, ± standard error over "
        f"{len(prompts)} prompt(s) of {options.seeds} image(s); {options.ancestral_steps} steps of sampling, "
        f"{options.steps} of distillation. Chroma is CIELAB's C*, detail the mean difference of neighboring pixels. "
        "The distance of two seeds is their root mean square difference, and 1 - cosine in the classifier's features."
        f"\n\n{results.markdown('omega')}\n{weights_line(plan)}\n"
    )
    record = {
        "metric": "classifier agreement, saturation and diversity of 2D samples (figure 2), mean over prompts",
        **plan,
        "samplers": dict(SAMPLERS),
        "prompts": prompts,
        "omegas": weights,
        "rows": results.to_json(),
        "specs": specs,
    }
    write_table(options.out, "guidance-2d", table, record)
    if tiles:
        write_sheet(options.out, "guidance-2d", contact_sheet(rows, prompts[:SHEET_PROMPTS], tiles))
    return 0


def _run_all(
    specs: Sequence[SampleSpec],
    settings: SamplerSettings,
    plan: Mapping[str, Any],
    options: argparse.Namespace,
    device: torch.device,
    use: Callable[[SampleSpec, SampleResult, torch.Tensor | None], None],
) -> bool:
    """Draw the specs without a result and pass every result to `use`, in order; False when a signal stopped it."""
    from tqdm import tqdm

    from ...errors import StoppedError
    from ...evaluation import samplers
    from ...guidance.denoisers.loading import load_denoiser
    from ...models.local import resolve_model
    from ..signals import StopSignal

    denoiser = None
    pairs = [(spec, samplers.spec_fingerprint(spec, plan)) for spec in specs]
    done = sum(samplers.load_result(spec.folder(options.out), fingerprint) is not None for spec, fingerprint in pairs)
    with StopSignal() as stop, tqdm(total=len(specs), initial=done, unit="spec", dynamic_ncols=True) as bar:
        for spec, fingerprint in pairs:
            folder, label = spec.folder(options.out), f"{spec.sampler}, omega {number_text(spec.omega)}: {spec.prompt}"
            found = samplers.load_result(folder, fingerprint)
            if found is None:

                def watch(step: int, steps: int, label: str = label) -> None:
                    if step % BAR_STEPS == 0:
                        bar.set_postfix_str(f"{label}, step {step} of {steps}")

                try:
                    denoiser = denoiser or load_denoiser(resolve_model(options.model), device)
                    found = samplers.run_sampler(spec, settings, denoiser, folder, fingerprint, stop, watch)
                except StoppedError as stopped:
                    tqdm.write(f"{stopped}; {bar.n} of {len(specs)} results are kept", file=sys.stderr)
                    return False
                if found[0].error:
                    tqdm.write(f"{label}: failed ({found[0].error}); it counts as wrong", file=sys.stderr)
                bar.update()
            use(spec, *found)
    return True
