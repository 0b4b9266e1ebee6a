# SPDX-License-Identifier: GPL-3.0-or-later
"""Dream List: the rows of a text become assets with names, tags and catalogs; nothing twice; failures; stop."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamwright.shared.asset_catalogs import FILE_NAME, catalog_id, catalog_ids
from tests.testing.blender_reports import INSIDE, report_of
from tests.testing.blenders import Blender, blenders, run_script
from tests.testing.built_addon import Built

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not

TABLE = """prompt,name,seed,tags,catalog
a red mushroom,Toadstool,7,plant;red,Garden/Plants
# not this row
a blue chair,,7,seat,
a red mushroom,,8,,Garden/Plants
"""


def write_text(content: str = TABLE, name: str = "props") -> str:
    text = bpy.data.texts.get(name) or bpy.data.texts.new(name)
    text.clear()
    text.write(content)
    return name


def refused(**how: Any) -> str:
    with pytest.raises(RuntimeError) as caught:
        bpy.ops.dreamwright.dream_list(**how)
    return str(caught.value)


def dream(blender: AddonDriver, **how: Any) -> Any:
    """Start the list and wait for its end; the list."""
    assert bpy.ops.dreamwright.dream_list(text="props", **how) == {"FINISHED"}
    found = blender.module("active_list").active
    assert blender.poll(lambda: found() is not None and found().is_done, 60), (found().props, blender.notices())
    return found()


def assets() -> dict[str, Any]:
    return {one.name: one for one in bpy.data.objects if one.asset_data is not None}


def test_rows_become_assets(blender: AddonDriver, serve: Callable[..., Any], tmp_path: Path) -> None:
    """Names, tags, catalogs, thumbnails and provenance; props stand side by side; the selection stays the user's."""
    blender.connect(serve("--pace", "20", "--size", "96").address)
    blender.panel.preset, blender.panel.import_when_done = "quick", True
    write_text()
    found = dream(blender)
    assert found.summary() == "3 of 3 props" and "The list “props” is done: 3 of 3 props" in blender.notices()
    made = assets()
    assert set(made) == {"Toadstool", "a blue chair", "a red mushroom"} and len(bpy.data.objects) == 3
    toadstool, chair = made["Toadstool"], made["a blue chair"]
    assert sorted(tag.name for tag in toadstool.asset_data.tags) == ["dreamwright", "plant", "red"]
    assert toadstool.asset_data.catalog_id == catalog_id("Garden/Plants")
    assert toadstool.asset_data.description == "a red mushroom" and toadstool["dreamwright_seed"] == 7
    assert int(chair.asset_data.catalog_id.replace("-", ""), 16) == 0
    spans = sorted(
        (one.location.x - one.dimensions.x / 2, one.location.x + one.dimensions.x / 2) for one in made.values()
    )
    assert all(left[1] < right[0] for left, right in itertools.pairwise(spans))
    assert "props failures" not in bpy.data.texts and not (tmp_path / FILE_NAME).exists()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "set.blend"))
    assert list(catalog_ids((tmp_path / FILE_NAME).read_text())) == ["Garden", "Garden/Plants"]


def test_thumbnails_are_the_newest_previews(blender: AddonDriver, serve: Callable[..., Any]) -> None:
    blender.connect(serve("--pace", "20", "--size", "96").address)
    write_text("a red mushroom\na blue chair\n")
    dream(blender)
    for made in assets().values():
        preview = made.preview
        assert preview is not None and tuple(preview.image_size) == (96, 96)
        assert np.ptp(np.array(preview.image_pixels_float[:])) > 0.5


