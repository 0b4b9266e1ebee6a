# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP R-Precision (Park et al. 2021; DreamFusion, section 4 and appendix A.3) of score tables.

An image is a hit when its own caption scores highest among all captions. As in the paper the metric, not the score, is
averaged over azimuths: each view is retrieved by itself, and a prompt's value is the fraction of hits over its views
and seeds. The standard error is that of the mean over prompts: views and seeds of one prompt are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class RetrievalModel(Protocol):
    """Scores how well images fit captions: a CLIP model, or the starter classifier."""

    image_size: int

    def scores(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Scores (n, m), higher is better, of images (n, 3, h, w) in [0, 1] with captions."""
        ...


@dataclass(frozen=True)
class RPrecision:
    """Mean over prompts in [0, 1], its standard error (None for a single prompt), numbers of prompts and images."""

    mean: float
    standard_error: float | None
    prompts: int
    images: int

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {100 * self.standard_error:.1f}"
        return f"{100 * self.mean:.1f}{error}"


def hits(
    scores: NDArray[np.floating], truth: NDArray[np.integer], allowed: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Whether the caption `truth` (n,) of each image scores highest in its row of `scores` (n, m): (n,) in [0, 1].

    k captions that tie for the highest score count 1/k each. `allowed` (n, m) leaves out captions of single images, for
    example other colors for a textureless one. Raises ValueError for shapes that do not fit, for scores that are not
    finite, and for a true caption that is not allowed.
    """
    scores = np.asarray(scores, np.float64)
    truth = np.asarray(truth)
    rows = np.arange(len(scores))
    if scores.ndim != 2 or truth.shape != (len(scores),) or scores.shape[1] == 0:
        raise ValueError(f"scores {scores.shape} with {truth.shape} true captions; allowed are (n, m) with (n,), m > 0")
    if not np.isfinite(scores).all() or (truth.size and not (truth.min() >= 0 and truth.max() < scores.shape[1])):
        raise ValueError("scores must be finite and true captions among the table's columns")
    if allowed is not None:
        if allowed.shape != scores.shape or not allowed[rows, truth].all():
            raise ValueError("`allowed` must have the scores' shape and allow every true caption")
        scores = np.where(allowed, scores, -np.inf)
    best = scores == scores.max(axis=1, keepdims=True)
    return best[rows, truth] / best.sum(axis=1)


def r_precision(right: NDArray[np.floating], prompts: Sequence[int]) -> RPrecision:
    """R-Precision from the `hits` of images and the prompt of each. Raises ValueError for none or unequal lengths."""
    right, owners = np.asarray(right, np.float64), np.asarray(prompts)
    if right.shape != owners.shape or not len(right):
        raise ValueError(f"{right.shape} hits of {owners.shape} prompts; allowed are equally many, at least one")
    means = [float(right[owners == prompt].mean()) for prompt in np.unique(owners)]
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else None
    return RPrecision(float(np.mean(means)), error, len(means), len(right))
