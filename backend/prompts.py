# SPDX-License-Identifier: GPL-3.0-or-later
"""View-dependent prompts (section 3.2, step 3): words chosen by camera, text encoded once."""

from __future__ import annotations

from typing import Sequence

from torch import Tensor

from dreamwright.backend.config import GuidanceConfig
from dreamwright.backend.errors import PromptError
from dreamwright.backend.guidance.contract import Conditioning, Denoiser, PromptConditioning

LONGEST_PROMPT = 1000  # characters


def check_prompt_text(prompt: str) -> str:
    """The prompt without surrounding space. Raises PromptError when it is empty or too long for any text encoder."""
    text = " ".join(prompt.split())
    if not text:
        raise PromptError('the prompt is empty; describe one object, for example "a red mushroom"')
    if len(text) > LONGEST_PROMPT:
        raise PromptError(f"the prompt has {len(text)} characters; allowed are {LONGEST_PROMPT}; shorten it")
    return text


def view_words(azimuth: float, elevation: float, config: GuidanceConfig) -> str:
    """ "overhead view" above the configured elevation, else the nearest of front, side and back by azimuth (degrees)."""
    if elevation > config.overhead_elevation:
        return "overhead view"
    quadrant = int(((azimuth + 45.0) % 360.0) // 90.0)
    if quadrant in (1, 3) and config.sided_views:
        return "right side view" if quadrant == 1 else "left side view"
    return ("front view", "side view", "back view", "side view")[quadrant]


class PromptBank:
    """Every variant of one prompt, encoded once by a denoiser."""

    def __init__(self, denoiser: Denoiser, prompt: str, config: GuidanceConfig) -> None:
        self.prompt = check_prompt_text(prompt)
        self.config = config
        sides = ["right side view", "left side view"] if config.sided_views else ["side view"]
        views = ["", "front view", "back view", "overhead view", *sides] if config.view_dependent else [""]
        looks = ["", config.textureless_words] if config.textureless_words else [""]
        texts = [self._text(view, look) for view in views for look in looks]
        encoded = denoiser.embed([*texts, config.negative_prompt])
        self._positive = {text: encoded[i] for i, text in enumerate(texts)}
        self._negative = encoded[len(texts)]

    def _text(self, view: str, look: str) -> str:
        return ", ".join(part for part in (self.prompt, look, view) if part)

    def for_views(self, azimuths: Tensor, elevations: Tensor, shading_kinds: Sequence[str]) -> PromptConditioning:
        """Conditioning of n views: azimuths and elevations (n,) in degrees, n shading kinds."""
        texts = []
        for azimuth, elevation, kind in zip(azimuths.tolist(), elevations.tolist(), shading_kinds):
            view = view_words(azimuth, elevation, self.config) if self.config.view_dependent else ""
            texts.append(self._text(view, self.config.textureless_words if kind == "textureless" else ""))
        positive = Conditioning.stack([self._positive[text] for text in texts])
        negative = Conditioning.stack([self._negative] * len(texts))
        return PromptConditioning(positive, negative, tuple(texts))
