# SPDX-License-Identifier: GPL-3.0-or-later
"""Results tables: means over prompts, their standard errors, and paired differences."""

from __future__ import annotations

import math

import pytest

from dreamwright.backend.evaluation.results_table import Column, ResultsTable, estimate, percentage


@pytest.fixture
def results() -> ResultsTable:
    results = ResultsTable([percentage("classifier"), Column("chroma", digits=1)])
    results.add("base", "classifier", "mug", [1, 1, 0, 0])  # 0.5
    results.add("base", "classifier", "chair", [0, 0])
    results.add("base", "classifier", "chair", [0, 0, 0, 1, 1, 0, 0, 0])  # another seed with more views: 2 of 10
    results.add("base", "classifier", "sofa", [0.8])
    results.add("top", "classifier", "mug", [0.7])
    results.add("top", "classifier", "chair", [0.3])
    results.add("top", "classifier", "sofa", [1.0])
    results.add("top", "chroma", "mug", [20, 30])
    return results


def test_standard_error_by_hand():
    found = estimate([0.5, 0.2, 0.8])  # deviations 0, -0.3, 0.3: s^2 = 0.18 / 2
    assert found.mean == pytest.approx(0.5) and found.standard_error == pytest.approx(math.sqrt(0.09) / math.sqrt(3))
    assert estimate([0.4]).standard_error is None
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_values_of_a_prompt_are_averaged_first(results):
    found = results.mean_of("base", "classifier")
    assert results.by_prompt("base", "classifier") == pytest.approx({"mug": 0.5, "chair": 0.2, "sofa": 0.8})
    assert (found.mean, found.prompts) == (pytest.approx(0.5), 3) and found.standard_error == pytest.approx(
        0.3 / math.sqrt(3)
    )


def test_changes_are_paired(results):
    found = results.change(
        "top", "base", "classifier"
    )  # +0.2, +0.1, +0.2: mean 1/6, s^2 = (2 (1/30)^2 + (2/30)^2) / 2 = 1/300
    assert found.mean == pytest.approx(1 / 6) and found.standard_error == pytest.approx(
        math.sqrt(1 / 300 / 3)
    ) == pytest.approx(1 / 30)
    assert found.standard_error < results.mean_of("top", "classifier").standard_error / 5
    results.add("top", "classifier", "lamp", [0.0])  # which the base does not have
    assert results.change("top", "base", "classifier") == found
    assert results.change("top", "base", "chroma") is None


def test_markdown(results):
    assert results.markdown("stage").splitlines() == [
        "| stage | classifier | chroma |",
        "| --- | ---: | ---: |",
        "| base | 50.0 ± 17.3 | — |",
        "| top | 66.7 ± 20.3 | 25.0 |",
    ]
    assert results.changes_markdown("stage", [("all", "top", "base")]).splitlines()[-1] == "| all | +16.7 ± 3.3 | — |"


def test_json_holds_the_values_by_prompt(results):
    first, second = results.to_json()
    assert first["row"] == "base" and first["values"]["chroma"] is None
    assert second["values"]["chroma"] == {
        "mean": 25.0,
        "standard_error": None,
        "prompts": 1,
        "by_prompt": {"mug": 25.0},
    }


def test_unknown_columns_are_refused(results):
    with pytest.raises(ValueError, match="no column 'clip'; the columns are classifier, chroma"):
        results.add("top", "clip", "mug", [1.0])
