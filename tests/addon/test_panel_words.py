# SPDX-License-Identifier: GPL-3.0-or-later
"""What the panel tells somebody who has one button to press, and what its menus choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("bpy")

from tests.addon.at_work import Artist  # noqa: E402
from tests.addon.test_session import module  # noqa: E402


@pytest.mark.parametrize(
    ("link", "here", "starting", "fault", "said"),
    [
        ("connecting", True, False, "", ["Not running", "Press Start Server"]),
        ("connecting", True, False, "The command x was not found", ["Not running", "The command x was not found"]),
        ("connecting", True, True, "", ["Starting", "It answers in some seconds"]),
        ("connecting", False, False, "", ["Connecting", "No answer from there"]),
        ("closed", True, False, "The command x was not found", ["Not connected", "The command x was not found"]),
        ("closed", False, False, "", ["Not connected", ""]),
        ("lost", True, True, "", ["Connection lost", "No answer from there"]),
        ("online", True, True, "", ["Connected", ""]),
    ],
)
def test_how_the_connection_stands_is_said_with_what_to_do(
    installed: Path, link: str, here: bool, starting: bool, fault: str, said: list[str]
) -> None:
    assert list(module("wording").link_words(link, "no answer from there", here, starting, fault)[1:]) == said


def test_every_standing_of_a_connection_has_words(installed: Path) -> None:
    assert set(module("wording").LINK_LOOKS) == {link.value for link in module("shared.client").Link}


def test_what_is_pressed_in_a_menu_is_chosen_although_blender_keeps_its_number_as_a_32_bit_float(blender: Artist, serve: Any) -> None:
    blender.connect(serve().address)
    artist, panel = blender.module("artist"), blender.panel
    for items, choose, chosen in (
        (artist._models(panel, None), artist._set_model, "model"),
        (artist._presets(panel, None), artist._set_preset, "preset"),
    ):
        assert len(items) > 1
        for name, *_, number in items:
            choose(panel, int(np.float32(number)))
            assert getattr(panel, chosen) == name


def test_before_the_first_server_the_menus_say_that_there_is_none(blender: Artist) -> None:
    panel = blender.panel
    assert [item[1] for item in blender.module("artist")._presets(panel, None)] == ["No server yet"]
    panel.preset = "NONE"
    assert panel.preset_name == "", "it is no preset"
