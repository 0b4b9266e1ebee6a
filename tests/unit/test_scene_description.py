# SPDX-License-Identifier: GPL-3.0-or-later
"""A scene's description: what is read, what is refused in one line, and that the model knows the default set."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dreamwright.backend.library.planning import plan_props
from dreamwright.backend.relighting.scene_description import (
    DEFAULT_SET,
    SceneError,
    parse_scene,
    read_scene,
    rows_of,
)

MUG = {"name": "mug", "prompt": "a blue mug", "height_m": 0.11}


def test_default_set_is_known_to_the_built_in_model_and_reads_as_a_file() -> None:
    assert len(plan_props(rows_of(DEFAULT_SET, 0), "draft", None, {})) == len(DEFAULT_SET)
    content = [{**vars(prop), "at": list(prop.at)} for prop in DEFAULT_SET]
    assert parse_scene(content) == DEFAULT_SET
    assert [prop.name for prop in DEFAULT_SET if prop.lamp] == ["lamp"]


def test_fields_have_defaults() -> None:
    (mug,) = parse_scene([MUG])
    assert (mug.at, mug.on, mug.turn_deg, mug.lamp) == ((0.0, 0.0), "", 0.0, False)


def test_repeated_prompt_is_another_prop() -> None:
    rows = rows_of(parse_scene([MUG, {**MUG, "name": "cup"}, {**MUG, "name": "toy", "prompt": "a red car"}]), 7)
    assert [(row.name, row.seed) for row in rows] == [("mug", 7), ("cup", 8), ("toy", 7)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "must be a list of 1 to 50 props"),
        ([], "must be a list of 1 to 50 props"),
        ([MUG] * 51, "must be a list of 1 to 50 props"),
        (["a blue mug"], "prop 1 is .*write an object"),
        ([{**MUG, "size": 1}], "the field 'size'; allowed are name, prompt, height_m"),
        ([{"name": "mug", "prompt": "a mug"}], "prop 1 has no height_m"),
        ([{**MUG, "height_m": 0}], r"height_m 0; allowed are 0\.01 to 50"),
        ([{**MUG, "height_m": True}], "height_m true"),
        ([{**MUG, "height_m": float("nan")}], "height_m NaN"),
        ([{**MUG, "at": [1]}], r"the at \[1\]; write \[x, y\]"),
        ([{**MUG, "at": [0, 1e9]}], "allowed are -100 to 100"),
        ([{**MUG, "turn_deg": "left"}], 'turn_deg "left"; allowed are -360 to 360'),
        ([{**MUG, "lamp": 1}], "lamp 1; allowed are true and false"),
        ([{**MUG, "name": 3}], "the name 3; write it as text"),
        ([{**MUG, "name": " "}], "needs a prompt, and a name"),
        ([MUG, MUG], "prop 2 has the name 'mug' of an earlier one"),
        ([{**MUG, "on": "table"}], "stands on 'table', which is no earlier prop; allowed are none before the first"),
        ([{**MUG, "on": "mug"}], "stands on 'mug', which is no earlier prop"),
        ([{**MUG, "lamp": True}, {**MUG, "name": "b", "lamp": True}], "more than one prop is a lamp"),
    ],
)
def test_wrong_description_is_refused_in_one_line(content: object, words: str) -> None:
    with pytest.raises(SceneError, match=words) as refused:
        parse_scene(content)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [(None, "cannot read the scene"), (b"[{]", "is no JSON"), (b"\xff[]", "is no JSON"), (b"[]", "1 to")],
)
def test_unusable_file_is_refused(data: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "scene.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SceneError, match=words) as refused:
        read_scene(path)
    assert re.search(r"scene\.json", str(refused.value)) and "\n" not in str(refused.value)


def test_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scene.json"
    path.write_text(json.dumps([{**MUG, "prompt": "a blue mug "}]), encoding="utf-8")
    assert read_scene(path)[0].prompt == "a blue mug"
