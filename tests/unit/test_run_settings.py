# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of results folders: equal settings are accepted again, others are refused with the differences."""

from __future__ import annotations

import hashlib
import json

import pytest

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.recipes.starter import DRAFT
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.evaluation.run_settings import record_run_settings, result_settings, weight_hashes


def test_other_plans_are_refused_with_the_differences(tmp_path):
    out = tmp_path / "deep" / "out"
    plan = {"suite": "sweep", "settings": result_settings(DRAFT), "weights": {"unet": "12ab"}}
    record_run_settings(out, plan)
    record_run_settings(out, plan)
    assert json.loads((out / "plan.json").read_text())["suite"] == "sweep"
    changed = {
        **plan,
        "settings": result_settings(apply_settings(DRAFT, ["run.steps=100"])),
        "weights": {"unet": "34cd"},
    }
    with pytest.raises(
        ConfigError,
        match=f"settings.run.steps was {DRAFT.run.steps}, is 100; weights.unet was 12ab, is 34cd; allowed are the same",
    ):
        record_run_settings(out, changed)
    with pytest.raises(
        ConfigError,
        match="suite was sweep, is ablation; settings.run.method was dreamfusion, is unset; .* and 1[0-9]+ more;",
    ):
        record_run_settings(out, {"suite": "ablation", "weights": {"unet": "12ab"}})


def test_settings_of_the_machine_are_not_part_of_the_plan():
    same = apply_settings(DRAFT, ["run.threads=1", "run.seed=7", "run.checkpoint_interval=3"])
    assert result_settings(same) == result_settings(DRAFT)
    assert result_settings(apply_settings(DRAFT, ["mesh.resolution=64"])) != result_settings(DRAFT)


@pytest.mark.parametrize("content", ["no json", "[]"])
def test_damaged_plans_and_unwritable_folders_are_refused(content, tmp_path):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ConfigError, match="plan.json cannot be read .*; give another folder with --out"):
        record_run_settings(tmp_path, {"suite": "sweep"})
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="give another"):
        record_run_settings(tmp_path / "file" / "out", {"suite": "sweep"})


def test_weight_hashes_are_sha256(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "w.safetensors").write_bytes(b"weights")
    (tmp_path / "model_index.json").write_text("{}")
    assert weight_hashes(str(tmp_path)) == {"unet/w.safetensors": hashlib.sha256(b"weights").hexdigest()[:16]}
