# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings, checkpoints and submissions that clip-mesh accepts and refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dreamwright.backend.cli.generate import job_from
from dreamwright.backend.cli.main import build_parser
from dreamwright.backend.config.recipes.clip import CLIP_MESH, CLIP_MESH_PAPER
from dreamwright.backend.config.recipes.starter import DRAFT
from dreamwright.backend.config.schema import SphereConfig
from dreamwright.backend.errors import CheckpointError, ConfigError, ModelError
from dreamwright.backend.scenes.initial_field import InitialField
from dreamwright.backend.server.requests import check_submission
from dreamwright.backend.training.events import Checkpoint
from dreamwright.backend.training.job import make_job
from dreamwright.backend.training.methods import METHODS, uses
from dreamwright.backend.training.pipeline import TextTo3DPipeline
from dreamwright.shared.messages import SubmitJob
from tests.testing.clip_mesh_runs import PROMPT, quick_clip_mesh


def parsed_job(*given: str) -> object:
    return job_from(build_parser().parse_args(["generate", PROMPT, "--method", "clip-mesh", *given]))


def test_method_sets_preset_and_model() -> None:
    job = parsed_job()
    assert (job.preset, job.model, job.config) == ("clip-mesh", "starter-clip", CLIP_MESH)
    assert parsed_job("--preset", "clip-mesh-paper").config == CLIP_MESH_PAPER
    assert METHODS["clip-mesh"].kind == "image-text"


@pytest.mark.parametrize(
    "setting",
    [
        "field.kind=voxels",
        "guidance.omega=7",
        "guidance.guidance_scale=7",
        "mesh.resolution=64",
        "mesh.texture=512",
        "optimizer.learning_rate=0.1",
        "render.samples=16",
        "background.random_probability=0.5",
        "regularizers.transmittance=0.5",
        "refine.strength=0.5",
        "refine.positions=false",
        "run.max_restarts=1",
        "text.cache=false",
    ],
)
def test_settings_of_fields_are_refused_by_name(setting: str) -> None:
    name = setting.partition("=")[0].replace("guidance_scale", "omega")
    with pytest.raises(
        ConfigError,
        match=f"{name} means nothing to clip-mesh; allowed are the settings that .*settings.md lists.*leave it out",
    ) as caught:
        parsed_job("--set", setting)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["sphere.subdivisions=7", "sphere.radius=0.9", "refine.normals=-1", "sphere.grey=0.5"]
)
def test_invalid_sphere_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="(sphere|refine).*(allowed|did you mean)"):
        parsed_job("--set", setting)


def test_sphere_settings_are_refused_for_fields() -> None:
    for preset in ("draft", "dream-fields"):
        with pytest.raises(ConfigError, match="sphere.radius means nothing to"):
            job_from(build_parser().parse_args(["generate", PROMPT, "--preset", preset, "--set", "sphere.radius=0.2"]))
    assert (
        uses("clip-mesh", "sphere.radius")
        and uses("clip-mesh", "run.steps")
        and not uses("clip-mesh", "nonsense.x")
        and uses("dreamfusion", "field.kind")
    )


def test_initial_field_and_several_processes_are_refused(clip_folder: Path) -> None:
    from dreamwright.backend.runtime.distributed import SingleProcess

    job = make_job(PROMPT, str(clip_folder), "clip-mesh", quick_clip_mesh())
    with pytest.raises(CheckpointError, match="begins from a sphere"):
        TextTo3DPipeline(job, "cpu", None, lambda: False, initial_field=InitialField({}, "a ball", "0" * 64))

    class Two(SingleProcess):
        world_size = 2

    with pytest.raises(ConfigError, match="runs in one process, not in 2"):
        TextTo3DPipeline(job, "cpu", None, lambda: False, Two())


def test_checkpoint_of_another_sphere_is_refused(clip_folder: Path) -> None:
    job = make_job(PROMPT, str(clip_folder), "clip-mesh", quick_clip_mesh())
    others = [
        quick_clip_mesh("refine.normals=0.9"),
        quick_clip_mesh("refine.stiffness=3"),
        quick_clip_mesh("refine.laplacian=3"),
    ]
    same = [
        quick_clip_mesh("run.threads=1"),
        quick_clip_mesh("run.views_at_once=1"),
        quick_clip_mesh("mesh.height_m=2"),
        quick_clip_mesh("run.preview_interval=1"),
    ]
    assert len({job.fingerprint(), *(replace(job, config=config).fingerprint() for config in others)}) == 4
    assert {replace(job, config=config).fingerprint() for config in same} == {job.fingerprint()}
    field = make_job(PROMPT, "starter", "draft", DRAFT)  # unfinished runs of versions without sphere scenes must resume
    assert field.fingerprint() == replace(field, config=replace(DRAFT, sphere=SphereConfig(radius=0.2))).fingerprint()
    state = next(
        e.state for e in TextTo3DPipeline(job, "cpu", None, lambda: False).events() if isinstance(e, Checkpoint)
    )
    with pytest.raises(CheckpointError, match="does not fit this mesh"):
        TextTo3DPipeline(
            make_job(PROMPT, str(clip_folder), "clip-mesh", quick_clip_mesh("sphere.subdivisions=1")),
            "cpu",
            state,
            lambda: False,
        )


def test_submission_is_checked_by_preset() -> None:
    job = check_submission(SubmitJob("t" * 16, PROMPT, "", "starter-clip", "clip-mesh", 5, {}))
    assert job.config.run.method == "clip-mesh" and job.config.run.seed == 5
    with pytest.raises(ModelError, match="cannot guide clip-mesh; allowed are starter-clip"):
        check_submission(SubmitJob("t" * 16, PROMPT, "", "starter", "clip-mesh", 0, {}))
    with pytest.raises(ConfigError, match="mesh.triangles means nothing to clip-mesh"):
        check_submission(SubmitJob("t" * 16, PROMPT, "", "starter-clip", "clip-mesh", 0, {"mesh.triangles": 100}))
