# SPDX-License-Identifier: GPL-3.0-or-later
"""Which props a scene has, how tall they are, and what they stand on: the default set, or a list in a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dreamwright.shared.numbers import number_text
from dreamwright.shared.prompt_list import OBJECT_NAME_BYTES, PromptRow

from ..errors import DreamwrightError

MOST_PROPS = 50
HEIGHTS_M = (0.01, 50.0)
REACH_M = 100.0  # largest distance along x and y
TURN_DEG = 360.0


class SceneError(DreamwrightError, ValueError):
    """A description of a scene that cannot be used."""


@dataclass(frozen=True)
class SceneProp:
    """A prop and its place.

    height_m: along Z. at: (x, y) in meters of the middle of its bounding box, from the middle of what it stands on, or
    from the scene's origin. on: the name of an earlier prop; "" for the ground. turn_deg: about Z, counter-clockwise
    from above; at 0 the front faces -Y. lamp: whether the scene at night is lit from it.
    """

    name: str
    prompt: str
    height_m: float
    at: tuple[float, float] = (0.0, 0.0)
    on: str = ""
    turn_deg: float = 0.0
    lamp: bool = False


# The built-in model knows sixteen props, so that a pot, for example, is there only as the cactus's own.
DEFAULT_SET: tuple[SceneProp, ...] = (
    SceneProp("table", "a white table", 0.72),
    SceneProp("chair", "a blue chair", 0.92, at=(-0.78, -0.22), turn_deg=62.0),
    SceneProp("lamp", "a yellow lamp", 0.46, at=(0.28, 0.14), on="table", lamp=True),
    SceneProp("mug", "an orange mug", 0.11, at=(0.02, -0.16), on="table", turn_deg=-35.0),
    SceneProp("mushroom", "a red mushroom", 0.19, at=(-0.26, 0.04), on="table"),
    SceneProp("cactus", "a green cactus", 0.62, at=(0.86, -0.12), turn_deg=20.0),
)


def read_scene(path: Path) -> tuple[SceneProp, ...]:
    """The props of a JSON file: a list of objects with the fields of SceneProp. Raises SceneError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SceneError(
            f"cannot read the scene {str(path)!r}: {error.strerror or error}; give a JSON file, or --scene alone for "
            "the default set"
        ) from error
    except ValueError as error:
        raise SceneError(f"the scene {str(path)!r} is no JSON in UTF-8 ({error}); correct it there") from error
    try:
        return parse_scene(content)
    except SceneError as error:
        raise SceneError(f"the scene {str(path)!r} cannot be used: {error}") from error


def parse_scene(content: Any) -> tuple[SceneProp, ...]:
    """The props of a decoded JSON list. Raises SceneError for the first thing that is wrong."""
    if not isinstance(content, list) or not 1 <= len(content) <= MOST_PROPS:
        raise SceneError(f"it must be a list of 1 to {MOST_PROPS} props, such as {json.dumps([_EXAMPLE])}")
    props: dict[str, SceneProp] = {}
    for number, given in enumerate(content, start=1):
        prop = _prop(f"prop {number}", given)
        if prop.name in props:
            raise SceneError(f"prop {number} has the name {prop.name!r} of an earlier one; give each its own")
        if prop.on and prop.on not in props:
            raise SceneError(
                f"prop {number} stands on {prop.on!r}, which is no earlier prop; allowed are "
                f"{', '.join(map(repr, props)) or 'none before the first'}, and '' for the ground"
            )
        props[prop.name] = prop
    if sum(prop.lamp for prop in props.values()) > 1:
        raise SceneError("more than one prop is a lamp; leave lamp out of all but one")
    return tuple(props.values())


def rows_of(props: Sequence[SceneProp], seed: int) -> list[PromptRow]:
    """The rows of the list of prompts that makes the props. A prompt that occurs again has the next seed."""
    used: dict[str, int] = {}
    rows = []
    for number, prop in enumerate(props, start=1):
        used[prop.prompt] = used.get(prop.prompt, -1) + 1
        rows.append(PromptRow(number, prop.prompt, seed + used[prop.prompt], prop.name))
    return rows


_EXAMPLE = {"name": "mug", "prompt": "a blue mug", "height_m": 0.11}
_FIELDS = tuple(field.name for field in fields(SceneProp))


def _prop(what: str, given: Any) -> SceneProp:
    """One prop. Raises SceneError."""
    if not isinstance(given, Mapping):
        raise SceneError(f"{what} is {json.dumps(given)[:60]}; write an object such as {json.dumps(_EXAMPLE)}")
    unknown = [name for name in given if name not in _FIELDS]
    if unknown:
        raise SceneError(f"{what} has the field {unknown[0]!r}; allowed are {', '.join(_FIELDS)}")
    missing = [name for name in ("name", "prompt", "height_m") if name not in given]
    if missing:
        raise SceneError(f"{what} has no {missing[0]}; give it one, as in {json.dumps(_EXAMPLE)}")
    for name in ("name", "prompt", "on"):
        if not isinstance(given.get(name, ""), str):
            raise SceneError(f"{what} has the {name} {json.dumps(given[name])[:60]}; write it as text")
    name, prompt = given["name"].strip(), given["prompt"].strip()
    if not name or not prompt or len(name.encode()) > OBJECT_NAME_BYTES:
        raise SceneError(f"{what} needs a prompt, and a name of 1 to {OBJECT_NAME_BYTES} bytes")
    lamp = given.get("lamp", False)
    if not isinstance(lamp, bool):
        raise SceneError(f"{what} has the lamp {json.dumps(lamp)[:60]}; allowed are true and false")
    at = given.get("at", (0.0, 0.0))
    if not isinstance(at, (list, tuple)) or len(at) != 2:
        raise SceneError(f"{what} has the at {json.dumps(at)[:60]}; write [x, y] in meters")
    return SceneProp(
        name,
        prompt,
        _number(what, "height_m", given["height_m"], *HEIGHTS_M),
        (_number(what, "at", at[0], -REACH_M, REACH_M), _number(what, "at", at[1], -REACH_M, REACH_M)),
        given.get("on", "").strip(),
        _number(what, "turn_deg", given.get("turn_deg", 0.0), -TURN_DEG, TURN_DEG),
        lamp,
    )


def _number(what: str, name: str, value: Any, low: float, high: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high:
        raise SceneError(
            f"{what} has the {name} {json.dumps(value)[:60]}; allowed are {number_text(low)} to {number_text(high)}"
        )
    return float(value)
