# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of 2D samples, added to a results table: classifier agreement, saturation, detail and diversity."""

from __future__ import annotations

import torch
from torch import Tensor

from ..starter import domain
from ..starter.classifier import StarterClassifier
from .image_metrics import detail, mean_chroma, mean_distance, mean_feature_distance
from .results_table import Column, ResultsTable, percentage
from .retrievers import classifier_size

PROP, COLOR, BOTH = percentage("prop"), percentage("color"), percentage("prop and color")
CHROMA, DETAIL = Column("mean chroma", digits=1), Column("detail", digits=4)
DISTANCE, FEATURE_DISTANCE = Column("distance of seeds", digits=3), Column("in the classifier's features", digits=3)
COLUMNS = (PROP, COLOR, BOTH, CHROMA, DETAIL, DISTANCE, FEATURE_DISTANCE)


@torch.no_grad()
def add_image_metrics(
    results: ResultsTable,
    row: str,
    prompt: str,
    images: Tensor | None,
    count: int,
    classifier: StarterClassifier,
    are_repetitions: bool = True,
) -> None:
    """Add the metrics of images (count, 3, h, w) in [0, 1]; None counts as `count` wrong ones.

    Distances are left out unless the images are repetitions of each other, as seeds are. Raises ValueError for a prompt
    outside the starter's domain.
    """
    if images is None:
        for column in (PROP, COLOR, BOTH):
            results.add(row, column.name, prompt, [0.0] * count)
        return
    small = classifier_size(images)
    color, prop = domain.parse(prompt)
    features = classifier.stages(small * 2 - 1).flatten(1)
    seen = classifier(small)
    prop_right = seen.prop.argmax(-1) == [known.name for known in domain.PROPS].index(prop)
    color_right = seen.color.argmax(-1) == list(domain.COLORS).index(color)
    results.add(row, PROP.name, prompt, prop_right.float().tolist())
    results.add(row, COLOR.name, prompt, color_right.float().tolist())
    results.add(row, BOTH.name, prompt, (prop_right & color_right).float().tolist())
    results.add(row, CHROMA.name, prompt, mean_chroma(images))
    results.add(row, DETAIL.name, prompt, detail(images))
    for column, distance in (
        (DISTANCE, mean_distance(images)),
        (FEATURE_DISTANCE, mean_feature_distance(features)),
    ):
        if are_repetitions and distance is not None:
            results.add(row, column.name, prompt, [distance])
