# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of figures: prompts are the units, whatever they were averaged of; differences are paired."""

from __future__ import annotations

import math

import pytest

from dreamwright.backend.evaluation.results_table import Column, ResultsTable, estimate, percentage


@pytest.fixture
def results() -> ResultsTable:
    results = ResultsTable([percentage("judge"), Column("chroma", digits=1)])
    results.add("base", "judge", "mug", [1, 1, 0, 0])  # 0.5
    results.add("base", "judge", "chair", [0, 0])
    results.add("base", "judge", "chair", [0, 0, 0, 1, 1, 0, 0, 0])  # another seed with more views: 2 of 10
    results.add("base", "judge", "sofa", [0.8])
    results.add("top", "judge", "mug", [0.7])
    results.add("top", "judge", "chair", [0.3])
    results.add("top", "judge", "sofa", [1.0])
    results.add("top", "chroma", "mug", [20, 30])
    return results


def test_an_estimate_has_the_standard_error_of_its_mean_by_hand():
    found = estimate([0.5, 0.2, 0.8])  # deviations 0, -0.3, 0.3: s^2 = 0.18 / 2
    assert found.mean == pytest.approx(0.5) and found.standard_error == pytest.approx(math.sqrt(0.09) / math.sqrt(3))
    assert estimate([0.4]).standard_error is None
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_views_and_seeds_are_averaged_before_prompts_are(results):
    found = results.figure("base", "judge")
    assert results.by_prompt("base", "judge") == pytest.approx({"mug": 0.5, "chair": 0.2, "sofa": 0.8})
    assert (found.mean, found.prompts) == (pytest.approx(0.5), 3) and found.standard_error == pytest.approx(
        0.3 / math.sqrt(3)
    )


def test_a_change_is_paired_so_that_hard_prompts_do_not_add_to_its_error(results):
    found = results.change(
        "top", "base", "judge"
    )  # +0.2, +0.1, +0.2: mean 1/6, s^2 = (2 (1/30)^2 + (2/30)^2) / 2 = 1/300
    assert found.mean == pytest.approx(1 / 6) and found.standard_error == pytest.approx(
        math.sqrt(1 / 300 / 3)
    ) == pytest.approx(1 / 30)
    assert found.standard_error < results.figure("top", "judge").standard_error / 5
    results.add("top", "judge", "lamp", [0.0])  # which the base does not have
    assert results.change("top", "base", "judge") == found
    assert results.change("top", "base", "chroma") is None


def test_the_tables_say_mean_and_error_in_the_column_s_unit(results):
    assert results.markdown("rung").splitlines() == [
        "| rung | judge | chroma |",
        "| --- | ---: | ---: |",
        "| base | 50.0 ± 17.3 | — |",
        "| top | 66.7 ± 20.3 | 25.0 |",
    ]
    assert results.changes_markdown("rung", [("all", "top", "base")]).splitlines()[-1] == "| all | +16.7 ± 3.3 | — |"


def test_the_json_holds_what_the_means_are_of(results):
    first, second = results.as_json()
    assert first["row"] == "base" and first["figures"]["chroma"] is None
    assert second["figures"]["chroma"] == {
        "mean": 25.0,
        "standard_error": None,
        "prompts": 1,
        "by_prompt": {"mug": 25.0},
    }


def test_a_column_that_the_table_does_not_have_is_refused(results):
    with pytest.raises(ValueError, match="no column 'clip'; the columns are judge, chroma"):
        results.add("top", "clip", "mug", [1.0])
