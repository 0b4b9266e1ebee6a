# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompt normalization, shared by the panel and the backend: punctuation, articles, plurals and synonyms."""

from __future__ import annotations

import json
import random
import string
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.errors import ModelError, PromptError
from dreamwright.backend.guidance.clip_model import load_image_text
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.models.pipeline_folder import open_pipeline
from dreamwright.backend.models.vocabulary_file import read_vocabulary
from dreamwright.backend.server.requests import capabilities
from dreamwright.backend.starter import domain
from dreamwright.backend.starter.words import COLOR_SYNONYMS, PROP_SYNONYMS, SHADES, domain_file
from dreamwright.backend.text.encoder import PipelineTextEncoder
from dreamwright.backend.text.tokenization import PromptTokenizer
from dreamwright.shared.prompt_words import PromptVocabulary, model_vocabulary, read_prompt
from tests.testing.addon_modules import load as load_addon_module
from tests.testing.tiny_pipeline import write_pipeline

STARTER = read_vocabulary(resolve_model("starter"))
COLORS, PROPS = list(domain.COLORS), [prop.name for prop in domain.PROPS]


def text(prompt: str) -> str:
    reading = read_prompt(prompt, STARTER)
    assert not reading.fault, reading.fault
    return reading.text


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        ("a red mushroom!", "a red mushroom"),
        ("The Red Mushroom", "a red mushroom"),
        ("red mushrooms", "a red mushroom"),
        ("red-mushroom", "a red mushroom"),
        ("red, mushroom", "a red mushroom"),
        ("a mushroom (red)", "a red mushroom"),
        ("“A red mushroom…”", "a red mushroom"),
        ("mushroom's red", "a red mushroom"),
        ("crimson couch", "a red sofa"),
        ("a scarlet settee", "a red sofa"),
        ("an azure cup", "a blue mug"),
        ("golden donuts", "a yellow torus"),
        ("an emerald doughnut", "a green torus"),
        ("violet ring", "a purple torus"),
        ("orange house", "an orange house"),
        ("a navy automobile", "a blue car"),
        ("a white cottage", "a white house"),
        ("the black android", "a black robot"),
        ("some purple spaceships", "a purple rocket"),
        ("a yellow rubber ducky", "a yellow duck"),
        ("green cacti", "a green cactus"),
        ("green cactuses", "a green cactus"),
        ("white snowmen", "a white snowman"),
        ("a snow-man, white", "a white snowman"),
        ("white snow man", "a white snowman"),
        ("dark red boat", "a red boat"),
        ("a blue desk lamp", "a blue lamp"),
        ("red coffee mugs", "a red mug"),
        ("golden yellow duck", "a yellow duck"),
        ("a red coloured chair", "a red chair"),
        ("one black ship", "a black boat"),
        ("mush\u00adroom red", "a red mushroom"),
        ("a red mushroom, front left view", "a red mushroom, front left view"),
        ("A red mushroom, untextured, overhead view.", "a red mushroom, untextured, overhead view"),
        ("a mushroom", "a mushroom"),
    ],
)
def test_typed_prompts_are_normalized(prompt: str, caption: str) -> None:
    assert text(prompt) == caption


def test_trained_captions_stay_as_they_are() -> None:
    looks = ["", ", untextured"]
    views = ["", *(f", {way} view" for way in (*domain.VIEWS, *domain.DIRECTIONS))]
    views += [f", {way} overhead view" for way in domain.DIRECTIONS]
    for prop in PROPS:
        for color in COLORS:
            for end in (look + view for look in looks for view in views):
                caption = domain.caption(prop, color, None) + end
                reading = read_prompt(caption, STARTER)
                assert (reading.text, reading.notice) == (caption, "")


def test_every_synonym_is_read_and_reported() -> None:
    for color, others in COLOR_SYNONYMS.items():
        for other in (*others, *(f"{shade} {color}" for shade in SHADES)):
            reading = read_prompt(f"a {other} chair", STARTER)
            assert reading.text == domain.caption("chair", color, None)
            assert reading.notice == f"reads {other!r} as {color!r}"
    for prop, others in PROP_SYNONYMS.items():
        for other in others:
            reading = read_prompt(f"a red {other}", STARTER)
            assert reading.text == f"a red {prop}" and reading.notice == f"reads {other!r} as {prop!r}"
    assert read_prompt("crimson couch", STARTER).notice == "reads 'crimson couch' as 'red sofa'"


def test_no_word_has_two_meanings() -> None:
    every = [word for table in (COLOR_SYNONYMS, PROP_SYNONYMS) for words in table.values() for word in words]
    assert len(every) == len(set(every)) and not set(every) & set(domain.VOCABULARY)


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a red dragon", "'dragon'"),
        ("2 red mushrooms", "'2'"),
        ("a red mushroom and a chair", "'and'"),
        ("a pink t-shirt", "'pink', 't-shirt'"),
        ("red mushroom 🍄", "'🍄'"),
        ("grüner Pilz", "'grüner', 'pilz'"),
    ],
)
def test_unknown_words_are_named_with_alternatives(prompt: str, unknown: str) -> None:
    fault = read_prompt(prompt, STARTER).fault
    assert f"does not know {unknown}" in fault
    assert all(word in fault for word in (*COLORS, *PROPS, "as in 'a red mushroom'"))
    assert "\n" not in fault


