# SPDX-License-Identifier: GPL-3.0-or-later
"""The three kinds of renders of figure 6, and the candidate captions of a prompt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamwright.backend.errors import PromptError
from dreamwright.backend.evaluation.captions import STARTER_CAPTIONS, captions_for
from dreamwright.backend.evaluation.classifier_metrics import BACKGROUND, render_views
from dreamwright.backend.evaluation.render_retrieval import RENDER_KINDS, RenderRetrieval
from dreamwright.backend.evaluation.results_table import ResultsTable
from dreamwright.backend.evaluation.samples import starter_prop
from dreamwright.backend.starter.domain import COLORS


class BlueMugRetriever:
    """A retrieval model that scores a blue mug highest for every image, and a red one second."""

    image_size = 64

    def scores(self, images, captions):
        likes = {"a blue mug": 2.0, "a red mug": 1.0}
        return torch.tensor([[likes.get(caption, 0.0) for caption in captions]] * len(images))


@pytest.fixture(scope="module")
def mug():
    return starter_prop("a red mug", 0)


def test_textureless_renders_compete_within_one_color(mug):
    """A red mug retrieved as a blue one has the wrong color and the right shape."""
    retrieval = RenderRetrieval(["a red mug"], STARTER_CAPTIONS, {"m": BlueMugRetriever()}, 45.0)
    results = ResultsTable(retrieval.columns)
    sample = retrieval.add(results, "row", "a red mug", 0, mug)
    assert [results.mean_of("row", f"m: {kind}").mean for kind in RENDER_KINDS] == [0.0, 0.0, 1.0]
    assert {kind: len(getattr(sample, kind)) for kind in RENDER_KINDS} == dict.fromkeys(RENDER_KINDS, 8)
    assert retrieval.chances() == pytest.approx({"albedo": 1 / 128, "shaded": 1 / 128, "textureless": 1 / 16})


def test_failed_jobs_are_wrong_in_every_view(mug):
    retrieval = RenderRetrieval(["a blue mug"], STARTER_CAPTIONS, {"m": BlueMugRetriever()}, 45.0)
    results = ResultsTable(retrieval.columns)
    retrieval.add(results, "row", "a blue mug", 0, mug)
    retrieval.add(results, "row", "a blue mug", 1, None)
    assert [results.mean_of("row", f"m: {kind}").mean for kind in RENDER_KINDS] == [0.5, 0.5, 0.5]


def test_albedo_is_unlit_and_textureless_has_no_color(mug):
    flat, lit, bare = (
        render_views(mug, 0.0, textureless, azimuths=2, lit=light)
        for textureless, light in ((False, False), (False, True), (True, True))
    )
    # Unlit pixels are albedo to rounding; 1e-2 is 2.5 levels of 8 bits, below any shading. Handle, rim and outline are
    # less than 40% of the pixels, and lit ones reach the albedo where the light is along the normal only.
    inside = (flat - BACKGROUND).abs().amax(1) > 1e-3
    red = torch.tensor(COLORS["red"]).view(1, 3, 1, 1)
    unlit = ((flat - red).abs().amax(1) < 1e-2)[inside].float().mean()
    assert float(unlit) > 0.6, "the mug's body has its plain color, except at edges and inside"
    assert float(((lit - red).abs().amax(1) < 1e-2)[inside].float().mean()) < 0.2
    # Three equal float32 values and their mean: two roundings of 6e-8.
    assert float((bare - bare.mean(1, keepdim=True)).abs().max()) < 2.5e-7 and np.std(bare[0, 0].numpy()) > 0.02


def test_captions_of_starter_prompts_and_of_others():
    assert captions_for(["a red mug"], "--prompts") == STARTER_CAPTIONS
    assert captions_for(["a bulldog in a hat", "a peacock"], "--prompts") == ("a bulldog in a hat", "a peacock")
    assert RenderRetrieval(
        ["a peacock"], ("a bulldog", "a peacock"), {"m": BlueMugRetriever()}, 45.0
    ).chances() == dict.fromkeys(RENDER_KINDS, 0.5)
    with pytest.raises(PromptError, match="holds 1 prompts; needed are two"):
        captions_for(["a peacock"], "--prompts")
