# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the prior: does the classifier name prop, color and view of its ancestral samples as the prompt does?

    python -m tools.starter_training.quality --model starter --samples 256 --out runs/quality

The samples are guided as `draft` guides SDS: with its omega, and its weight of the perpendicular negative prompt that
`opposite_view_text` gives.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import torch
from tqdm import tqdm

from dreamwright.backend.config.presets import DRAFT
from dreamwright.backend.guidance.denoisers.pixel import PixelDiffusion
from dreamwright.backend.guidance.sampling import ancestral_sample
from dreamwright.backend.io.images import image_grid, png_bytes
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.starter import domain
from dreamwright.backend.starter.classifier import load_classifier
from dreamwright.backend.text.prompts import opposite_view_text, view_words

BATCH = 16  # pictures sampled together


def spread_prompts(count: int) -> list[tuple[int, int, int]]:
    """`count` (prop, color, view) index triples that walk through all props, colors and views evenly.

    The steps are coprime to the sizes, so that every prop meets every color and every view before any repeats.
    """
    props, colors, views = len(domain.PROPS), len(domain.COLORS), len(domain.VIEWS)
    return [(i % props, (i // props + 3 * i) % colors, (i // props + i) % views) for i in range(count)]


def asked_words(view: int, index: int) -> tuple[str, str]:
    """The view text of `draft` for view `view` of domain.VIEWS, and its opposite view text.

    Sides alternate between the right and the left one with `index`, views from above walk through the eight directions.
    """
    azimuths = {
        "front": 0.0,
        "side": 90.0 + 180.0 * (index % 2),
        "back": 180.0,
        "overhead": 45.0 * ((index + index // 64) % 8),
    }
    elevation = 75.0 if domain.VIEWS[view] == "overhead" else 10.0
    azimuth = azimuths[domain.VIEWS[view]]
    return view_words(azimuth, elevation, DRAFT.guidance), opposite_view_text(azimuth, elevation, DRAFT.guidance)


def sampled(
    denoiser: PixelDiffusion,
    prompts: list[str],
    omega: float,
    steps: int,
    generator: torch.Generator,
    opposites: list[str] | None = None,
    opposite_weight: float = 0.0,
) -> Iterator[torch.Tensor]:
    """Pictures (n, 3, 64, 64) in [0, 1] of the prompts, a batch at a time; `opposites` are what leads them away."""
    for first in range(0, len(prompts), BATCH):
        batch = prompts[first : first + BATCH]
        away = denoiser.embed(opposites[first : first + BATCH]) if opposites and opposite_weight else None
        negative = denoiser.embed([""] * len(batch))
        yield ancestral_sample(
            denoiser,
            denoiser.embed(batch),
            negative,
            omega,
            steps,
            generator,
            opposite=away,
            opposite_weight=opposite_weight,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify ancestral samples of the starter prior.")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--omega", type=float, default=DRAFT.guidance.omega)
    parser.add_argument(
        "--opposite-weight", type=float, default=DRAFT.guidance.opposite_weight, help="Perp-Neg's; 0: none"
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for quality.json and samples.png")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    classifier = load_classifier(Path(str(resources.files("dreamwright.backend.starter"))) / "classifier")
    denoiser = PixelDiffusion.load(resolve_model(options.model))
    triples = spread_prompts(options.samples)
    colors = list(domain.COLORS)
    prompts, opposites = (
        [
            domain.caption(domain.PROPS[p].name, colors[c], asked_words(v, i)[side])
            for i, (p, c, v) in enumerate(triples)
        ]
        for side in (0, 1)
    )
    generator = torch.Generator().manual_seed(options.seed)
    batches = sampled(denoiser, prompts, options.omega, options.steps, generator, opposites, options.opposite_weight)
    pictures = torch.cat(list(tqdm(batches, total=-(-len(prompts) // BATCH), unit="batch"))).clamp(0, 1)
    with torch.no_grad():
        result = classifier(pictures)
    wanted = torch.tensor(triples)
    prop = result.prop.argmax(-1) == wanted[:, 0]
    color = result.color.argmax(-1) == wanted[:, 1]
    view = result.view.argmax(-1) == wanted[:, 2]
    fronted = torch.tensor([domain.PROPS[p].has_front for p, _, _ in triples])
    figures = {
        "samples": len(triples),
        "omega": options.omega,
        "opposite_weight": options.opposite_weight,
        "steps": options.steps,
        "prop": float(prop.float().mean()),
        "color": float(color.float().mean()),
        "prop_and_color": float((prop & color).float().mean()),
        "view_of_fronted": float(view[fronted].float().mean()),
        "by_view": {
            name: float(view[fronted & (wanted[:, 2] == index)].float().mean())
            for index, name in enumerate(domain.VIEWS)
        },
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "quality.json").write_text(json.dumps(figures, indent=2) + "\n")
    (options.out / "samples.png").write_bytes(png_bytes(image_grid(pictures[:64]), {"what": "starter samples"}))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
