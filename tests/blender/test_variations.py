# SPDX-License-Identifier: GPL-3.0-or-later
"""Variations in Blender: one entry that opens, contact sheet and thumbnails, pick, import, discard, more like this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.testing.blender_reports import report_of, run_at_window
from tests.testing.blenders import Blender, run_script
from tests.testing.built_addon import Built

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not
from tests.testing.recording_layout import draw_all

INSIDE = Path(__file__).parent / "scripts"
CELL = 96 + 2 * 3  # pixels of a tile and its border


def refuse(operator: Any, **how: Any) -> str:
    """What an operator that was called in vain reports."""
    with pytest.raises(RuntimeError) as caught:
        operator(**how)
    return str(caught.value)


def started(blender: AddonDriver, count: int = 3, prompt: str = "a red mushroom") -> str:
    """The id of a group that was just submitted from the panel."""
    known = set(blender.session.groups())
    blender.panel.variations = count
    assert bpy.ops.dreamwright.generate(prompt=prompt) == {"FINISHED"}
    blender.panel.variations = 1
    assert blender.poll(
        lambda: any(len(jobs) == count for group, jobs in blender.session.groups().items() if group not in known)
    ), blender.notices()
    (group,) = set(blender.session.groups()) - known
    return group


def ended(blender: AddonDriver, count: int = 3) -> str:
    """The id of a group whose jobs have all succeeded."""
    group = started(blender, count)
    assert blender.poll(lambda: states(blender, group) == ["succeeded"] * count), states(blender, group)
    return group


def states(blender: AddonDriver, group: str) -> list[str]:
    return [job.state for job in blender.session.groups().get(group, [])]


def rows(blender: AddonDriver) -> list[tuple[str, str]]:
    return [(row.job, row.group) for row in blender.panel.job_rows]


def sheet() -> np.ndarray:
    """The contact sheet's pixels, (height, width, 3) 0 to 1, top first."""
    image = bpy.data.images["Dreamwright Contact Sheet"]
    pixels = np.empty(image.size[0] * image.size[1] * 4, np.float32)
    image.pixels.foreach_get(pixels)
    return pixels.reshape(image.size[1], image.size[0], 4)[::-1, :, :3]


def test_a_prompt_with_several_seeds_is_one_entry_that_opens(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "20").address)
    single = blender.finished()
    blender.panel.seed = 7
    group = ended(blender)
    jobs = blender.session.groups()[group]
    assert [(job.seed, job.group_index, job.prompt) for job in jobs] == [
        (7, 0, "a red mushroom"), (8, 1, "a red mushroom"), (9, 2, "a red mushroom"),
    ]  # fmt: skip
    assert rows(blender) == [("", group), (single, "")] and blender.panel.job_index == 0, "selected, and closed"
    texts = draw_all(blender.module("panel"))
    assert "3/3" in texts and "3 of 3 ready" in texts
    assert bpy.ops.dreamwright.toggle_group() == {"FINISHED"}
    assert rows(blender) == [("", group), *((job.job, group) for job in jobs), (single, "")]
    assert {"1: seed 7", "2: seed 8", "3: seed 9"} <= set(draw_all(blender.module("panel"), modern=False))
    assert bpy.ops.dreamwright.toggle_group() == {"FINISHED"} and len(rows(blender)) == 2


def test_picking_by_number_or_row_and_importing_the_picked_one(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "20").address)
    group = ended(blender)
    jobs = blender.session.groups()[group]
    assert "Pick a variation first" in refuse(bpy.ops.dreamwright.import_picked)
    assert bpy.ops.dreamwright.pick_variation(number=2) == {"FINISHED"}
    assert blender.session.picked[group] == jobs[1].job
    assert "allowed are 1 to 3" in refuse(bpy.ops.dreamwright.pick_variation, number=4)
    assert "allowed are 1 to 3" in refuse(bpy.ops.dreamwright.pick_variation, number=0)
    bpy.ops.dreamwright.toggle_group()
    blender.panel.job_index = 3
    assert blender.session.picked[group] == jobs[2].job, "its row picks it as well"
    assert bpy.ops.dreamwright.pick_variation(number=2) == {"FINISHED"} and blender.panel.job_index == 2
    assert bpy.ops.dreamwright.import_picked() == {"FINISHED"}
    assert blender.poll(lambda: any("dreamwright_job" in one for one in bpy.data.objects)), blender.notices()
    (made,) = [one for one in bpy.data.objects if "dreamwright_job" in one]
    assert (made["dreamwright_job"], made["dreamwright_seed"]) == (jobs[1].job, 1)


