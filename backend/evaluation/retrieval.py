# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP R-Precision (Park et al. 2021; DreamFusion, section 4 and appendix A.3) of tables of scores, whatever made them.

A picture counts as right when its own caption scores highest among all captions. As in the paper the metric, not the
score, is averaged over azimuths: each view retrieves for itself, and a prompt's figure is the share of its views, over
all seeds, that retrieve it. The standard error is that of the mean over prompts, since the views and seeds of one prompt
are not independent. A cosine similarity is none of this: without distractors there is no retrieval.
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
    """Anything that says how well pictures fit captions: a CLIP, or the starter's judge."""

    image_size: int

    def scores(self, pictures: Tensor, captions: Sequence[str]) -> Tensor:
        """Scores (n, m), higher is better, of pictures (n, 3, h, w) in [0, 1] with captions."""
        ...


@dataclass(frozen=True)
class RPrecision:
    """Mean over prompts in [0, 1], its standard error (None for a single prompt), and how much went into it."""

    mean: float
    standard_error: float | None
    prompts: int
    pictures: int

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {100 * self.standard_error:.1f}"
        return f"{100 * self.mean:.1f}{error}"


def hits(
    scores: NDArray[np.floating], truth: NDArray[np.integer], allowed: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Of each picture (row of (n, m) scores) whether its caption `truth` (n,) scores highest: (n,) in [0, 1].

    Captions that share the highest score share the hit, as chance would have it. `allowed` (n, m) leaves captions out
    for single pictures, as colors are for a picture that shows none. Raises ValueError for tables that do not fit,
    scores that are not finite, and a true caption that is not allowed.
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
    """From `hits` of pictures and the prompt that each belongs to. Raises ValueError for none, or different lengths."""
    right, owners = np.asarray(right, np.float64), np.asarray(prompts)
    if right.shape != owners.shape or not len(right):
        raise ValueError(f"{right.shape} hits of {owners.shape} prompts; allowed are equally many, at least one")
    means = [float(right[owners == prompt].mean()) for prompt in np.unique(owners)]
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else None
    return RPrecision(float(np.mean(means)), error, len(means), len(right))
