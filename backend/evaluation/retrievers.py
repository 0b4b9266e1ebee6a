# SPDX-License-Identifier: GPL-3.0-or-later
"""Retrieval models by name: any CLIP, and the starter's judge, which answers in probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import PromptError
from ..guidance.clip_model import load_image_text
from ..models.local import resolve_model
from ..starter import domain
from ..starter.classifier import StarterClassifier, load_classifier
from ..training.methods import check_model
from .retrieval import RetrievalModel

JUDGE = "judge"
DEFAULT_RETRIEVERS = ("starter-clip", "starter-clip-retrieval", JUDGE)


class JudgeRetriever:
    """The judge's log-probability of a caption: that of its prop plus that of its color."""

    image_size = 64

    def __init__(self, judge: StarterClassifier) -> None:
        self._judge = judge

    @torch.no_grad()
    def scores(self, pictures: Tensor, captions: Sequence[str]) -> Tensor:
        """Scores (n, m). Raises PromptError for captions outside the starter's domain."""
        if pictures.shape[-1] != self.image_size:
            pictures = functional.interpolate(
                pictures, (self.image_size,) * 2, mode="bilinear", align_corners=False, antialias=True
            )
        seen = self._judge(pictures.cpu())
        try:
            named = [domain.parse(caption) for caption in captions]
        except ValueError as error:
            raise PromptError(
                f"the judge knows the starter's captions only: {error}; leave it out of --models"
            ) from error
        props = [[prop.name for prop in domain.PROPS].index(prop) for _, prop in named]
        colors = [list(domain.COLORS).index(color) for color, _ in named]
        return seen.prop[:, props] + seen.color[:, colors]


def load_starter_judge() -> StarterClassifier:
    """The judge that comes with the package. Raises ModelError when it is missing."""
    return load_classifier(Path(str(resources.files("dreamwright.backend.starter"))) / "classifier")


def load_retriever(name: str, device: torch.device | str = "cpu") -> RetrievalModel:
    """The retrieval model of a name or folder. Raises ModelError for what is missing or is no CLIP."""
    if name == JUDGE:
        return JudgeRetriever(load_starter_judge())
    folder = resolve_model(name)
    check_model("dream-fields", name, folder)
    return load_image_text(folder, device)