def test_discarding_the_others_leaves_a_single_job(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "200").address)
    group = started(blender)
    jobs = [job.job for job in blender.session.groups()[group]]
    assert "Pick a variation first" in refuse(bpy.ops.dreamwright.discard_others)
    bpy.ops.dreamwright.pick_variation(number=3)
    assert "no group nothing" in refuse(bpy.ops.dreamwright.discard_others, group="nothing")
    assert bpy.ops.dreamwright.discard_others() == {"FINISHED"}, "while two of them run or wait"
    assert blender.poll(lambda: set(blender.session.jobs) == {jobs[2]}), blender.session.jobs
    blender.poll(seconds=0.05)
    assert rows(blender) == [(jobs[2], "")] and blender.panel.job_index == 0, "the picked one stays selected"
    assert "Select variations in the list first" in why_not(bpy.ops.dreamwright.discard_others)


def test_cancelling_and_discarding_a_whole_group(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "5000").address)
    group = started(blender)
    assert bpy.ops.dreamwright.cancel_group() == {"FINISHED"}
    assert blender.poll(lambda: states(blender, group) == ["cancelled"] * 3)
    assert "All variations have ended" in refuse(bpy.ops.dreamwright.cancel_group)
    assert bpy.ops.dreamwright.discard_group(group=group) == {"FINISHED"}
    assert blender.poll(lambda: not blender.session.jobs and not rows(blender))


def test_more_like_this_goes_on_from_the_picked_field(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "20").address)
    group = ended(blender)
    picked = blender.session.groups()[group][1]
    assert "Pick a variation first" in refuse(bpy.ops.dreamwright.more_like_this)
    bpy.ops.dreamwright.pick_variation(number=2)
    assert "allowed are 1 to 16" in refuse(bpy.ops.dreamwright.more_like_this, count=1000)
    assert bpy.ops.dreamwright.more_like_this(count=2, share=0.25) == {"FINISHED"}
    assert blender.poll(lambda: len(blender.session.groups()) == 2 and not blender.session.pending)
    (new,) = set(blender.session.groups()) - {group}
    jobs = blender.session.groups()[new]
    assert [(job.parent_job, job.seed, job.prompt) for job in jobs] == [
        (picked.job, 3, picked.prompt), (picked.job, 4, picked.prompt),
    ]  # fmt: skip
    assert {job.settings["run.finetune_share"] for job in jobs} == {0.25}
    blender.session.jobs[picked.job] = replace(picked, has_field=False)
    assert "has not kept the field" in refuse(bpy.ops.dreamwright.more_like_this, job=picked.job)


@pytest.mark.parametrize("count", [0, -1, 17, 1000])
def test_a_number_out_of_range_is_one_sentence_and_sends_nothing(count: int, blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve().address)
    said = refuse(bpy.ops.dreamwright.generate, prompt="a red mushroom", count=count)
    assert f"{count} variations were asked for; allowed are 1 to 16" in said
    blender.panel.variations = count
    assert 1 <= blender.panel.variations <= 16, "the field of the panel holds no other number"
    assert not blender.session.pending and not blender.session.jobs


def test_next_seed_follows_those_of_the_variations(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "5000").address)
    blender.panel.seed = 2**31 - 2
    assert bpy.ops.dreamwright.generate(prompt="a red mushroom", count=3) == {"FINISHED"}
    assert bpy.ops.dreamwright.generate(prompt="a red mushroom", count=3, again=True) == {"FINISHED"}
    assert blender.poll(lambda: len(blender.session.jobs) == 6 and not blender.session.pending)
    seeds = [sorted(job.seed for job in jobs) for jobs in blender.session.groups().values()]
    assert sorted(seeds) == [[0, 2**31 - 2, 2**31 - 1], [1, 2, 3]], "after the largest comes 0"


