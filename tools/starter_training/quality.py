# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the prior: the share of its ancestral samples whose prop, color and view the classifier names correctly.

    python -m tools.starter_training.quality --model starter --samples 256 --out runs/quality

Sampling uses the guidance of `draft`: its omega, and its weight of Perp-Neg with `opposite_view_text`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import torch
from tqdm import tqdm

from dreamwright.backend.config.recipes.starter import DRAFT
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.interfaces import Denoiser
from dreamwright.backend.guidance.sampling import ancestral_sample
from dreamwright.backend.io.images import image_grid, png_bytes
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.starter import domain
from dreamwright.backend.starter.classifier import load_classifier
from dreamwright.backend.text.conditioning import Negatives
from dreamwright.backend.text.prompts import opposite_view_text, view_words

BATCH = 16  # images sampled together


def spread_prompts(count: int) -> list[tuple[int, int, int]]:
    """`count` triples of indices (prop, color, view), evenly distributed over props, colors and views.

    The strides are coprime to the sizes, so that every pair of prop and color, and of prop and view, occurs before any
    repeats.
    """
    props, colors, views = len(domain.PROPS), len(domain.COLORS), len(domain.VIEWS)
    return [(i % props, (i // props + 3 * i) % colors, (i // props + i) % views) for i in range(count)]


def view_texts(view: int, index: int) -> tuple[str, str]:
    """View text and opposite view text of `draft` for view `view` of domain.VIEWS.

    With `index`, side views alternate between right and left, and overhead views go through the eight directions.
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


def sample_batches(
    denoiser: Denoiser,
    prompts: list[str],
    omega: float,
    steps: int,
    generator: torch.Generator,
    opposites: list[str] | None = None,
    opposite_weight: float = 0.0,
) -> Iterator[torch.Tensor]:
    """Images (n, 3, 64, 64) of the prompts, batch by batch; `opposites` are the negative prompts of Perp-Neg."""
    for first in range(0, len(prompts), BATCH):
        batch = prompts[first : first + BATCH]
        opposite = None
        if opposites and opposite_weight:
            opposite = Negatives.of(denoiser.embed(opposites[first : first + BATCH]), opposite_weight)
        negative = denoiser.embed([""] * len(batch))
        yield ancestral_sample(
            denoiser,
            denoiser.embed(batch),
            negative,
            omega,
            steps,
            generator,
            opposite=opposite,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify ancestral samples of the starter prior.")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--omega", type=float, default=DRAFT.guidance.omega)
    parser.add_argument(
        "--opposite-weight", type=float, default=DRAFT.guidance.opposite_weight, help="weight of Perp-Neg; 0: none"
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for quality.json and samples.png")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    classifier = load_classifier(Path(str(resources.files("dreamwright.backend.starter"))) / "classifier")
    denoiser = load_denoiser(resolve_model(options.model))
    triples = spread_prompts(options.samples)
    colors = list(domain.COLORS)
    prompts, opposites = (
        [domain.caption(domain.PROPS[p].name, colors[c], view_texts(v, i)[side]) for i, (p, c, v) in enumerate(triples)]
        for side in (0, 1)
    )
    generator = torch.Generator().manual_seed(options.seed)
    batches = sample_batches(
        denoiser, prompts, options.omega, options.steps, generator, opposites, options.opposite_weight
    )
    images = torch.cat(list(tqdm(batches, total=-(-len(prompts) // BATCH), unit="batch"))).clamp(0, 1)
    with torch.no_grad():
        result = classifier(images)
    wanted = torch.tensor(triples)
    prop = result.prop.argmax(-1) == wanted[:, 0]
    color = result.color.argmax(-1) == wanted[:, 1]
    view = result.view.argmax(-1) == wanted[:, 2]
    has_front = torch.tensor([domain.PROPS[p].has_front for p, _, _ in triples])
    figures = {
        "samples": len(triples),
        "omega": options.omega,
        "opposite_weight": options.opposite_weight,
        "steps": options.steps,
        "prop": float(prop.float().mean()),
        "color": float(color.float().mean()),
        "prop_and_color": float((prop & color).float().mean()),
        "view_of_props_with_front": float(view[has_front].float().mean()),
        "by_view": {
            name: float(view[has_front & (wanted[:, 2] == index)].float().mean())
            for index, name in enumerate(domain.VIEWS)
        },
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "quality.json").write_text(json.dumps(figures, indent=2) + "\n")
    (options.out / "samples.png").write_bytes(png_bytes(image_grid(images[:64]), {"what": "starter samples"}))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