def test_nothing_is_made_twice(blender: AddonDriver, serve: Callable[..., Any], tmp_path: Path) -> None:
    """The same text again; after Blender was closed; and in another file, which gets the props that there are."""
    server = serve("--pace", "20")
    blender.connect(server.address)
    write_text()
    dream(blender)
    jobs = set(blender.session.jobs)
    dream(blender)
    assert set(blender.session.jobs) == jobs and len(assets()) == 3
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "set.blend"))
    bpy.ops.dreamwright.disconnect()
    blender.module("addon_state").unregister()  # as after a new start, nothing is known
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "set.blend"))
    blender.connect(server.address)
    write_text(TABLE + "a blue mushroom,,9,,\n")
    dream(blender)
    assert len(set(blender.session.jobs) - jobs) == 1 and len(assets()) == 4
    bpy.ops.wm.read_homefile(use_empty=True)
    blender.connect(server.address)
    write_text()
    assert blender.module("active_list").active() is None
    before = set(blender.session.jobs)
    dream(blender)
    assert set(blender.session.jobs) == before and len(assets()) == 3


def test_failures_are_listed_and_made_again_when_asked(blender: AddonDriver, serve: Callable[..., Any]) -> None:
    blender.connect(serve("--pace", "20", "--fail-at", "20").address)
    write_text()
    found = dream(blender)
    assert found.summary() == "2 of 3 props, 1 failed"
    lines = bpy.data.texts["props failures"].as_string().splitlines()
    assert lines[0] == "row,prompt,seed,preset,reason" and len(lines) == 2
    assert lines[1].startswith("2,a red mushroom,7,") and "out of memory" in lines[1]
    assert dream(blender).summary() == "2 of 3 props, 1 failed", "a failed job is not made again unless asked"
    assert dream(blender, retry=True).summary() == "3 of 3 props" and "props failures" not in bpy.data.texts
    assert len(assets()) == 3 and len(blender.session.jobs) == 4


def test_bad_texts_are_refused_before_anything_is_sent(blender: AddonDriver, serve: Callable[..., Any]) -> None:
    assert "Not connected" in why_not(bpy.ops.dreamwright.dream_list)
    blender.connect(serve("--pace", "20").address)
    assert "Choose a text" in refused(text="none")
    for content, words in (
        ("prompt,seed\na red mushroom,x\n,1\n", "row 2 has the seed 'x'"),
        ("a red mushroom\na red zebra\n", "row 2: .*zebra"),
        ("prompt,preset\na red mushroom,best\n", "row 2 has the preset 'best'; allowed are quick, standard"),
        ("", "it holds no prompt"),
    ):
        write_text(content)
        with pytest.raises(RuntimeError, match=words):
            bpy.ops.dreamwright.dream_list(text="props")
    assert not blender.session.jobs and not blender.session.pending
    assert "No list is under way" in why_not(bpy.ops.dreamwright.stop_list)


def test_stop_pauses_and_start_continues(blender: AddonDriver, serve: Callable[..., Any]) -> None:
    server = serve("--pace", "0")
    blender.connect(server.address)
    write_text()
    assert bpy.ops.dreamwright.dream_list(text="props") == {"FINISHED"}
    assert blender.poll(lambda: len(blender.session.jobs) == 3 and not blender.session.pending)
    assert "The list “props” is under way; stop it first" in refused(text="props")
    assert bpy.ops.dreamwright.stop_list() == {"FINISHED"}
    assert blender.poll(lambda: {job.state for job in blender.session.jobs.values()} == {"paused"})
    assert bpy.ops.dreamwright.dream_list(text="props") == {"FINISHED"}
    assert blender.poll(lambda: {job.state for job in blender.session.jobs.values()} <= {"queued", "running"})
    assert len(blender.session.jobs) == 3


@pytest.mark.slow
@pytest.mark.parametrize("blender_", (blenders()[0], blenders()[1], blenders()[-1]), ids=lambda one: one.name)
def test_dream_list_in_each_blender(blender_: Blender, built: Built, serve: Callable[..., Any]) -> None:
    """From the zip, in the oldest Blenders of both kinds and in the newest: a list in a text, and its assets."""
    if blender_.missing:
        pytest.skip(blender_.missing)
    server = serve("--pace", "20")
    report = report_of(run_script(blender_, INSIDE / "dream_list.py", built.universal, {"SERVER": server.address}))
    assert report == {
        "assets": {"Toadstool": ["dreamwright", "plant"], "a blue chair": ["dreamwright"]},
        "catalog_id": catalog_id("Garden"),
        "percent": 100.0,
        "jobs": 2,
    }
