# SPDX-License-Identifier: GPL-3.0-or-later
"""R-Precision of props' renders (albedo, shaded, textureless), prop by prop, as values of a scoreboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..geometry.build import Mesh
from .captions import same_color
from .classifier_metrics import AZIMUTHS
from .r_precision import views_right
from .results_table import Column, ResultsTable, percentage
from .retrieval import RetrievalModel
from .samples import RenderedSample, render_sample_with_albedo

LOOKS = ("albedo", "shaded", "textureless")  # figure 6, left to right
SMALLEST = 64  # pixels a side of a render, at least; a model that takes more is shown more


class RenderRetrieval:
    """Retrieves prompts among captions from renders of their props, by several models.

    Raises ValueError for a prompt that is no caption.
    """

    def __init__(self, prompts: Sequence[str], captions: Sequence[str], models: Mapping[str, RetrievalModel]) -> None:
        self._prompts, self._captions, self._models = list(prompts), list(captions), models
        self._truth = [self._captions.index(prompt) for prompt in prompts]
        self._same_color = same_color(captions, prompts)  # clay tells no color
        self.resolution = max(SMALLEST, *(model.image_size for model in models.values()))

    @property
    def columns(self) -> list[Column]:
        """The figures: each model on each look."""
        return [percentage(f"{name}: {look}") for name in self._models for look in LOOKS]

    def chances(self) -> dict[str, float]:
        """What guessing would give on each look, as shares; mean over prompts."""
        any_caption = 1 / len(self._captions)
        if self._same_color is None:
            return dict.fromkeys(LOOKS, any_caption)
        of_clay = float((1 / self._same_color.sum(1)).mean())
        return {look: of_clay if look == "textureless" else any_caption for look in LOOKS}

    def add(self, results: ResultsTable, row: str, prompt: str, seed: int, mesh: Mesh | None) -> RenderedSample | None:
        """Add a prop's views to the results, and return its renders; a job that gave none is wrong from every side."""
        number = self._prompts.index(prompt)
        sample = None if mesh is None else render_sample_with_albedo(mesh, number, seed, self.resolution)
        for name, model in self._models.items():
            for look in LOOKS:
                right = [0.0] * AZIMUTHS
                if sample is not None:
                    allowed = (
                        self._same_color[number] if look == "textureless" and self._same_color is not None else None
                    )
                    right = views_right(model, getattr(sample, look), self._captions, self._truth[number], allowed)
                results.add(row, f"{name}: {look}", prompt, right)
        return sample
