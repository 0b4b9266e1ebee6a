# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of the documents are those of the JSON files that the commands write, with the rounding of the tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.evaluation.r_precision import MethodResult, to_json
from dreamwright.backend.evaluation.results_table import Column, ResultsTable, percentage
from dreamwright.backend.evaluation.retrieval import RPrecision
from dreamwright.backend.evaluation.starter import failed_result
from dreamwright.backend.evaluation.starter_report import BARS, report
from tools.docs import figure_tables

WEIGHTS = {"unet/diffusion_pytorch_model.safetensors": "0123456789abcdef", "text_encoder/model.safetensors": "f" * 16}


def written(folder: Path, name: str, record: Any) -> Path:
    """The folder, with the record in it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")
    return folder


def cells(text: str) -> dict[str, list[str]]:
    """Cells of a table's rows by their first one."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {line[0]: line[1:] for line in lines if not line[0].startswith("---")}


@pytest.fixture
def evaluations(tmp_path: Path) -> dict[str, Path]:
    """Two prompts by both presets: one right in every way, one named by its color alone; `standard` is all right."""
    right = replace(
        failed_result("a red mushroom", seconds=80.0), silhouette_iou=0.9, color_right=True, geometry_right=True
    )
    half = replace(failed_result("a blue chair", seconds=104.4), silhouette_iou=0.7, color_right=True)
    rows = {"draft": [right, half], "standard": [right, replace(half, geometry_right=True)]}
    return {
        f"{preset}-evaluation": written(tmp_path / preset, "out/evaluation.json", report(results, preset))
        for preset, results in rows.items()
    }


def test_readme_names_means_and_counts(evaluations: dict[str, Path]) -> None:
    text = figure_tables.readme_sentence(evaluations)
    assert "All 2 results" in text and "silhouette IoU 0.80 against" in text
    assert "names 2 of 2 by color and\n1 of 2 by shape" in text and "With `standard`: 0.80, 2 and 2." in text


def test_evaluation_has_every_bar_with_its_target_and_the_range(evaluations: dict[str, Path]) -> None:
    text = figure_tables.evaluation_table(evaluations)
    found = cells(text)
    labels = {bar.name: bar.label for bar in BARS}
    assert set(labels.values()) <= set(found)
    assert found[labels["silhouette_iou"]] == ["0.8", "≥ 0.87", "0.8", "≥ 0.9"]
    assert found[labels["named_bare"]] == ["50%", "≥ 90%", "100%", "≥ 96%"]
    assert found[labels["open_holes"]][0] == "—", "neither prop has a hole"
    assert found["silhouette IoU, lowest and highest"][0] == "0.70, 0.90"
    assert found["seconds a prompt, lowest and highest"][0] == "80, 104"
    assert "2 prompts of 1 seed(s)" in text


def suite(rows: dict[str, dict[str, float]], *columns: Column, **more: Any) -> dict[str, Any]:
    """The record of a suite whose first column has these values by row and prompt, and whose others have their half."""
    table = ResultsTable(columns)
    for row, values in rows.items():
        for prompt, value in values.items():
            for place, column in enumerate(columns):
                table.add(row, column.name, prompt, [value / (1 + place)])
    return {"weights": WEIGHTS, "rows": table.to_json(), **more}


def test_ablation_pairs_the_last_stage_with_the_base(tmp_path: Path) -> None:
    rows = {"base": {"a": 0.5, "b": 1.0}, "+ViewAug": {"a": 0.0, "b": 0.0}, "+Textureless": {"a": 0.25, "b": 0.25}}
    record = suite(rows, percentage("classifier: albedo"), stages=[{"name": name} for name in rows])
    text = figure_tables.ablation_table({"ablation": written(tmp_path, "out/ablation.json", record)})
    found = cells(text)
    # The deviation of two values is their distance over sqrt(2), and the error of the mean half of the distance.
    assert found["base"] == ["75 ± 25"] and found["+Textureless"] == ["25 ± 0"]
    assert found["last minus base, paired"] == ["-50 ± 25"]
    assert "U-Net of sha256 01234567..." in text and len(found) == 5, "a head, three stages and the change"


