# SPDX-License-Identifier: GPL-3.0-or-later
"""Retrieval models by name: any CLIP, and the starter's judge, which answers in probabilities."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dreamwright.backend.errors import PromptError
from dreamwright.backend.evaluation.retrieval import RetrievalModel
from dreamwright.backend.guidance.clip_model import load_image_text
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.starter import domain
from dreamwright.backend.starter.classifier import Judge, load_judge
from dreamwright.backend.training.methods import check_model

JUDGE = "judge"
DEFAULT_RETRIEVERS = ("starter-clip", "starter-clip-retrieval", JUDGE)


class JudgeRetriever:
    """The judge's log-probability of a caption: that of its prop plus that of its color."""

    image_size = 64

    def __init__(self, judge: Judge) -> None:
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


def load_starter_judge() -> Judge:
    """The judge that comes with the package. Raises ModelError when it is missing."""
    return load_judge(Path(str(resources.files("dreamwright.backend.starter"))) / "classifier")


def load_retriever(name: str, device: torch.device | str = "cpu") -> RetrievalModel:
    """The retrieval model of a name or folder. Raises ModelError for what is missing or is no CLIP."""
    if name == JUDGE:
        return JudgeRetriever(load_starter_judge())
    folder = resolve_model(name)
    check_model("dream-fields", name, folder)
    return load_image_text(folder, device)
