# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe follows from the model's index alone; wrong combinations are one line before a weight is read."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dreamwright.backend.cli import generate, refine
from dreamwright.backend.config.presets import RECIPES
from dreamwright.backend.config.recipes.recipe import Family
from dreamwright.backend.errors import ConfigError, DreamwrightError, ModelError
from dreamwright.backend.server.jobs.durations import duration_key
from dreamwright.backend.server.offered_settings import recipe_infos
from dreamwright.backend.server.requests import job_of
from dreamwright.backend.training.job import make_job
from dreamwright.backend.training.recipe_choice import choose_recipe, family_of_folder
from dreamwright.shared.messages import JobSummary, SubmitJob
from tests.testing.primitive_meshes import icosphere
from tests.testing.recipe_folders import write_all
from tests.testing.tiny_clip import write_clip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    """Indexes alone: nothing else may be read."""
    made = write_all(tmp_path_factory.mktemp("models"))
    for folder in made.values():
        for path in folder.rglob("*"):
            if path.is_file() and path.name not in ("model_index.json", "domain.json"):
                path.unlink()
    return made


def parsed_job(prompt: str, *options: str):
    parser = argparse.ArgumentParser()
    generate.add_arguments(parser.add_subparsers())
    return generate.job_from(parser.parse_args(["generate", prompt, *options]))


@pytest.mark.parametrize("family", [family for family in RECIPES if family != "clip"])
def test_family_is_that_of_the_index(folders: dict[Family, Path], family: Family) -> None:
    folder = folders[family]
    assert family_of_folder(folder) == family
    assert choose_recipe("draft", str(folder)) is RECIPES[family]["draft"]
    assert choose_recipe(f"{family}/standard", str(folder)) is RECIPES[family]["standard"]
    assert choose_recipe("refine", str(folder), has_mesh=True) is RECIPES[family]["refine"]


def test_packaged_models_have_their_own_recipes(tmp_path: Path) -> None:
    assert choose_recipe("draft", "starter").family == "starter"
    assert choose_recipe("dream-fields", "starter-clip") is RECIPES["clip"]["dream-fields"]
    assert family_of_folder(write_clip(tmp_path / "clip")) == "clip"


@pytest.mark.parametrize("family", ["pixel", "latent", "sdxl", "flow", "multi-view"])
def test_generate_takes_the_recipe_of_the_models_family(folders: dict[Family, Path], family: Family) -> None:
    job = parsed_job("a dragon", "--model", str(folders[family]), "--set", "run.steps=7")
    wanted = RECIPES[family]["draft"].config
    assert job.config == replace(wanted, run=replace(wanted.run, steps=7))
    assert (job.preset, job.family, job.recipe) == ("draft", family, f"{family}/draft")
    explicit = parsed_job("a dragon", "--model", str(folders[family]), "--preset", f"{family}/draft")
    assert explicit.config == wanted and explicit.recipe == f"{family}/draft"
    assert explicit.fingerprint() == replace(explicit, preset="draft").fingerprint()


def test_wrong_combinations_name_what_is_right(folders: dict[Family, Path], tmp_path: Path) -> None:
    latent, sdxl = str(folders["latent"]), str(folders["sdxl"])
    (tmp_path / "plain").mkdir()
    cases: list[tuple[type[DreamwrightError], str, tuple[str, ...]]] = [
        (ConfigError, "choose latent/draft", ("--model", latent, "--preset", "multi-view/draft")),
        (ConfigError, "no preset 'paper' for SDXL models.*allowed are draft, standard", (
            "--model", sdxl, "--preset", "paper")),
        (ConfigError, "unknown preset 'ultra'", ("--model", latent, "--preset", "ultra")),
        (ModelError, "unknown model 'no-such'", ("--model", "no-such")),
        (ModelError, "no model folder", ("--model", "./nothing")),
        (ModelError, "no model_index.json", ("--model", str(tmp_path / "plain"))),
        (ModelError, "cannot guide dream-fields", ("--model", latent, "--preset", "dream-fields")),
        (ModelError, "cannot guide dreamfusion", ("--model", "starter-clip", "--preset", "draft")),
        (ConfigError, "preset 'draft' is one of dreamfusion", ("--method", "clip-mesh", "--preset", "draft")),
    ]  # fmt: skip
    for kind, words, options in cases:
        with pytest.raises(kind, match=words) as caught:
            parsed_job("a dragon", *options)
        assert "\n" not in str(caught.value), options


