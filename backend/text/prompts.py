# SPDX-License-Identifier: GPL-3.0-or-later
"""View-dependent prompts (section 3.2): the text that a camera adds to a prompt, and the embeddings of all variants."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..config.schema import GuidanceConfig
from ..errors import PromptError
from .conditioning import Conditioning, Negatives, PromptConditioning, PromptEncoder
from .perp_neg import view_blend

MAX_CHARACTERS = 1000  # no model reads more; longer ones are accidents


def clean_prompt(prompt: str) -> str:
    """The prompt on one line, without blanks or punctuation at its end, so that view words can follow.

    Raises PromptError when nothing is left or more than `MAX_CHARACTERS` were given.
    """
    if len(prompt) > MAX_CHARACTERS:
        raise PromptError(
            f"the prompt has {len(prompt)} characters; at most {MAX_CHARACTERS} are allowed; "
            "describe one object briefly"
        )
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the prompt has an unreadable character at position {error.start}; it must be valid Unicode text; "
            "type it again"
        ) from error
    cleaned = " ".join(prompt.split()).rstrip(" .,;:!?")
    if not cleaned:
        raise PromptError("the prompt is empty; describe an object, such as 'a red mushroom'")
    return cleaned


EIGHT_DIRECTIONS = (
    "front", "front right", "right side", "back right", "back", "back left", "left side", "front left",
)  # fmt: skip


def view_words(azimuth: float, elevation: float, config: GuidanceConfig) -> str:
    """The paper's view words of a camera (degrees): "overhead view" above `overhead_elevation`, else "front view" or
    "back view" up to `side_azimuth` from azimuth 0 or 180, and "side view" between; "" when prompts do not depend on
    the view. With 45 degrees it is the nearest of the three.

    With `view_words="eight"` the nearest of eight directions, 45 degrees each, for models that know the words: a camera
    at +X (azimuth 90) sees the "right side", and half as much is left open as with the paper's words. With "sixteen"
    they are distinguished from above too: "front left overhead view".
    """
    if not config.view_dependent:
        return ""
    overhead = elevation > config.overhead_elevation
    direction = EIGHT_DIRECTIONS[int(((azimuth + 22.5) % 360.0) // 45.0) % 8]
    if overhead:
        return f"{direction} overhead view" if config.view_words == "sixteen" else "overhead view"
    if config.view_words != "four":
        return f"{direction} view"
    width, turned = 2 * config.side_azimuth, (azimuth + config.side_azimuth) % 360.0
    if turned < width:
        return "front view"
    return "back view" if 180.0 <= turned < 180.0 + width else "side view"


def opposite_view_text(azimuth: float, elevation: float, config: GuidanceConfig) -> str:
    """The view text of Perp-Neg's negative for a camera (degrees).

    Around the object it is that of the other side: "back view" for "front view". From above it is that of the same side
    at the horizon, where the text names a side ("front left view" for "front left overhead view"); otherwise it is the
    same text, which makes no negative.
    """
    if elevation <= config.overhead_elevation:
        return view_words(azimuth + 180.0, elevation, config)
    return view_words(azimuth, 0.0 if config.view_words == "sixteen" else elevation, config)


def all_view_words(config: GuidanceConfig) -> tuple[str, ...]:
    """All values of `view_words` under this configuration."""
    cameras = [(45.0 * k, elevation) for elevation in (0.0, 90.0) for k in range(8)]
    return tuple(dict.fromkeys(view_words(azimuth, elevation, config) for azimuth, elevation in cameras))


def add_view_text(prompt: str, *words: str) -> str:
    """Join the non-empty parts: "a red mushroom, untextured, front view"."""
    return ", ".join(part for part in (prompt, *words) if part)


class PromptEmbeddings:
    """Embeddings of every variant of one prompt, encoded once: each view, and each view without texture.

    `warnings` holds the encoder's warnings about prompts of which it reads only a part. Raises PromptError for a prompt
    that is empty, too long or not in the model's vocabulary, and whatever the encoder raises.
    """

    def __init__(self, encoder: PromptEncoder, prompt: str, config: GuidanceConfig) -> None:
        self.config = config
        self.prompt = clean_prompt(prompt)
        if config.negative_prompt.strip():
            clean_prompt(config.negative_prompt)  # the same limits
        self._textureless = " ".join(config.textureless_words.split())
        looks = dict.fromkeys(("", self._textureless))
        texts = [add_view_text(self.prompt, look, words) for look in looks for words in all_view_words(config)]
        self.warnings: tuple[str, ...] = tuple(dict.fromkeys(self._check(encoder, texts)))
        self._row = {text: row for row, text in enumerate(texts)}
        needs_empty = config.rule == "csd" and config.negative_prompt != ""
        encoded = encoder.embed([*texts, config.negative_prompt, *([""] if needs_empty else [])])
        self._positive, self._negative = encoded[: len(texts)], encoded[len(texts)]
        self._empty = encoded[-1] if needs_empty else None

    def _check(self, encoder: PromptEncoder, texts: Sequence[str]) -> list[str]:
        """Warnings about all texts. Raises PromptError that names the settings whose words the model does not know."""
        warnings = encoder.check_prompt(self.prompt)
        negative = [self.config.negative_prompt] if self.config.negative_prompt.strip() else []
        for text in (*texts, *negative):
            try:
                warnings = [*warnings, *encoder.check_prompt(text)]
            except PromptError as error:
                raise PromptError(
                    f"{text!r} has words that the settings guidance.view_dependent, view_words, textureless_words or "
                    f"negative_prompt added: {error}; or change those settings for this model"
                ) from error
        return warnings

    @property
    def texts(self) -> tuple[str, ...]:
        """The encoded prompts."""
        return tuple(self._row)

    def for_cameras(
        self,
        azimuths: Sequence[float] | Tensor,
        elevations: Sequence[float] | Tensor,
        shading_kinds: Sequence[str] | None = None,
    ) -> PromptConditioning:
        """The conditioning of n views at these angles (degrees), each "albedo", "shaded" or "textureless".

        Raises ValueError when the sequences differ in length.
        """
        kinds = ["albedo"] * len(azimuths) if shading_kinds is None else shading_kinds
        looks = [self._textureless if kind == "textureless" else "" for kind in kinds]
        angles = [(float(azimuth), float(elevation)) for azimuth, elevation in zip(azimuths, elevations, strict=True)]
        texts = self._texts(looks, [view_words(*pair, self.config) for pair in angles])
        positive, opposite = self._embedded(texts), None
        if self.config.opposite_weight > 0 and self.config.perp_neg == "azimuth":
            positive, opposite = self._by_azimuth(looks, angles)
        elif self.config.opposite_weight > 0:
            others = self._texts(looks, [opposite_view_text(*pair, self.config) for pair in angles])
            opposite = Negatives.of(self._embedded(others), self.config.opposite_weight)
        return PromptConditioning(
            positive,
            self._negative[[0] * len(texts)],
            tuple(texts),
            opposite,
            None if self._empty is None else self._empty[[0] * len(texts)],
        )

    def _by_azimuth(
        self, looks: Sequence[str], angles: Sequence[tuple[float, float]]
    ) -> tuple[Conditioning, Negatives]:
        """The prompts blended between view words, and the front and the side as their negatives."""
        blends = [view_blend(*pair, self.config.overhead_elevation) for pair in angles]

        def rows(words: Sequence[str]) -> Conditioning:
            return self._embedded(self._texts(looks, words))

        def numbers(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        first, second = rows([blend.first for blend in blends]), rows([blend.second for blend in blends])
        weight = self.config.opposite_weight
        return Conditioning.blend(first, second, numbers([blend.share for blend in blends])), Negatives(
            (rows(["front view"] * len(blends)), rows(["side view"] * len(blends))),
            (weight * numbers([blend.front for blend in blends]), weight * numbers([blend.side for blend in blends])),
        )

    def _texts(self, looks: Sequence[str], words: Sequence[str]) -> list[str]:
        """The prompt with each look and its view words."""
        return [add_view_text(self.prompt, look, text) for look, text in zip(looks, words, strict=True)]

    def _embedded(self, texts: Sequence[str]) -> Conditioning:
        return self._positive[[self._row[text] for text in texts]]
