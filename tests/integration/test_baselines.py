# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of a method comparison: one job each, stored, resumed, and scored as wrong when they fail."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dreamwright.backend.cli.evaluate import SUITES
from dreamwright.backend.cli.main import build_parser, main
from dreamwright.backend.errors import ConfigError, StoppedError
from dreamwright.backend.evaluation import baselines
from dreamwright.backend.evaluation.baselines import (
    Experiment,
    experiment_job,
    experiments,
    job_fingerprint,
    load_result,
    run_experiment,
)
from dreamwright.backend.training.events import StepCompleted
from tests.testing.tiny_clip import write_clip
from tests.testing.tiny_model import QUICK

TINY = (*QUICK, "render.coarse_resolution=0", "clip.crops=2", "mesh.threshold=0.5")
EXPERIMENT = Experiment("dream-fields", "a red mushroom", 3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def job(clip):
    return experiment_job(EXPERIMENT, TINY, {"dream-fields": str(clip)})


def test_experiments_are_ordered_by_prompt():
    planned = experiments(["dreamfusion", "dream-fields"], ["a", "b"], 2)
    assert [(c.seed, c.prompt, c.method) for c in planned[:3]] == [
        (0, "a", "dreamfusion"),
        (0, "a", "dream-fields"),
        (0, "b", "dreamfusion"),
    ]
    assert len(planned) == 8 and planned[4].seed == 1


def test_job_has_the_methods_preset_and_the_seed(job):
    assert job.preset == "dream-fields" and job.config.run.seed == 3 and job.config.run.method == "dream-fields"
    assert experiment_job(Experiment("dreamfusion", "a red mushroom", 0)).model == "starter"


def test_settings_apply_to_methods_that_read_them():
    settings = ("run.steps=7", "field.voxel_resolutions=6,12", "sphere.radius=0.2")
    mesh, field = (
        experiment_job(Experiment(method, "a red mushroom", 0), settings).config
        for method in ("clip-mesh", "dream-fields")
    )
    assert mesh.run.steps == field.run.steps == 7
    assert (mesh.sphere.radius, field.sphere.radius) == (0.2, 0.35) and field.field.voxel_resolutions == (
        6,
        12,
    ) != mesh.field.voxel_resolutions
    with pytest.raises(ConfigError, match="field.voxels"):
        experiment_job(Experiment("clip-mesh", "a red mushroom", 0), ("field.voxels=3",))


def test_results_are_kept_until_the_settings_change(job, clip, tmp_path):
    result, mesh = run_experiment(job, tmp_path, "cpu")
    assert not result.error and len(mesh.faces) > 10 and not (tmp_path / "work").exists()
    again, same = load_result(tmp_path, job_fingerprint(job))
    assert again == result and np.array_equal(same.vertices, mesh.vertices)
    other = experiment_job(EXPERIMENT, (*TINY, "mesh.resolution=20"), {"dream-fields": str(clip)})
    assert load_result(tmp_path, job_fingerprint(other)) is None
    assert load_result(tmp_path / "nowhere", job_fingerprint(job)) is None


def test_stopped_experiment_resumes_to_the_same_mesh(job, tmp_path):
    whole = run_experiment(job, tmp_path / "whole", "cpu")[1]
    steps: list[int] = []

    def watch(event):
        if isinstance(event, StepCompleted):
            steps.append(event.step)

    with pytest.raises(StoppedError, match="the same command continues there"):
        run_experiment(job, tmp_path / "cut", "cpu", lambda: steps[-1:] == [3], watch)
    assert load_result(tmp_path / "cut", job_fingerprint(job)) is None
    mesh = run_experiment(job, tmp_path / "cut", "cpu", watch=watch)[1]
    assert steps == [1, 2, 3, 4, 5, 6] and np.array_equal(mesh.vertices, whole.vertices)


def test_checkpoint_of_other_settings_is_not_resumed(job, clip, tmp_path):
    steps: list[int] = []

    def watch(event):
        if isinstance(event, StepCompleted):
            steps.append(event.step)

    with pytest.raises(StoppedError):
        run_experiment(job, tmp_path, "cpu", lambda: steps[-1:] == [3], watch)
    other = experiment_job(EXPERIMENT, (*TINY, "run.steps=4"), {"dream-fields": str(clip)})
    result, mesh = run_experiment(other, tmp_path, "cpu", watch=watch)
    assert steps == [1, 2, 3, 1, 2, 3, 4] and not result.error and len(mesh.faces)


def test_failed_job_is_kept_with_its_error(job, tmp_path):
    failing = experiment_job(EXPERIMENT, (*TINY, "mesh.threshold=999999"), {"dream-fields": job.model})
    result, mesh = run_experiment(failing, tmp_path, "cpu")
    assert mesh is None and result.error
    assert load_result(tmp_path, job_fingerprint(failing)) == (result, None)


@pytest.mark.slow
def test_command_writes_the_table_and_repeats_nothing(clip, tmp_path, monkeypatch, capsys):
    made = []
    real = baselines.run_experiment
    monkeypatch.setattr(baselines, "run_experiment", lambda job, *rest: made.append(job.prompt) or real(job, *rest))
    monkeypatch.setattr(
        baselines,
        "experiment_job",
        lambda experiment, given: experiment_job(experiment, given, {"dream-fields": str(clip)}),
    )
    arguments = [
        "evaluate",
        "baselines",
        "--prompts",
        "2",
        "--methods",
        "dream-fields",
        "--models",
        "classifier",
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    for setting in TINY:
        arguments += ["--set", setting]
    assert main(arguments) == 0 and len(made) == 2
    table = capsys.readouterr().out
    assert "8 views at 45 degrees of elevation" in table
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")] == [
        "method",
        "---",
        "oracle (reference props)",
        "dream-fields",
    ]
    assert (tmp_path / "out" / "dream-fields" / "a-blue-chair.0" / "turntable.png").is_file()
    with Image.open(tmp_path / "out" / "baselines.png") as sheet:
        assert sheet.size == (4 + 2 * (3 * 96 + 4), 14 + 2 * (96 + 14)), "the oracle and the method, two prompts"
        oracle, made_tile = (np.asarray(sheet)[28 + 48, left + 20 : left + 80].std() for left in (4, 4 + 3 * 96 + 4))
    # Levels of 8 bits: a blank tile has a deviation of 0, and single levels in all pixels have 0.5.
    assert oracle > 5 and made_tile > 1, "the first tile of each row shows a prop"
    assert main(arguments) == 0 and len(made) == 2 and capsys.readouterr().out == table
    assert main([*arguments, "--prompts", "0"]) == 2


def test_every_suite_has_help():
    for suite in SUITES:
        with pytest.raises(SystemExit) as end:
            build_parser().parse_args(["evaluate", suite, "--help"])
        assert end.value.code == 0