def test_unsupported_pipelines_are_model_errors(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionInpaintPipeline"}')
    with pytest.raises(ModelError, match="is a StableDiffusionInpaintPipeline; allowed are"):
        choose_recipe("draft", str(tmp_path))


def submission(folder: Path, preset: str = "draft", **fields: object) -> SubmitJob:
    return replace(SubmitJob("t" * 32, "a dragon", "", str(folder), preset, 3, {}), **fields)


def test_servers_jobs_take_the_recipe_of_the_family(folders: dict[Family, Path]) -> None:
    job = job_of(submission(folders["multi-view"]))
    own = RECIPES["multi-view"]["draft"].config
    assert job.family == "multi-view" and job.config == replace(own, run=replace(own.run, seed=3))
    assert job.config.guidance.negative_prompt.startswith("ugly, "), "the recipe's, as the request has none"
    assert job_of(submission(folders["multi-view"], negative="wings")).config.guidance.negative_prompt == "wings"
    with pytest.raises(ConfigError, match="choose flow/draft"):
        job_of(submission(folders["flow"], "latent/draft"))
    refined = job_of(submission(folders["latent"], "refine", mesh="0" * 64))
    assert refined.config.guidance.omega == 100 and refined.scene == "mesh"


def test_durations_are_kept_by_recipe(folders: dict[Family, Path]) -> None:
    """The same names mean other work for another family, and the same work with and without the family's name."""
    model, numbers = str(folders["latent"]), (0, 100, 0.0, -1.0, 1, "", "", 0.0, 0, "", 0)
    job = JobSummary("j", "queued", "a dragon", "", model, "draft", 0, {}, *numbers)
    assert duration_key(job) == duration_key(replace(job, preset="latent/draft"))
    assert '"hash-grid"' in duration_key(job) and '"voxels"' in duration_key(replace(job, model="starter"))
    assert duration_key(replace(job, model="no/such")) != duration_key(job), "a model that is gone has a key as well"


def test_recipes_are_offered_with_their_defaults() -> None:
    infos = {(info.family, info.preset): info for info in recipe_infos()}
    assert {f"{family}/{name}" for family, name in infos} == {r.path for f in RECIPES.values() for r in f.values()}
    latent = infos["latent", "standard"]
    assert latent.steps == 10000 and latent.defaults["guidance.omega"] == 100 and "dreamfusion-sd" in latent.notice
    assert (
        "run.steps" in infos["latent", "refine"].defaults
        and "mesh.resolution" not in infos["latent", "refine"].defaults
    )


def test_refine_command_takes_the_recipe_of_the_family(folders: dict[Family, Path]) -> None:
    from dreamwright.backend.geometry.input_mesh import make_input_mesh

    parser = argparse.ArgumentParser()
    refine.add_arguments(parser.add_subparsers())
    options = parser.parse_args(["refine", "egg.glb", "an egg", "--model", str(folders["pixel"])])
    vertices, faces = icosphere(1, 1.0)
    job = refine.job_from(options, make_input_mesh(vertices, faces, np.full(vertices.shape, 0.5)))
    assert job.recipe == "pixel/refine" and job.config == RECIPES["pixel"]["refine"].config


def test_settings_of_another_rule_are_judged_by_the_recipe() -> None:
    """vsd's settings are the recipe's own, and mean nothing once another rule is chosen only if they were changed."""
    config = RECIPES["latent"]["paper"].config
    other = replace(config, guidance=replace(config.guidance, rule="sds"))
    assert make_job("a dragon", "m", "paper", other, family="latent").recipe == "latent/paper"
    with pytest.raises(ConfigError, match=r"guidance\.lora_rank means nothing"):
        changed = replace(other, guidance=replace(other.guidance, lora_rank=8))
        make_job("a dragon", "m", "paper", changed, family="latent")