def test_sweep_and_guidance_2d_round_by_column(tmp_path: Path) -> None:
    chroma, seeds = Column("mean chroma of the albedo", digits=1), Column("distance of seeds", digits=3)
    sweep = suite({"3": {"a": 0.24}}, percentage("classifier: albedo"), chroma, seeds)
    text = figure_tables.sweep_table({"sweep": written(tmp_path, "out/sweep.json", sweep)})
    assert cells(text)["3"] == ["24", "0.1", "0.080"]
    names = ("prop", *figure_tables.GUIDANCE_2D_COLUMNS)
    figure_2 = suite({"3: sds": {"a": 1.0, "b": 1.0}}, *(Column(name) for name in names))
    text = figure_tables.guidance_2d_table({"guidance-2d": written(tmp_path, "out/guidance-2d.json", figure_2)})
    assert cells(text)["3: sds"] == ["50 ± 0", "0.3 ± 0.0", "0.2500 ± 0.0000", "0.200 ± 0.000", "0.167 ± 0.000"]


def test_baselines_mark_the_guiding_model_and_average_seconds(tmp_path: Path) -> None:
    values = {"starter-clip": {"color": RPrecision(0.5, 0.125, 2, 16), "textureless": None}}
    rows = [MethodResult("oracle", "", values), MethodResult("clip-mesh", "starter-clip", values)]
    jobs = [{"method": "clip-mesh", "seconds": seconds} for seconds in (40.0, 43.0)]
    record = to_json(rows, ["a", "b"], ["a", "b"], {"jobs": jobs})
    text = figure_tables.baselines_table({"baselines": written(tmp_path, "out/baselines.json", record)})
    assert cells(text)["oracle"] == ["50.0 ± 12.5", "—"] and cells(text)["clip-mesh"] == ["(50.0 ± 12.5)", "—"]
    assert text.endswith("Seconds for one prop on one thread: clip-mesh 42.")


def test_step_time_has_every_part_the_longest_first(tmp_path: Path) -> None:
    draft = {"settings": [], "step_ms": 30.4, "parts_ms": {"backward": 10.0, "rendering": 20.4}, "peak_gb": 0.5}
    paper = {"settings": ["run.views_per_step=1"], "step_ms": 5.0, "parts_ms": {"backward": 5.0}, "peak_gb": 1.25}
    record = {"torch": "2.0", "threads": 2, "load": 0.06, "presets": {"draft": draft, "paper": paper}}
    text = figure_tables.step_time_table({"step-time": written(tmp_path, "out/step-time.json", record)})
    found = cells(text)
    assert list(found)[1:3] == ["rendering", "backward"]
    assert found["rendering"] == ["20", "-"] and found["**whole step**"] == ["**30**", "**5**"]
    assert text.startswith("torch 2.0, 2 threads, load 0.1 before the start; paper with run.views_per_step=1:")


def test_sample_quality_has_a_column_for_each_number_of_steps(tmp_path: Path) -> None:
    for steps in (40, 25):
        shares = dict.fromkeys(("prop", "color", "prop_and_color", "view_of_props_with_front"), steps / 100)
        record = {
            "samples": 256,
            "steps": steps,
            "omega": 3.0,
            "opposite_weight": 1.0,
            **shares,
            "by_view": {"back": 1},
        }
        written(tmp_path, f"{steps}-steps/quality.json", record)
    text = figure_tables.sample_quality_table({"starter-samples": tmp_path})
    assert cells(text)["prop and color"] == ["40%", "25%"] and cells(text)["the same by view: back"] == ["100%"] * 2
    assert text.startswith("256 ancestral samples, omega 3, weight 1 of")


@pytest.mark.parametrize(("seconds", "shown"), [(160.4, "2 minutes 40 seconds"), (59.4, "59 seconds")])
def test_first_prop_says_steps_and_time(seconds: float, shown: str, tmp_path: Path) -> None:
    moments = [{"name": "early", "step": 25}, {"name": "late", "step": 575}]
    record = {"moments": moments, "job": ["succeeded", "", 700, seconds]}
    folders = {"first-prop": written(tmp_path, "report.json", record)}
    assert figure_tables.first_prop_moment("late")(folders) == "*Step 575 of 700.*"
    assert figure_tables.first_prop_seconds(folders) == f"The job in the screenshots took {shown}."
