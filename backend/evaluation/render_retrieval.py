# SPDX-License-Identifier: GPL-3.0-or-later
"""R-Precision of albedo, shaded and textureless renders, added to a results table mesh by mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..geometry.build import Mesh
from .captions import same_color
from .classifier_metrics import AZIMUTHS
from .r_precision import retrieval_hits
from .results_table import Column, ResultsTable, percentage
from .retrieval import RetrievalModel
from .samples import RenderedSample, render_sample_with_albedo

RENDER_KINDS = ("albedo", "shaded", "textureless")  # figure 6, left to right
MIN_RESOLUTION = 64  # pixels a side; models with a larger input get larger renders


class RenderRetrieval:
    """Retrieves prompts among captions from renders of their meshes, by several models.

    Raises ValueError for a prompt that is no caption.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        captions: Sequence[str],
        models: Mapping[str, RetrievalModel],
        elevation_deg: float,
    ) -> None:
        self._prompts, self._captions, self._models = list(prompts), list(captions), models
        self._truth = [self._captions.index(prompt) for prompt in prompts]
        self._same_color = same_color(captions, prompts)
        self.elevation_deg = elevation_deg
        self.resolution = max(MIN_RESOLUTION, *(model.image_size for model in models.values()))

    @property
    def columns(self) -> list[Column]:
        """One column for each model and kind of render."""
        return [percentage(f"{name}: {kind}") for name in self._models for kind in RENDER_KINDS]

    def chances(self) -> dict[str, float]:
        """Expected R-Precision of random guesses in [0, 1], by kind of render; mean over prompts."""
        any_caption = 1 / len(self._captions)
        if self._same_color is None:
            return dict.fromkeys(RENDER_KINDS, any_caption)
        one_color = float((1 / self._same_color.sum(1)).mean())
        return {kind: one_color if kind == "textureless" else any_caption for kind in RENDER_KINDS}

    def add(self, results: ResultsTable, row: str, prompt: str, seed: int, mesh: Mesh | None) -> RenderedSample | None:
        """Add the hits of a mesh's views and return its renders; without a mesh all views count as wrong."""
        number = self._prompts.index(prompt)
        sample = (
            None if mesh is None else render_sample_with_albedo(mesh, number, seed, self.resolution, self.elevation_deg)
        )
        for name, model in self._models.items():
            for kind in RENDER_KINDS:
                hits = [0.0] * AZIMUTHS
                if sample is not None:
                    same = self._same_color if kind == "textureless" else None
                    allowed = None if same is None else same[number]
                    hits = retrieval_hits(model, getattr(sample, kind), self._captions, self._truth[number], allowed)
                results.add(row, f"{name}: {kind}", prompt, hits)
        return sample
