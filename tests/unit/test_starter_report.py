# SPDX-License-Identifier: GPL-3.0-or-later
"""Summary, table and sheet of an evaluation: every row counts, and every bar has its target."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dreamwright.backend.evaluation.samples import true_prop
from dreamwright.backend.evaluation.starter import PromptResult, failed_result
from dreamwright.backend.evaluation.starter_report import BARS, markdown, report, summarize
from dreamwright.backend.evaluation.starter_sheet import prompt_sheet


def row(prompt: str, **changes: object) -> PromptResult:
    plain = replace(
        failed_result(prompt, seed=0, seconds=60.0),
        triangles=1000,
        silhouette_iou=0.8,
        f_score=0.9,
        albedo_error=0.1,
        color_right=True,
        dihedral_deg=9.0,
        reference_dihedral_deg=3.0,
        fronts_elsewhere=0,
        classifier_fronts_elsewhere=0,
    )
    return replace(plain, **changes)


def value(rows: list[PromptResult], bar: str) -> float | None:
    return summarize(rows, "draft")["bars"][bar]["value"]


def test_bars_are_means_over_the_rows_that_have_them() -> None:
    rows = [
        row("a red chair", fronts_elsewhere=2),
        row("a red torus", hole_open=False, dihedral_deg=3.0),
        row("a red mug", hole_open=True, silhouette_iou=0.6),
    ]
    assert value(rows, "silhouette_iou") == pytest.approx(2.2 / 3, rel=1e-12)  # a mean of three in float64
    assert value(rows, "fronts_elsewhere") == 1.0  # of one prop with a front
    assert value(rows, "open_holes") == 0.5
    assert (value(rows, "named_color"), value(rows, "named_bare")) == (1.0, 0.0)
    assert value(rows, "dihedral_ratio") == pytest.approx((3 + 1 + 3) / 3, rel=1e-12)
    assert value([row("a red lamp")], "open_holes") is None


def test_a_failed_job_counts_as_wrong() -> None:
    """Half of the rows without a mesh: the worst values halve the means, and angles are of the mesh alone."""
    rows = [row("a red chair"), failed_result("a red chair", seed=1, seconds=20.0)]
    assert value(rows, "silhouette_iou") == 0.4 and value(rows, "named_color") == 0.5
    assert value(rows, "fronts_elsewhere") == 0.5 and value(rows, "albedo_error") == pytest.approx(0.55, rel=1e-12)
    assert value(rows, "dihedral_ratio") == 3.0 and value(rows, "seconds") == 40.0
    summary = summarize(rows, "draft")
    assert (summary["rows"], summary["prompts"], summary["seeds"], summary["failed"]) == (2, 1, 2, 1)


def test_targets_belong_to_the_preset_and_have_a_direction() -> None:
    rows = [row("a red chair", silhouette_iou=0.88, seconds=100.0)]
    draft, standard = (summarize(rows, preset)["bars"] for preset in ("draft", "standard"))
    assert (draft["silhouette_iou"]["target"], standard["silhouette_iou"]["target"]) == (0.87, 0.90)
    assert (draft["silhouette_iou"]["met"], standard["silhouette_iou"]["met"]) == (True, False)
    assert (draft["seconds"]["met"], standard["seconds"]["met"]) == (False, True)  # at most 90 and 240
    assert summarize(rows, "paper")["bars"]["seconds"] == {"value": 100.0, "target": None, "is_most": True, "met": None}
    assert draft["open_holes"]["value"] is None and draft["open_holes"]["met"] is None


def test_record_and_table_have_every_row_and_bar() -> None:
    rows = [row("a red chair"), row("a red chair", seed=1), failed_result("a red mug")]
    record = json.loads(json.dumps(report(rows, "draft")))
    assert [(found["prompt"], found["seed"]) for found in record["rows"]] == [
        ("a red chair", 0), ("a red chair", 1), ("a red mug", 0),
    ]  # fmt: skip
    assert record["rows"][0]["dihedral_ratio"] == 3.0 and record["rows"][2]["dihedral_ratio"] is None
    lines = markdown(rows, "draft").splitlines()
    assert len({line.count("|") for line in lines[:5]}) == 1  # as many cells in each line
    assert lines[2].startswith("| a red chair | 0 | 60 |") and lines[4].startswith("| a red mug | 0 |")
    assert "no mesh" in lines[4]
    assert [line.split(" | ")[0] for line in lines[8:]] == [f"| {bar.label}" for bar in BARS]
    assert "| silhouette IoU | 0.533 | at least 0.87 | no |" in lines  # (0.8 + 0.8 + 0) / 3


def test_sheet_shows_each_mesh_above_the_true_prop() -> None:
    """The true prop itself gives two equal lines; a job without a mesh leaves the upper one white."""
    prompt, tile = "a red chair", 32
    sheet = np.asarray(prompt_sheet([(row(prompt), true_prop(prompt)), (failed_result(prompt), None)], tile))
    upper, lower, empty, again = (sheet[top : top + tile] for top in (14, 14 + tile, 96, 96 + tile))
    assert np.array_equal(upper, lower) and np.array_equal(lower, again)
    assert (empty == 255).all() and upper.std() > 0