def test_near_misses_are_suggested() -> None:
    assert "did you mean mushroom?" in read_prompt("a red mushrom", STARTER).fault
    assert "did you mean crimson?" in read_prompt("a crimsen chair", STARTER).fault


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a crimson blue sofa", "2 colors, 'crimson' (read as 'red'), 'blue'"),
        ("a navy scarlet sofa", "2 colors, 'navy' (read as 'blue'), 'scarlet' (read as 'red')"),
        ("a red cup ring", "2 props, 'cup' (read as 'mug'), 'ring' (read as 'torus')"),
    ],
)
def test_synonyms_that_contradict_another_word_are_refused(prompt: str, named: str) -> None:
    assert named in read_prompt(prompt, STARTER).fault


def test_two_known_words_are_used_with_a_notice() -> None:
    reading = read_prompt("a red blue chair", STARTER)
    assert (reading.text, reading.fault) == ("a red blue chair", "")
    assert reading.notice == "the prompt names 2 colors (red, blue), and the model was trained on one"


@pytest.mark.parametrize("prompt", ["!!", "the", "a, an", " - "])
def test_prompt_without_words_is_refused(prompt: str) -> None:
    assert "names nothing" in read_prompt(prompt, STARTER).fault


def test_model_without_a_vocabulary_gets_the_typed_prompt() -> None:
    for prompt in ("A Gryphon, reading!", "", "the 🍄"):
        assert read_prompt(prompt, PromptVocabulary()).text == prompt


@st.composite
def noisy(draw: st.DrawFn) -> tuple[str, str]:
    """A caption, and the same words in any case with punctuation, blanks and articles around them."""
    color, prop = draw(st.sampled_from(COLORS)), draw(st.sampled_from(PROPS))
    rng = random.Random(draw(st.integers(0, 2**32)))
    marks = string.punctuation.replace("'", "") + " \t\n“”‘’…—–·¿«»"

    def noise() -> str:
        return "".join(rng.choices(marks, k=rng.randint(0, 4)))

    def cased(word: str) -> str:
        return "".join(rng.choice((c.lower(), c.upper())) for c in word)

    parts = []
    for word in (color, prop):
        for article in rng.choices(("the", "a", "an", "some", "this"), k=rng.randint(0, 2)):
            parts.append(noise() + cased(article) + " " + noise())
        parts.append(noise() + cased(word) + rng.choice((" ", ",", "! ", "\n", " - ")) + noise())
    return domain.caption(prop, color, None), "".join(parts)


@settings(max_examples=300)
@given(noisy())
def test_case_punctuation_and_articles_change_nothing(pair: tuple[str, str]) -> None:
    caption, typed = pair
    reading = read_prompt(typed, STARTER)
    assert (reading.text, reading.fault, reading.notice) == (caption, "", "")


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_normalization_of_any_text_is_idempotent_or_refused(prompt: str) -> None:
    reading = read_prompt(prompt, STARTER)
    assert "\n" not in reading.fault
    if not reading.fault:
        assert read_prompt(reading.text, STARTER).text == reading.text


@settings(max_examples=25)
@given(noisy())
def test_normalized_prompt_has_the_captions_embedding(pair: tuple[str, str]) -> None:
    caption, typed = pair
    labels, offered = load_addon_module("labels"), capabilities(("cpu",))
    assert labels.vocabulary_fault(offered, "starter", typed) == ""
    encoder = starter_encoder()
    assert encoder.reader.check(typed) == []
    embedded = encoder.embed([caption, typed]).tensors["hidden"]
    assert torch.equal(embedded[0], embedded[1])


@cache
def starter_encoder() -> PipelineTextEncoder:
    return PipelineTextEncoder(open_pipeline(resolve_model("starter")), "cpu", torch.float32, None)


def test_client_and_server_share_the_vocabulary() -> None:
    offered = capabilities(("cpu",))
    card = next(model for model in offered.models if model.name == "starter")
    assert model_vocabulary(card) == STARTER
    labels = load_addon_module("labels")
    for prompt in ("a red dragon", "a crimson blue sofa", "the"):
        with pytest.raises(PromptError) as caught:
            PromptTokenizer(open_pipeline(resolve_model("starter"))).check(prompt)
        assert labels.vocabulary_fault(offered, "starter", prompt).lower() == str(caught.value).lower()


def test_packaged_models_list_their_vocabulary() -> None:
    for name, words in (("starter", domain.VOCABULARY), ("starter-clip", None), ("starter-clip-retrieval", None)):
        content = json.loads((resolve_model(name) / "domain.json").read_text())
        assert content == domain_file(tuple(content["words"]) if words is None else words)
    clip = load_image_text(resolve_model("starter-clip"))
    first, second = clip.embed_prompts(["a red sofa", "The CRIMSON couches!"])
    assert torch.equal(first, second) and clip.check_prompt("crimson couch") == ["reads 'crimson couch' as 'red sofa'"]


def test_word_level_tokenizer_is_its_own_vocabulary(tmp_path: Path) -> None:
    with_file = PromptTokenizer(open_pipeline(write_pipeline(tmp_path / "with")))
    without = PromptTokenizer(open_pipeline(write_pipeline(tmp_path / "without", domain=False)))
    for tokenizer in (with_file, without):
        assert tokenizer.preprocess("The RED mushrooms!") == "a red mushroom" and tokenizer.check("red mushroom.") == []
        with pytest.raises(PromptError, match="'dragon'"):
            tokenizer.check("a red dragon")


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"words": []}', '{"words": "a red"}', '{"words": ["red"], "synonyms": {"crimson": "rot"}}',
     '{"words": ["red"], "kinds": {"red": 1}}', '{"words": ["red"], "examples": [1]}'],
)  # fmt: skip
def test_damaged_vocabulary_is_refused_by_name(tmp_path: Path, content: str) -> None:
    folder = write_pipeline(tmp_path / "m")
    (folder / "domain.json").write_text(content)
    with pytest.raises(ModelError, match="domain.json"):
        PromptTokenizer(open_pipeline(folder))
