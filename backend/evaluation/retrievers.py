# SPDX-License-Identifier: GPL-3.0-or-later
"""Retrieval models by name: any CLIP, and the starter classifier, which scores by log-probability."""

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

CLASSIFIER = "classifier"
DEFAULT_RETRIEVERS = ("starter-clip", "starter-clip-retrieval", CLASSIFIER)


class ClassifierRetriever:
    """Scores a caption by the log-probability of its prop plus that of its color."""

    image_size = 64

    def __init__(self, classifier: StarterClassifier) -> None:
        self._classifier = classifier

    @torch.no_grad()
    def scores(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Scores (n, m). Raises PromptError for captions outside the starter's domain."""
        seen = self._classifier(classifier_size(images).cpu())
        try:
            named = [domain.parse(caption) for caption in captions]
        except ValueError as error:
            raise PromptError(
                f"the classifier knows the starter's captions only: {error}; leave it out of --models"
            ) from error
        props = [[prop.name for prop in domain.PROPS].index(prop) for _, prop in named]
        colors = [list(domain.COLORS).index(color) for color, _ in named]
        return seen.prop[:, props] + seen.color[:, colors]


def classifier_size(images: Tensor) -> Tensor:
    """The images resized to the classifier's 64 x 64 pixels."""
    size = (ClassifierRetriever.image_size,) * 2
    if images.shape[-2:] == size:
        return images.float()
    return functional.interpolate(images.float(), size, mode="bilinear", align_corners=False, antialias=True).clamp(
        0, 1
    )


def classifier_folder() -> Path:
    """Where the classifier's weights lie in the package."""
    return Path(str(resources.files("dreamwright.backend.starter"))) / "classifier"


def load_starter_classifier() -> StarterClassifier:
    """The classifier that comes with the package. Raises ModelError when it is missing."""
    return load_classifier(classifier_folder())


def load_retriever(name: str, device: torch.device | str = "cpu") -> RetrievalModel:
    """The retrieval model of a name or folder. Raises ModelError for one that is missing or is no CLIP model."""
    if name == CLASSIFIER:
        return ClassifierRetriever(load_starter_classifier())
    folder = resolve_model(name)
    check_model("dream-fields", name, folder)
    return load_image_text(folder, device)
