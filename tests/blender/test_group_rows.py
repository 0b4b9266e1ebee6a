# SPDX-License-Identifier: GPL-3.0-or-later
"""Layout of the contact sheet, rows of groups in the list, and which previews are asked for; without Blender."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamwright.shared import limits
from dreamwright.shared.contact_grid import grid_columns, grid_rows, tile_at
from tests.testing.addon_session import SessionBench, addon_module
from tests.testing.fake_jobs import FakeJobs


def job(name: str, group: str = "", place: int = 0, **changes: Any) -> Any:
    """A job of the list, as the add-on's own class."""
    kind = addon_module("shared.messages").JobSummary
    made = kind(
        name,
        "queued",
        "a red mushroom",
        "",
        "starter",
        "quick",
        place,
        {},
        0,
        40,
        0.0,
        -1.0,
        1,
        "",
        "",
        1.7e9,
        0,
        "",
        1,
    )
    return replace(made, group=group, group_index=place, **changes)


# --- the grid


@given(st.integers(1, 400))
def test_grid_is_the_smallest_square_that_is_not_higher_than_wide(count: int) -> None:
    columns, rows = grid_columns(count), grid_rows(count)
    assert columns == math.ceil(math.sqrt(count)) and rows == math.ceil(count / columns)
    assert rows <= columns and rows * columns >= count > (rows - 1) * columns


@given(st.integers(1, limits.VARIATIONS_LARGEST), st.floats(-0.5, 1.5), st.floats(-0.5, 1.5))
def test_tile_at_a_point_is_the_one_drawn_there(count: int, x: float, y: float) -> None:
    columns, rows = grid_columns(count), grid_rows(count)
    inside = [
        index
        for index in range(count)
        if index % columns <= x * columns < index % columns + 1 and index // columns <= y * rows < index // columns + 1
    ]
    assert tile_at(x, y, count) == (inside[0] if inside else None)


def test_tile_at_by_hand() -> None:
    assert [tile_at(x, y, 3) for x, y in ((0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9))] == [0, 1, 2, None]
    assert tile_at(1.0, 0.5, 4) is None and tile_at(0.5, -0.1, 4) is None


# --- pixels


def test_sheet_has_each_tile_at_its_place_with_its_number(installed: Path) -> None:
    sheets, previews = addon_module("contact_sheet_pixels"), addon_module("newest_previews")
    side, cell, border = previews.TILE_PIXELS, sheets.CELL_PIXELS, sheets.BORDER
    tiles = [np.full((side, side, 3), 10 * place, np.uint8) for place in range(1, 6)] + [None]
    sheet = sheets.sheet_pixels(tiles, picked=1)
    assert sheet.shape == (2 * cell, 3 * cell, 3)
    for place, tile in enumerate(tiles):
        middle = sheet[place // 3 * cell + cell // 2, place % 3 * cell + cell // 2]
        assert tuple(middle) == (sheets.EMPTY if tile is None else tuple(tile[0, 0]))
        corner = tuple(sheet[place // 3 * cell, place % 3 * cell])
        assert corner == (sheets.PICKED if place == 1 else sheets.BACKGROUND)
    ink = sheet[border : border + 14, border : border + 10] == sheets.INK
    dots = ink.all(-1)[sheets.SCALE : -sheets.SCALE : sheets.SCALE, sheets.SCALE : -sheets.SCALE : sheets.SCALE]
    assert dots.tolist() == sheets.number_mask(1).tolist(), "the first tile says 1"


def test_numbers_differ_and_have_two_digits(installed: Path) -> None:
    masks = [addon_module("contact_sheet_pixels").number_mask(number) for number in range(1, 17)]
    assert len({mask.tobytes() + bytes(mask.shape) for mask in masks}) == 16
    assert [mask.shape for mask in (masks[8], masks[9])] == [(5, 3), (5, 7)]
    assert masks[6].astype(int).tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0], [0, 1, 0]], "a seven"


@pytest.mark.parametrize(("height", "width"), [(96, 288), (48, 48), (256, 256), (1, 1), (30, 20)])
def test_tile_is_the_first_view_in_the_tiles_size(installed: Path, height: int, width: int) -> None:
    previews = addon_module("newest_previews")
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frame = addon_module("shared.messages").PreviewFrame("j", 5, width, height, zlib.compress(pixels.tobytes()))
    tile, side = previews.tile_of(frame), min(height, width)
    assert tile.step == 5 and tile.pixels.shape == (previews.TILE_PIXELS, previews.TILE_PIXELS, 3)
    for row, column in ((0, 0), (95, 95), (10, 70)):
        source = [int((place + 0.5) * side / previews.TILE_PIXELS) for place in (row, column)]
        assert tuple(tile.pixels[row, column]) == tuple(pixels[source[0], source[1]])


# --- rows


def test_group_is_one_row_where_its_first_job_is_and_opens(installed: Path) -> None:
    groups = addon_module("job_groups")
    jobs = {one.job: one for one in (job("a"), job("b1", "g", 1), job("c"), job("b0", "g", 0), job("d", "alone"))}
    rows = [(row.job, row.group) for row in groups.list_rows(jobs, set())]
    assert rows == [("a", ""), ("", "g"), ("c", ""), ("d", "")]
    rows = [(row.job, row.group) for row in groups.list_rows(jobs, {"g", "gone"})]
    assert rows == [("a", ""), ("", "g"), ("b0", "g"), ("b1", "g"), ("c", ""), ("d", "")]


def test_discarded_jobs_have_no_row(installed: Path) -> None:
    groups = addon_module("job_groups")
    jobs = {f"b{n}": job(f"b{n}", "g", n, discarded=n != 1) for n in range(3)} | {"x": job("x", discarded=True)}
    assert [(row.job, row.group) for row in groups.list_rows(jobs, {"g"})] == [("b1", "")], "what is left is a job"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["", "g", "h", "i"]), st.integers(0, 15), st.booleans()), max_size=12))
