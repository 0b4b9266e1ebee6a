# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's fingerprint: prompt, model contents, scene, identity settings and initial field."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import REFINE_PRESET
from dreamwright.backend.config.recipes.starter import REFINE
from dreamwright.backend.errors import ConfigError, ModelError
from dreamwright.backend.starter.architecture import build_parts, save_pipeline
from dreamwright.backend.training.job import Job, identify_model, make_job
from tests.testing.tiny_model import TINY, quick_config, save_tiny_model


def field_job(model: str = "oracle", **changes: object) -> Job:
    return replace(make_job("a ball", model, "draft", quick_config()), **changes)


def test_model_is_identified_by_its_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, an absolute one, a link and a copy are one model; other weights at the same path are another."""
    import torch

    first = save_tiny_model(tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(first, tmp_path / "copy")
    (tmp_path / "link").symlink_to(first)
    names = ("./first", str(first), "link", "copy", "first/")
    same = {identify_model(field_job(name)).fingerprint() for name in names}
    assert len(same) == 1
    shutil.rmtree(first)
    save_pipeline(build_parts(1, TINY), first, torch.float32)  # same files, same sizes, other numbers
    assert identify_model(field_job("./first")).fingerprint() not in same
    assert identify_model(field_job("copy")).fingerprint() in same


def test_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        identify_model(field_job(str(tmp_path / "nothing")))


def test_fingerprint_covers_all_identity_settings() -> None:
    job = field_job()
    others = [
        field_job(prompt="a cube"),
        field_job(model="other"),
        field_job(model_digest="1" * 64),
        field_job(initial_field="2" * 64),
        field_job(input_mesh="3" * 64),
        field_job(config=quick_config("guidance.omega=7")),
    ]
    assert len({other.fingerprint() for other in (job, *others)}) == len(others) + 1
    digests = [field_job(model=name, model_digest="1" * 64).fingerprint() for name in ("a", "b")]
    assert digests[0] == digests[1], "with a digest the path is not part of the fingerprint"


def test_mesh_job_uses_the_refine_preset() -> None:
    digest = "4" * 64
    job = make_job("an egg", "starter", REFINE_PRESET, REFINE, input_mesh=digest)
    assert (job.scene, field_job().scene) == ("mesh", "field")
    at_once = replace(job, config=apply_settings(REFINE, ["run.views_at_once=1", "run.threads=2"]))
    assert at_once.fingerprint() == job.fingerprint(), "memory settings and threads are not part of the fingerprint"
    stronger = replace(job, config=apply_settings(REFINE, ["refine.strength=0.9"]))
    assert stronger.fingerprint() != job.fingerprint()
    with pytest.raises(ConfigError, match="'draft' makes props without a mesh.*'refine'"):
        make_job("an egg", "starter", "draft", quick_config(), input_mesh=digest)
    with pytest.raises(ConfigError, match="field.kind means nothing"):
        make_job("an egg", "starter", REFINE_PRESET, apply_settings(REFINE, ["field.kind=mip-mlp"]), input_mesh=digest)
