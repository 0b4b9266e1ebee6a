# SPDX-License-Identifier: GPL-3.0-or-later
"""What figure 6's three columns are renders of, and whom a prompt is retrieved among."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamwright.backend.errors import PromptError
from dreamwright.backend.evaluation.captions import STARTER_CAPTIONS, captions_for
from dreamwright.backend.evaluation.classifier_metrics import BACKGROUND, render_views
from dreamwright.backend.evaluation.render_retrieval import LOOKS, RenderRetrieval
from dreamwright.backend.evaluation.results_table import ResultsTable
from dreamwright.backend.evaluation.samples import starter_prop
from dreamwright.backend.starter.domain import COLORS


class AnyBlueMug:
    """A retrieval model that takes everything for a blue mug, and a red one next."""

    image_size = 64

    def scores(self, pictures, captions):
        likes = {"a blue mug": 2.0, "a red mug": 1.0}
        return torch.tensor([[likes.get(caption, 0.0) for caption in captions]] * len(pictures))


@pytest.fixture(scope="module")
def mug():
    return starter_prop("a red mug", 0)


def test_clay_is_retrieved_among_the_props_of_the_prompt_s_color_alone(mug):
    """A red mug taken for a blue one is wrong in color, and right in shape."""
    retrieval = RenderRetrieval(["a red mug"], STARTER_CAPTIONS, {"m": AnyBlueMug()})
    results = ResultsTable(retrieval.columns)
    sample = retrieval.add(results, "row", "a red mug", 0, mug)
    assert [results.figure("row", f"m: {look}").mean for look in LOOKS] == [0.0, 0.0, 1.0]
    assert {look: len(getattr(sample, look)) for look in LOOKS} == dict.fromkeys(LOOKS, 8)
    assert retrieval.chances() == pytest.approx({"albedo": 1 / 128, "shaded": 1 / 128, "textureless": 1 / 16})


def test_a_job_that_gave_no_prop_is_wrong_from_every_side_of_every_look(mug):
    retrieval = RenderRetrieval(["a blue mug"], STARTER_CAPTIONS, {"m": AnyBlueMug()})
    results = ResultsTable(retrieval.columns)
    retrieval.add(results, "row", "a blue mug", 0, mug)
    retrieval.add(results, "row", "a blue mug", 1, None)
    assert [results.figure("row", f"m: {look}").mean for look in LOOKS] == [0.5, 0.5, 0.5]


def test_albedo_is_unlit_shaded_is_lit_and_textureless_has_no_color(mug):
    flat, lit, clay = (
        render_views(mug, 0.0, textureless, azimuths=2, lit=light)
        for textureless, light in ((False, False), (False, True), (True, True))
    )
    inside = (flat - BACKGROUND).abs().amax(1) > 1e-3
    red = torch.tensor(COLORS["red"]).view(1, 3, 1, 1)
    unlit = ((flat - red).abs().amax(1) < 1e-2)[inside].float().mean()
    assert float(unlit) > 0.6, "the mug's body is its plain color, edges and inside apart"
    assert float(((lit - red).abs().amax(1) < 1e-2)[inside].float().mean()) < 0.2
    assert float((clay - clay.mean(1, keepdim=True)).abs().max()) < 1e-6 and np.std(clay[0, 0].numpy()) > 0.02


def test_prompts_of_the_starter_s_are_retrieved_among_all_its_captions_and_others_among_each_other():
    assert captions_for(["a red mug"], "--prompts") == STARTER_CAPTIONS
    assert captions_for(["a bulldog in a hat", "a peacock"], "--prompts") == ("a bulldog in a hat", "a peacock")
    assert RenderRetrieval(["a peacock"], ("a bulldog", "a peacock"), {"m": AnyBlueMug()}).chances() == dict.fromkeys(
        LOOKS, 0.5
    )
    with pytest.raises(PromptError, match="holds 1 prompts; needed are two"):
        captions_for(["a peacock"], "--prompts")
