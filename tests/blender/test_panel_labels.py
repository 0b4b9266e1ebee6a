# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of the panel, and the numbers of its menu items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver
from tests.testing.addon_session import addon_module


@pytest.mark.parametrize(
    ("link", "here", "starting", "fault", "expected"),
    [
        ("connecting", True, False, "", ["Not running", "Press Start Server"]),
        ("connecting", True, False, "The command x was not found", ["Not running", "The command x was not found"]),
        ("connecting", True, True, "", ["Starting", "Ready in a few seconds"]),
        ("connecting", False, False, "", ["Connecting", "No answer from there"]),
        ("closed", True, False, "The command x was not found", ["Not connected", "The command x was not found"]),
        ("closed", False, False, "", ["Not connected", ""]),
        ("lost", True, True, "", ["Connection lost", "No answer from there"]),
        ("online", True, True, "", ["Connected", ""]),
    ],
)
def test_connection_text_has_advice(
    installed: Path, link: str, here: bool, starting: bool, fault: str, expected: list[str]
) -> None:
    assert (
        list(addon_module("labels").connection_text(link, "no answer from there", here, starting, fault)[1:])
        == expected
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 0, "under a minute"),
        (20, 59, "under a minute"),
        (50, 61, "about 1 min"),
        (230, 250, "about 4 min"),
        (600, 900, "10 to 15 min"),
        (10, 600, "1 to 10 min"),
        (6000, 7000, "about 108 min"),
        (7000, 20000, "2 to 6 h"),
    ],
)
def test_time_range_text(installed: Path, low: float, high: float, expected: str) -> None:
    assert addon_module("shared.durations").time_range_text(low, high) == expected


def test_queued_job_shows_position_and_estimate(installed: Path) -> None:
    summary = addon_module("shared.messages").JobSummary
    job = summary("j", "queued", "a cup", "", "starter", "draft", 0, {}, 0, 40, 0.0, -1.0, 3, "", "", 0.0, 0, "", 1)
    say = addon_module("labels").progress_text
    assert say(job) == "Position 3 in the queue"
    assert say(replace(job, ready_low_s=600.0, ready_high_s=900.0)) == "Position 3 in the queue, ready in 10 to 15 min"
    assert (
        say(replace(job, queue_position=1, ready_low_s=5.0, ready_high_s=9.0))
        == "Next in the queue, ready in under a minute"
    )


def test_connection_states_have_labels(installed: Path) -> None:
    assert set(addon_module("labels").CONNECTION_LABELS) == {
        state.value for state in addon_module("shared.connection_state").ConnectionState
    }


def test_menu_numbers_are_exact_as_float32(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve().address)
    properties, offered, panel = blender.module("properties"), blender.module("offered_items"), blender.panel
    for items, choose, chosen in (
        (offered.preset_items(panel, None), properties._set_preset, "preset"),
        (offered.model_items(panel, None), properties._set_model, "model"),
    ):
        assert len(items) > 1
        for name, *_, number in items:
            choose(panel, int(np.float32(number)))
            assert getattr(panel, chosen) == name


def test_menus_without_a_server(blender: AddonDriver) -> None:
    panel = blender.panel
    assert [item[1] for item in blender.module("offered_items").preset_items(panel, None)] == ["No server yet"]
    panel.preset = "NONE"
    assert panel.preset_name == "", "it is no preset"


def test_lines_fit_in_every_script(installed: Path) -> None:
    """Chinese and Japanese have no spaces and wide characters; nothing is lost, and no line begins with a full stop."""
    labels = addon_module("labels")
    texts = (
        "“a red mushroom”未导入,因为现在打开的是另一个文件。如需导入此文件,请按导入",
        "別のファイルが開かれたため「a red mushroom」をインポートしませんでした。ボタンを押してください。",
        "Der Server hat noch nicht gesendet, was er anbietet; gleich noch einmal versuchen",
    )
    for text in texts:
        for width in (16, 24, 40):
            lines = labels.wrapped(text, width)
            assert max(map(labels.columns_of, lines)) <= width + 2, "closing punctuation may hang out"
            assert "".join(lines).replace(" ", "") == text.replace(" ", "")
            assert not any(line[0] in "。、」" for line in lines)
