# SPDX-License-Identifier: GPL-3.0-or-later
"""What the starter's judge and the pixels say about pictures of one prompt, as values of a scoreboard."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..starter import domain
from ..starter.classifier import StarterClassifier
from .image_metrics import detail, mean_chroma, mean_distance, mean_feature_distance
from .results_table import Column, ResultsTable, percentage

PROP, COLOR, BOTH = percentage("prop"), percentage("color"), percentage("prop and color")
CHROMA, DETAIL = Column("mean chroma", digits=1), Column("detail", digits=4)
APART, FEATURES = Column("distance of seeds", digits=3), Column("in the judge's features", digits=3)
COLUMNS = (PROP, COLOR, BOTH, CHROMA, DETAIL, APART, FEATURES)


@torch.no_grad()
def add_image_metrics(
    results: ResultsTable, row: str, prompt: str, pictures: Tensor | None, count: int, judge: StarterClassifier, alike: bool = True
) -> None:
    """Pictures (count, 3, h, w) in [0, 1] of a prompt of the starter's; None where there should be some: all of them wrong.

    Distances are left out of pictures that are no repetitions of each other (`alike` False).
    """
    if pictures is None:
        for column in (PROP, COLOR, BOTH):
            results.add(row, column.name, prompt, [0.0] * count)
        return
    size = judge_size(pictures)
    color, prop = domain.parse(prompt)
    features = judge.stages(size * 2 - 1).flatten(1)
    seen = judge(size)
    prop_right = seen.prop.argmax(-1) == [known.name for known in domain.PROPS].index(prop)
    color_right = seen.color.argmax(-1) == list(domain.COLORS).index(color)
    results.add(row, PROP.name, prompt, prop_right.float().tolist())
    results.add(row, COLOR.name, prompt, color_right.float().tolist())
    results.add(row, BOTH.name, prompt, (prop_right & color_right).float().tolist())
    results.add(row, CHROMA.name, prompt, mean_chroma(pictures))
    results.add(row, DETAIL.name, prompt, detail(pictures))
    for column, distance in ((APART, mean_distance(pictures)), (FEATURES, mean_feature_distance(features))):
        if alike and distance is not None:
            results.add(row, column.name, prompt, [distance])


def judge_size(pictures: Tensor) -> Tensor:
    """The pictures at the 64 pixels that the judge knows."""
    if pictures.shape[-2:] == (64, 64):
        return pictures.float()
    return functional.interpolate(
        pictures.float(), (64, 64), mode="bilinear", align_corners=False, antialias=True
    ).clamp(0, 1)
