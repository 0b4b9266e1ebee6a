# SPDX-License-Identifier: GPL-3.0-or-later
"""View text and the embeddings of prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.config.schema import GuidanceConfig
from dreamwright.backend.errors import PromptError
from dreamwright.backend.starter import domain
from dreamwright.backend.text.conditioning import Conditioning
from dreamwright.backend.text.prompts import PromptEmbeddings, all_view_words, clean_prompt, view_words
from tests.testing.oracles import GaussianOracle

PAPER = GuidanceConfig()
EIGHT = dataclasses.replace(PAPER, view_words="eight")
SIXTEEN = dataclasses.replace(PAPER, view_words="sixteen")


class Recorder:
    """Embeds a prompt as its index in the order of first use, and records the requests."""

    image_size = 8

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.checked: list[str] = []

    def alpha_sigma(self, t):
        return t, t

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        self.calls.append(list(prompts))
        return Conditioning({"row": torch.arange(len(prompts))})

    def predict_noise(self, z_t, t, conditioning):
        return z_t

    def check_prompt(self, prompt: str) -> list[str]:
        self.checked.append(prompt)
        if "gryphon" in prompt:
            raise PromptError("unknown word 'gryphon'")
        return ["long"] if len(prompt) > 30 else []

    def text(self, conditioning: Conditioning) -> list[str]:
        return [self.calls[-1][row] for row in conditioning.tensors["row"].tolist()]


@pytest.mark.parametrize(
    "azimuth, elevation, words",
    [
        (0, 0, "front view"), (44.9, 60, "front view"), (315.1, -10, "front view"), (359.999, 0, "front view"),
        (90, 30, "side view"), (270, 30, "side view"), (180, 0, "back view"), (136, 0, "back view"),
        (0, 60.1, "overhead view"), (180, 89, "overhead view"),
    ],
)  # fmt: skip
def test_view_text_is_the_papers(azimuth, elevation, words):
    assert view_words(azimuth, elevation, PAPER) == words


@pytest.mark.parametrize(
    "azimuth, words",
    [
        (0, "front view"), (29.9, "front view"), (330.1, "front view"), (30.1, "side view"), (90, "side view"),
        (149.9, "side view"), (150.1, "back view"), (209.9, "back view"), (210.1, "side view"), (329.9, "side view"),
    ],
)  # fmt: skip
def test_front_and_back_can_be_narrower(azimuth, words):
    """ProlificDreamer's front_threshold and back_threshold of 30 degrees; stable-dreamfusion's angle_front of 60."""
    narrow = dataclasses.replace(PAPER, side_azimuth=30.0)
    assert view_words(azimuth, 0, narrow) == words
    assert view_words(azimuth, 60.1, narrow) == "overhead view"
    assert all_view_words(narrow) == all_view_words(PAPER)
    assert view_words(azimuth, 0, dataclasses.replace(EIGHT, side_azimuth=30.0)) == view_words(azimuth, 0, EIGHT)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 360, exclude_max=True), st.floats(-10, 90))
def test_view_text_matches_the_starters_captions(azimuth, elevation):
    view = domain.view_of(azimuth, elevation)
    assert view_words(azimuth, elevation, PAPER) == f"{view} view"
    finer = f"{domain.direction_of(azimuth, elevation)} view"
    assert view_words(azimuth, elevation, SIXTEEN) == finer
    assert finer in all_view_words(SIXTEEN) and len(all_view_words(SIXTEEN)) == 16


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 360, exclude_max=True), st.floats(-10, 90))
def test_view_text_has_eight_or_sixteen_directions(azimuth, elevation):
    eight, sixteen = view_words(azimuth, elevation, EIGHT), view_words(azimuth, elevation, SIXTEEN)
    if elevation > 60:
        assert (
            eight == "overhead view" and sixteen == f"{view_words(azimuth, 0, EIGHT).removesuffix('view')}overhead view"
        )
    else:
        assert eight == sixteen
    assert eight in all_view_words(EIGHT) and len(all_view_words(EIGHT)) == 9


def test_view_independent_prompts_have_no_view_text():
    assert all_view_words(dataclasses.replace(PAPER, view_dependent=False)) == ("",)


def test_all_prompt_variants_are_encoded_in_one_call():
    recorder = Recorder()
    config = dataclasses.replace(EIGHT, textureless_words="untextured", negative_prompt="a blur")
    bank = PromptEmbeddings(recorder, "  a red\n mushroom. ", config)
    kinds = ["albedo", "textureless", "shaded", "textureless"]
    chosen = bank.for_cameras(torch.tensor([0.0, 90.0, 270.0, 0.0]), [0.0, 0.0, 0.0, 80.0], kinds)
    assert chosen.words == (
        "a red mushroom, front view",
        "a red mushroom, untextured, right side view",
        "a red mushroom, left side view",
        "a red mushroom, untextured, overhead view",
    )
    assert len(recorder.calls) == 1 and len(recorder.calls[0]) == 19
    assert recorder.text(chosen.positive) == list(chosen.words)
    assert recorder.text(chosen.negative) == ["a blur"] * 4


def test_textureless_views_can_share_the_plain_prompt():
    recorder = Recorder()
    bank = PromptEmbeddings(recorder, "a red mushroom", PAPER)
    assert bank.for_cameras([180.0], [0.0], ["textureless"]).words == ("a red mushroom, back view",)
    assert len(bank.texts) == 4
    with pytest.raises(ValueError):
        bank.for_cameras([0.0], [0.0], ["albedo", "albedo"])


def test_prompt_check_precedes_encoding_and_keeps_warnings():
    recorder = Recorder()
    assert PromptEmbeddings(recorder, "a very long and red mushroom", PAPER).warnings == ("long",)
    assert recorder.checked[0] == "a very long and red mushroom"
    with pytest.raises(PromptError, match="gryphon"):
        PromptEmbeddings(recorder, "a gryphon", PAPER)


@pytest.mark.parametrize("prompt", ["", "  \n", " ., "])
def test_empty_prompts_are_refused(prompt):
    with pytest.raises(PromptError, match="empty"):
        clean_prompt(prompt)


def test_long_prompts_are_refused_with_their_length():
    with pytest.raises(PromptError, match="10000 characters; at most 1000"):
        PromptEmbeddings(Recorder(), "x" * 10_000, PAPER)
    assert clean_prompt("x" * 1000) == "x" * 1000


def test_broken_unicode_is_refused() -> None:
    """A byte that the terminal could not decode arrives as a lone surrogate."""
    with pytest.raises(PromptError, match="position 2"):
        clean_prompt("a \udcff")


def test_negative_prompts_have_the_same_limits() -> None:
    with pytest.raises(PromptError, match="10000"):
        PromptEmbeddings(GaussianOracle(torch.zeros(3, 4, 4), 1.0), "x", GuidanceConfig(negative_prompt="y" * 10_000))


@pytest.mark.parametrize(("words", "from_above"), [(EIGHT, "overhead view"), (SIXTEEN, "back left view")])
def test_opposite_prompt_names_the_other_side(words: GuidanceConfig, from_above: str) -> None:
    """From above it is the same side from the horizon, or the prompt itself where the words name no side."""
    recorder = Recorder()
    bank = PromptEmbeddings(
        recorder, "a red mushroom", dataclasses.replace(words, opposite_weight=1.0, textureless_words="untextured")
    )
    views = bank.for_cameras([0.0, 100.0, 225.0], [0.0, 0.0, 80.0], ["albedo", "textureless", "shaded"])
    (prompt,), (weight,) = views.opposite.prompts, views.opposite.weights
    assert weight.tolist() == [1.0, 1.0, 1.0]
    assert recorder.text(prompt) == [
        "a red mushroom, back view", "a red mushroom, untextured, left side view", f"a red mushroom, {from_above}",
    ]  # fmt: skip
    assert PromptEmbeddings(Recorder(), "a red mushroom", EIGHT).for_cameras([0.0], [0.0]).opposite is None
