# SPDX-License-Identifier: GPL-3.0-or-later
"""What the starter prior knows: props, colors, views, and the words that name them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prop:
    """One kind of prop of the built-in domain."""

    name: str
    has_front: bool  # the front differs clearly from the back
    hole: bool = False  # topology: an open hole that a lifted mesh must keep


PROPS: tuple[Prop, ...] = (
    Prop("mushroom", has_front=False),
    Prop("snowman", has_front=True),
    Prop("table", has_front=False),
    Prop("chair", has_front=True),
    Prop("house", has_front=True),
    Prop("tree", has_front=False),
    Prop("mug", has_front=False, hole=True),
    Prop("rocket", has_front=True),
    Prop("torus", has_front=False, hole=True),
    Prop("car", has_front=True),
    Prop("robot", has_front=True),
    Prop("duck", has_front=True),
    Prop("sofa", has_front=True),
    Prop("boat", has_front=True),
    Prop("cactus", has_front=False),
    Prop("lamp", has_front=False),
)

# Display sRGB in [0, 1]; chosen to stay apart from each other under shading.
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.84, 0.12, 0.12),
    "green": (0.16, 0.62, 0.22),
    "blue": (0.13, 0.32, 0.86),
    "yellow": (0.95, 0.83, 0.15),
    "orange": (0.96, 0.50, 0.08),
    "purple": (0.52, 0.18, 0.72),
    "white": (0.93, 0.93, 0.92),
    "black": (0.09, 0.09, 0.10),
}

VIEWS: tuple[str, ...] = ("front", "side", "back", "overhead")

# The words of eight directions, 45 degrees each around azimuths 0, 45, ... 315; azimuth 90 is the right side (+X).
DIRECTIONS: tuple[str, ...] = (
    "front", "front right", "right side", "back right", "back", "back left", "left side", "front left",
)  # fmt: skip

VOCABULARY: tuple[str, ...] = (
    "a", "an", ",", "view", "untextured", "left", "right",
    *VIEWS,
    *COLORS,
    *(prop.name for prop in PROPS),
)  # fmt: skip


def view_of(azimuth: float, elevation: float, overhead_elevation: float = 60.0) -> str:
    """The paper's view word: overhead above `overhead_elevation` degrees, else the nearest of front, side, back."""
    if elevation > overhead_elevation:
        return "overhead"
    quadrant = int(((azimuth + 45.0) % 360.0) // 90.0)
    return ("front", "side", "back", "side")[quadrant]


def direction_of(azimuth: float, elevation: float, overhead_elevation: float = 60.0) -> str:
    """The nearest of `DIRECTIONS`, with "overhead" after it above `overhead_elevation`.

    Twice as fine as the paper's words around the object, and eight times from above, where the paper has one word for
    every direction.
    """
    around = DIRECTIONS[int(((azimuth + 22.5) % 360.0) // 45.0) % 8]
    return f"{around} overhead" if elevation > overhead_elevation else around


def caption(prop: str, color: str, view_words: str | None) -> str:
    """ "a red mushroom, front view"; without view words just "a red mushroom"."""
    article = "an" if color[0] in "aeiou" else "a"
    named = f"{article} {color} {prop}"
    return named if not view_words else f"{named}, {view_words}"


def parse(prompt: str) -> tuple[str, str]:
    """(color, prop) of a caption. Raises ValueError naming what is known when either is missing."""
    words = prompt.lower().replace(",", " ").split()
    colors = [word for word in words if word in COLORS]
    props = [word for word in words if any(word == prop.name for prop in PROPS)]
    if len(colors) != 1 or len(props) != 1:
        raise ValueError(
            f"{prompt!r} must name one color of {', '.join(COLORS)} and one prop of "
            f"{', '.join(prop.name for prop in PROPS)}"
        )
    return colors[0], props[0]


def prop_named(name: str) -> Prop:
    """The prop of that name. Raises ValueError listing the known ones."""
    for prop in PROPS:
        if prop.name == name:
            return prop
    raise ValueError(f"no prop {name!r}; known: {', '.join(prop.name for prop in PROPS)}")
