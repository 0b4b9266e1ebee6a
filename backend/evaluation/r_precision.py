# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP R-Precision of methods by retrieval model: rows of a table like the paper's table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from .captions import same_color
from .contact_sheet import LINE, to_image
from .retrieval import RetrievalModel, RPrecision, hits, r_precision
from .samples import RenderedSample

RENDER_KINDS = ("color", "textureless")  # columns of table 1


@dataclass(frozen=True)
class MethodResult:
    """R-Precision of one method by retrieval model and kind of render; None without images.

    `guided_by` is the model that the method was optimized against: its own value may be overfit.
    """

    method: str
    guided_by: str
    values: Mapping[str, Mapping[str, RPrecision | None]]
    missing: int = 0  # samples without images, counted as wrong


def measure_method(
    method: str,
    guided_by: str,
    samples: Sequence[RenderedSample],
    prompts: Sequence[str],
    captions: Sequence[str],
    models: Mapping[str, RetrievalModel],
) -> MethodResult:
    """Retrieve each prompt among the captions by every model. Raises ValueError for a prompt that is no caption."""
    captions = list(captions)
    truth = [captions.index(prompt) for prompt in prompts]
    of_same_color = same_color(captions, prompts)
    values = {
        name: {
            kind: _measure(model, samples, kind, truth, captions, of_same_color if kind == "textureless" else None)
            for kind in RENDER_KINDS
        }
        for name, model in models.items()
    }
    missing = sum(sample.color is None and sample.textureless is None for sample in samples)
    return MethodResult(method, guided_by, values, missing)


def _measure(
    model: RetrievalModel,
    samples: Sequence[RenderedSample],
    kind: str,
    truth: Sequence[int],
    captions: Sequence[str],
    allowed: NDArray[np.bool_] | None,
) -> RPrecision | None:
    shown: list[Tensor | None] = [getattr(sample, kind) for sample in samples]
    views = max((len(images) for images in shown if images is not None), default=0)
    if not views:
        return None
    values: list[float] = []
    owners: list[int] = []
    for sample, images in zip(samples, shown, strict=True):
        if images is None:  # a failed job is wrong in all views, or failing would raise the mean
            found = [0.0] * views
        else:
            among = None if allowed is None else allowed[sample.prompt]
            found = retrieval_hits(model, images, captions, truth[sample.prompt], among)
        values += found
        owners += [sample.prompt] * len(found)
    return r_precision(np.array(values), owners)


def retrieval_hits(
    model: RetrievalModel,
    images: Tensor,
    captions: Sequence[str],
    truth: int,
    allowed: NDArray[np.bool_] | None = None,
) -> list[float]:
    """Whether `captions[truth]` scores highest for each image, among those `allowed` (m,); see `retrieval.hits`."""
    scores = model.scores(images, captions).double().cpu().numpy()
    mask = None if allowed is None else np.repeat(allowed[None], len(scores), axis=0)
    return [float(hit) for hit in hits(scores, np.full(len(scores), truth), mask)]


def markdown(results: Sequence[MethodResult], models: Sequence[str]) -> str:
    """The table: per cent ± standard error over prompts, in parentheses where the model guided the method itself."""
    head = "| method | " + " | ".join(f"{name}: {kind}" for name in models for kind in RENDER_KINDS) + " |"
    lines = [head, "| --- |" + " ---: |" * (len(models) * len(RENDER_KINDS))]
    for result in results:
        texts = []
        for name in models:
            for kind in RENDER_KINDS:
                value = result.values[name][kind]
                text = "—" if value is None else str(value)
                texts.append(f"({text})" if value is not None and name == result.guided_by else text)
        lines.append(f"| {result.method} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def method_sheet(
    samples: Mapping[str, Sequence[RenderedSample]], prompts: Sequence[str], tile: int = 96
) -> Image.Image:
    """Contact sheet with a row for each prompt and seed: front, side and textureless front of each method."""
    margin = 4
    seeds = sorted({sample.seed for shown in samples.values() for sample in shown})
    lines = [(number, seed) for number in range(len(prompts)) for seed in seeds]
    sheet = Image.new("RGB", (margin + len(samples) * (3 * tile + margin), LINE + len(lines) * (tile + LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (method, shown) in enumerate(samples.items()):
        left = margin + column * (3 * tile + margin)
        draw.text((left, 0), method, fill="black")
        found = {(sample.prompt, sample.seed): sample for sample in shown}
        for row, (number, seed) in enumerate(lines):
            top = LINE + row * (tile + LINE)
            draw.text((left, top), prompts[number] + (f", seed {seed}" if len(seeds) > 1 else ""), fill="black")
            sample = found.get((number, seed))
            if sample is None or sample.color is None or sample.textureless is None:
                draw.text((left, top + LINE), "no mesh", fill="red")
                continue
            sides = (sample.color[0], sample.color[len(sample.color) // 4], sample.textureless[0])
            for place, side in enumerate(sides):
                sheet.paste(to_image(side).resize((tile, tile)), (left + place * tile, top + LINE))
    return sheet


def to_json(
    results: Sequence[MethodResult], prompts: Sequence[str], captions: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of the table, and the settings that they were measured with."""
    return {
        "metric": "CLIP R-Precision: fraction of hits over views, mean over prompts",
        "prompts": list(prompts),
        "captions": len(captions),
        **settings,
        "rows": [asdict(result) for result in results],
    }