def test_every_job_has_a_row_or_is_behind_one_heading(installed: Path, drawn: list[tuple[str, int, bool]]) -> None:
    groups = addon_module("job_groups")
    jobs = {f"j{n}": job(f"j{n}", group, place, discarded=gone) for n, (group, place, gone) in enumerate(drawn)}
    shown = {name for name, one in jobs.items() if not one.discarded}
    opened = groups.list_rows(jobs, {"g", "h", "i"})
    assert sorted(row.job for row in opened if row.job) == sorted(shown)
    closed = groups.list_rows(jobs, set())
    behind = {name for row in closed if not row.job for name in shown if jobs[name].group == row.group}
    assert {row.job for row in closed if row.job} | behind == shown
    for name in shown:
        row = closed[groups.row_of(closed, jobs, name, "")]
        assert row.job == name or (not row.job and row.group == jobs[name].group)
    assert groups.row_of(closed, jobs, "", "") == -1


def test_words_and_progress_of_a_group(installed: Path) -> None:
    groups = addon_module("job_groups")
    members = [
        job("a", state="succeeded"), job("b", state="running", step=10), job("c", state="failed"), job("d"),
    ]  # fmt: skip
    assert groups.state_text(members) == "1 of 4 ready, 1 running, 1 failed"
    assert groups.progress_fraction(members) == pytest.approx((1 + 10 / 40 + 1 + 0) / 4)
    assert not groups.has_ended(members) and groups.has_ended(members[:1])


# --- which previews are asked for


class FakeClient:
    """Keeps the requests and their answers' takers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def request(self, message: Any, on_reply: Any) -> None:
        self.asked.append((message.job, on_reply))


def test_previews_are_asked_for_when_newer_few_at_a_time(installed: Path) -> None:
    module, messages = addon_module("newest_previews"), addon_module("shared.messages")
    now, client = [0.0], FakeClient()
    newest = module.NewestPreviews(lambda: now[0])
    jobs = {f"j{n}": job(f"j{n}", preview_step=n) for n in range(5)}  # j0 has none
    newest.request(client, jobs, [*jobs, "gone"])
    assert [name for name, _ in client.asked] == ["j1", "j2"], "two in flight"
    frame = messages.PreviewFrame("j1", 1, 1, 1, zlib.compress(b"abc"))
    client.asked[0][1](messages.PreviewReply(frame))
    client.asked[1][1](addon_module("shared.errors").RequestError("not-ready", "no preview"))
    assert newest.decode_next() == "j1" and newest.decode_next() == "" and set(newest.tiles) == {"j1"}
    newest.request(client, jobs, jobs)
    assert [name for name, _ in client.asked[2:]] == ["j3", "j4"], "neither again: one is newest, one is not there"
    jobs["j1"] = job("j1", preview_step=2)
    client.asked[2][1](messages.PreviewReply(replace(frame, job="j3", step=3)))
    newest.request(client, jobs, jobs)
    assert len(client.asked) == 4, "the same job at most once a second"
    now[0] = module.INTERVAL_S
    newest.request(client, jobs, jobs)
    assert client.asked[4][0] == "j1"
    newest.disconnect()
    newest.request(client, jobs, jobs)
    assert newest.is_busy and [name for name, _ in client.asked[5:]] == ["j1", "j4"], "again on a new connection"


def test_tiles_are_bounded_and_damage_is_skipped(installed: Path) -> None:
    module, messages = addon_module("newest_previews"), addon_module("shared.messages")
    newest = module.NewestPreviews(lambda: 0.0)
    for n in range(module.MAX_TILES + 5):
        newest.add(messages.PreviewFrame(f"j{n}", 1, 1, 1, zlib.compress(b"abc")))
        assert newest.decode_next() == f"j{n}"
    assert len(newest.tiles) == module.MAX_TILES and "j4" not in newest.tiles
    newest.add(messages.PreviewFrame("damaged", 1, 100, 1, zlib.compress(b"abc")))
    assert newest.decode_next() == "" and "damaged" not in newest.tiles
    newest.remove("j9")
    assert "j9" not in newest.tiles


# --- closed midway


def test_blender_closed_midway_loses_no_variation(bench: SessionBench, tmp_path: Path) -> None:
    """Four are asked for, two are answered, Blender ends; its next start sends the other two, as the same group."""
    variations = addon_module("variations")
    bench.connect()
    answered: list[Any] = []
    plain = FakeJobs.submit

    def submit(request: Any) -> Any:
        if len(answered) < 2:
            answered.append(request)
            return plain(bench.server, request)
        return None  # no answer arrives any more

    bench.server.submit = submit
    tickets = variations.submit_variations(bench.session, 4, "a red chair", "", "starter", "quick", 5, {})
    bench.settle(lambda: len(bench.session.pending) == 2)
    address, folder = bench.session.address, bench.session.folder
    bench.session.disconnect()
    del bench.server.submit
    bench.session = addon_module("session").Session(folder)
    bench.session.show_cached(address)
    assert set(bench.session.pending) == set(tickets[2:])
    bench.connect()
    bench.settle(lambda: not bench.session.pending)
    (members,) = bench.session.groups().values()
    assert [(job.seed, job.group_index) for job in members] == [(5, 0), (6, 1), (7, 2), (8, 3)]
