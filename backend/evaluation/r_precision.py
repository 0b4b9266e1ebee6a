# SPDX-License-Identifier: GPL-3.0-or-later
"""From samples and retrieval models to a table like the paper's table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from .captions import same_color
from .retrieval import RetrievalModel, RPrecision, hits, r_precision
from .samples import RenderedSample

LOOKS = ("color", "textureless")


@dataclass(frozen=True)
class Row:
    """One method's R-Precision by retrieval model and look; None where there was nothing to measure.

    `guided_by` is the model that the method itself was optimized against, whose figure may be overfit.
    """

    method: str
    guided_by: str
    figures: Mapping[str, Mapping[str, RPrecision | None]]
    missing: int = 0  # samples without pictures, counted as wrong


def measure_row(
    method: str,
    guided_by: str,
    samples: Sequence[RenderedSample],
    prompts: Sequence[str],
    captions: Sequence[str],
    models: Mapping[str, RetrievalModel],
) -> Row:
    """Retrieve each prompt among the captions, which hold all prompts, by every model.

    Raises ValueError for a prompt that is no caption.
    """
    captions = list(captions)
    truth = [captions.index(prompt) for prompt in prompts]
    clay = same_color(captions, prompts)
    figures = {
        name: {
            look: _figure(model, samples, look, truth, captions, clay if look == "textureless" else None)
            for look in LOOKS
        }
        for name, model in models.items()
    }
    missing = sum(e.color is None and e.textureless is None for e in samples)
    return Row(method, guided_by, figures, missing)


def _figure(
    model: RetrievalModel,
    samples: Sequence[RenderedSample],
    look: str,
    truth: Sequence[int],
    captions: Sequence[str],
    allowed: Any,
) -> RPrecision | None:
    shown = [getattr(e, look) for e in samples]
    if all(pictures is None for pictures in shown):
        return None
    right: list[float] = []
    owners: list[int] = []
    views = max(len(pictures) for pictures in shown if pictures is not None)
    for sample, pictures in zip(samples, shown):
        if pictures is None:  # a job that gave nothing is wrong from every side, or failing would raise the mean
            found = [0.0] * views
        else:
            found = views_right(
                model, pictures, captions, truth[sample.prompt], None if allowed is None else allowed[sample.prompt]
            )
        right += found
        owners += [sample.prompt] * len(found)
    return r_precision(np.array(right), owners)


def views_right(
    model: RetrievalModel,
    pictures: Tensor,
    captions: Sequence[str],
    truth: int,
    allowed: NDArray[np.bool_] | None = None,
) -> list[float]:
    """Of each picture of one prompt whether `captions[truth]` scores highest, among those `allowed` (m,); see `retrieval.hits`."""
    scores = model.scores(pictures, captions).double().cpu().numpy()
    mask = None if allowed is None else np.repeat(allowed[None], len(scores), axis=0)
    return hits(scores, np.full(len(scores), truth), mask).tolist()


def markdown(rows: Sequence[Row], models: Sequence[str]) -> str:
    """The table: in per cent, ± the standard error over prompts; in parentheses where the model guided the method itself."""
    head = "| method | " + " | ".join(f"{name}: {look}" for name in models for look in LOOKS) + " |"
    lines = [head, "| --- |" + " ---: |" * (len(models) * len(LOOKS))]
    for row in rows:
        cells = []
        for name in models:
            for look in LOOKS:
                figure = row.figures[name][look]
                text = "—" if figure is None else str(figure)
                cells.append(f"({text})" if figure is not None and name == row.guided_by else text)
        lines.append(f"| {row.method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(samples: Mapping[str, Sequence[RenderedSample]], prompts: Sequence[str], tile: int = 96) -> Image.Image:
    """All that was measured: a line a prompt and seed, and for each method two sides in color and one as clay."""
    head, margin = 14, 4
    seeds = sorted({sample.seed for shown in samples.values() for sample in shown})
    lines = [(number, seed) for number in range(len(prompts)) for seed in seeds]
    sheet = Image.new("RGB", (margin + len(samples) * (3 * tile + margin), head + len(lines) * (tile + head)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (method, shown) in enumerate(samples.items()):
        left = margin + column * (3 * tile + margin)
        draw.text((left, 0), method, fill="black")
        found = {(sample.prompt, sample.seed): sample for sample in shown}
        for row, (number, seed) in enumerate(lines):
            top = head + row * (tile + head)
            draw.text((left, top), prompts[number] + (f", seed {seed}" if len(seeds) > 1 else ""), fill="black")
            sample = found.get((number, seed))
            if sample is None or sample.color is None or sample.textureless is None:
                draw.text((left, top + head), "no mesh", fill="red")
                continue
            sides = (sample.color[0], sample.color[len(sample.color) // 4], sample.textureless[0])
            for place, side in enumerate(sides):
                pixels = (side.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
                sheet.paste(Image.fromarray(pixels).resize((tile, tile)), (left + place * tile, top + head))
    return sheet


def as_json(
    rows: Sequence[Row], prompts: Sequence[str], captions: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that the table says, and how it was come by."""
    return {
        "metric": "CLIP R-Precision: share of views whose own caption scores highest among all captions, mean over prompts",
        "prompts": list(prompts),
        "captions": len(captions),
        **settings,
        "rows": [asdict(row) for row in rows],
    }