def test_contact_sheet_shows_the_newest_previews_and_the_pick(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "40", "--pace", "8").address)
    group = ended(blender)
    blender.session.newest_previews.clear()
    blender.module("contact_sheet").open_editor(bpy.context, group)
    assert sheet().shape == (2 * CELL, 2 * CELL, 3), "three tiles in a grid of two by two"
    assert blender.poll(lambda: len(blender.session.newest_previews.tiles) == 3), blender.notices()
    assert blender.poll(lambda: np.allclose(sheet()[CELL + 60, 60], (40 / 255, 0, 0), atol=2e-3)), "half a level"
    before = sheet()
    assert before[60, 60] == pytest.approx((40 / 255, 0, 0), abs=2e-3)
    assert before[5, 90] == pytest.approx((1, 1, 1)), "the top of the previews is white"
    bpy.ops.dreamwright.pick_variation(number=2)
    changed = np.abs(sheet() - before).max(-1) > 0.05
    assert changed[:CELL, CELL:].any() and not changed[:, :CELL].any() and not changed[CELL:].any()
    bpy.data.images.remove(bpy.data.images["Dreamwright Contact Sheet"])  # as an undo does
    assert blender.poll(lambda: "Dreamwright Contact Sheet" in bpy.data.images), "it comes back to the empty editor"
    assert sheet().shape == (2 * CELL, 2 * CELL, 3)


def test_sheet_is_kept_out_of_saved_files(blender: AddonDriver, serve: Any, tmp_path: Path) -> None:
    blender.connect(serve("--pace", "20").address)
    blender.module("contact_sheet").open_editor(bpy.context, ended(blender))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "one.blend"), copy=True)
    with bpy.data.libraries.load(str(tmp_path / "one.blend")) as (inside, _):
        assert "Dreamwright Contact Sheet" not in inside.images


def test_thumbnails_follow_the_jobs_and_are_freed(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "40", "--pace", "8").address)
    thumbnails = blender.module("thumbnails")
    job = blender.finished()
    assert blender.poll(lambda: thumbnails.count() == 1), blender.session.newest_previews.tiles
    draw_all(blender.module("panel"))  # Blender without a window gives icons no numbers, so none is drawn
    assert blender.poll(lambda: blender.session.newest_previews.tiles[job].step == 40)
    icon = thumbnails._collection[job]
    seen = np.array(icon.image_pixels_float[:], np.float32).reshape(96, 96, 4)
    assert seen[0, 0] == pytest.approx((40 / 255, 0, 0, 1), abs=2e-3) and seen[-1].min() == 1, "upright"
    group = ended(blender)
    assert blender.poll(lambda: thumbnails.count() == 4)
    assert bpy.ops.dreamwright.discard_group(group=group) == {"FINISHED"}
    assert blender.poll(lambda: thumbnails.count() == 1), "those of deleted jobs are freed"
    thumbnails.unregister()
    assert thumbnails.count() == 0 and thumbnails.icon_of(job) == 0
    thumbnails.register()


def test_another_blender_sees_the_group_and_a_restart_keeps_it(blender: AddonDriver, serve: Any) -> None:
    """The group is the server's: a session that knows nothing lists it the same."""
    blender.connect(serve("--pace", "20").address)
    group = ended(blender)
    blender.module("addon_state").unregister()  # forgets all that Blender knew
    bpy.ops.dreamwright.connect()
    assert blender.poll(lambda: rows(blender) == [("", group)])


@pytest.mark.slow
def test_variations_in_each_blender(blender_install: Blender, built: Built, serve: Callable[..., Any]) -> None:
    server = serve("--pace", "20", "--size", "48")
    done = run_script(
        blender_install, INSIDE / "variations.py", built.universal, {"SERVER": server.address}, timeout=200
    )
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr and "ResourceWarning" not in done.stderr
    assert report["rows"] == [[False, True], [True, True], [True, True], [True, True]]
    assert report["sheet"] == [2 * CELL, 2 * CELL] and report["thumbnails"] == 3
    assert report["imported"] == [report["picked"]] and report["left"] == [report["picked"]]
    assert report["closed midway"] == 2, "what was not answered is kept for the next start"


@pytest.mark.slow
def test_variations_at_a_window(built: Built, serve: Callable[..., Any]) -> None:
    server = serve("--steps", "60", "--pace", "3", "--size", "96")
    report, folder, _ = run_at_window(
        "variations_in_window.py", built.universal, "variations", {"SERVER": server.address}
    )
    assert report["typed"] == 4 and report["jobs"] == 4
    assert report["clicked"] == 2, "the tile that was clicked"
    assert report["picked"] == 3, "the number of the button that was pressed"
    assert report["left"] == 1 and report["imported"] == 1
    assert [Path(name).stem for name in report["pictures"]] == ["1-sheet", "2-opened", "3-picked", "4-imported"]
    assert all((folder / name).is_file() for name in report["pictures"])
