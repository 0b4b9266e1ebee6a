# SPDX-License-Identifier: GPL-3.0-or-later
"""Everyday words for the starter's colors and props, and the content of its models' `domain.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import domain

EXAMPLES = ("a red mushroom", "a blue chair", "a white house")

# Pink, brown, gray and the like are left out: none of the eight colors is near enough.
COLOR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet", "ruby", "vermilion", "maroon", "burgundy", "reddish"),
    "green": ("emerald", "lime", "olive", "jade", "greenish"),
    "blue": ("navy", "azure", "cobalt", "sapphire", "cyan", "turquoise", "indigo", "bluish"),
    "yellow": ("golden", "gold", "yellowish"),
    "orange": ("tangerine", "amber"),
    "purple": ("violet", "lilac", "lavender", "mauve", "amethyst"),
    "white": ("ivory", "alabaster", "snow white"),
    "black": ("ebony", "onyx", "jet black"),
}
SHADES = ("light", "dark", "bright", "pale", "deep")  # "dark red" is read as "red"

# Irregular plurals are listed; regular ones are derived by `shared.prompt_words`.
PROP_SYNONYMS: dict[str, tuple[str, ...]] = {
    "mushroom": ("toadstool", "fungus", "fungi", "champignon"),
    "snowman": ("snowmen",),
    "table": ("desk", "coffee table", "dining table"),
    "chair": ("armchair", "seat"),
    "house": ("home", "cottage", "cabin", "hut", "bungalow"),
    "tree": ("pine", "fir", "pine tree", "fir tree"),
    "mug": ("cup", "teacup", "coffee cup", "coffee mug", "tea cup"),
    "rocket": ("spaceship", "spacecraft", "rocket ship", "space rocket"),
    "torus": ("donut", "doughnut", "ring", "toroid", "tori"),
    "car": ("automobile", "auto", "race car", "racing car", "sports car"),
    "robot": ("android", "droid", "automaton", "bot"),
    "duck": ("ducky", "duckie", "duckling", "rubber duck", "rubber ducky"),
    "sofa": ("couch", "settee", "loveseat"),
    "boat": ("ship", "sailboat", "sailing boat", "yacht"),
    "cactus": ("cacti", "cactus plant"),
    "lamp": ("light", "table lamp", "desk lamp", "floor lamp"),
}


def word_kinds() -> dict[str, str]:
    """Which of the starter's words name a color and which a prop."""
    return dict.fromkeys(domain.COLORS, "color") | {prop.name: "prop" for prop in domain.PROPS}


def synonyms() -> dict[str, str]:
    """The starter's word for each synonym, both in lower case."""
    colors = {other: color for color, others in COLOR_SYNONYMS.items() for other in others}
    shaded = {f"{shade} {color}": color for shade in SHADES for color in domain.COLORS}
    props = {other: prop for prop, others in PROP_SYNONYMS.items() for other in others}
    return colors | shaded | props


def domain_file(words: Sequence[str]) -> dict[str, Any]:
    """The content of the `domain.json` of a model that knows these words."""
    return {
        "words": list(words),
        "kinds": {word: kind for word, kind in word_kinds().items() if word in words},
        "synonyms": {other: word for other, word in synonyms().items() if word in words},
        "examples": list(EXAMPLES),
    }
