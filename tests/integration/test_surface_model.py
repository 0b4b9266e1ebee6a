# SPDX-License-Identifier: GPL-3.0-or-later
"""A field by one model and its mesh by another, as in Magic3D: one in memory at a time, and resumed exactly."""

from __future__ import annotations

import argparse
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamwright.backend.cli import generate
from dreamwright.backend.config.presets import RECIPES, get_preset
from dreamwright.backend.config.recipes.recipe import Family
from dreamwright.backend.config.schema import Config
from dreamwright.backend.errors import ConfigError, DreamwrightError, ModelError
from dreamwright.backend.geometry.build import Mesh
from dreamwright.backend.scenes.field_surface_scene import FieldSurfaceScene
from dreamwright.backend.server.requests import check_submission
from dreamwright.backend.training import guidance_loading
from dreamwright.backend.training.checkpoints import read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Checkpoint, Finished
from dreamwright.backend.training.job import Job, identify_model, make_job
from dreamwright.backend.training.pipeline import TextTo3DPipeline
from dreamwright.backend.training.recipe_choice import recipe_config
from dreamwright.shared.messages import SubmitJob
from tests.integration.test_recipe_runs import FIELD_SIZES, PROMPT, SIZES
from tests.testing.recipe_folders import WRITERS

SMALL = (*SIZES, *FIELD_SIZES, "surface.steps=2", "surface.resolution=16", "mesh.texture=64")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    top = tmp_path_factory.mktemp("models")
    return {family: WRITERS[family](top / family) for family in ("pixel", "latent", "starter", "multi-view")}


def job_of_two(folders: dict[Family, Path], *settings: str) -> Job:
    recipe = get_preset("fine", "pixel")
    config = recipe_config(recipe, [*SMALL, f"surface.model={folders['latent']}", *settings])
    return identify_model(make_job(PROMPT, str(folders["pixel"]), "fine", config, family="pixel"))


@pytest.fixture(scope="module")
def whole(folders: dict[Family, Path]) -> Mesh:
    """The mesh of an undisturbed run."""
    pipeline = TextTo3DPipeline(job_of_two(folders), "cpu")
    assert finished(pipeline)
    return pipeline.mesh()[0]


class Loads:
    """The folders whose networks were loaded, in order, and how many networks were alive at most."""

    def __init__(self, load: Callable[..., Any]) -> None:
        self._load, self.names, self.most = load, list[str](), 0
        self._networks: list[weakref.ref[Any]] = []

    def __call__(self, folder: Path, *arguments: Any, **options: Any) -> Any:
        gc.collect()
        denoiser = self._load(folder, *arguments, **options)
        self.names.append(denoiser.network.__class__.__name__ + ("+VAE" if hasattr(denoiser, "vae") else ""))
        self._networks.append(weakref.ref(denoiser.network))
        self.most = max(self.most, sum(network() is not None for network in self._networks))
        return denoiser


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    found = Loads(guidance_loading.load_denoiser)
    monkeypatch.setattr(guidance_loading, "load_denoiser", found)
    return found


def finished(pipeline: TextTo3DPipeline) -> bool:
    return [event.complete for event in pipeline.events() if isinstance(event, Finished)] == [True]


def test_settings_of_the_stage_are_those_of_the_second_models_family(folders: dict[Family, Path]) -> None:
    config = recipe_config(get_preset("fine", "pixel"), [f"surface.model={folders['latent']}", "surface.steps=7"])
    pixel, latent = (RECIPES[family]["fine"].config for family in ("pixel", "latent"))
    assert config.guidance == pixel.guidance and config.field == pixel.field and config.run == pixel.run
    assert config.surface.omega == latent.surface.omega == 100 and config.guidance.omega == 20
    assert config.surface.resolution == 512 and config.mesh.texture == latent.mesh.texture
    assert config.surface.steps == 7, "a setting that is given goes before"
    assert recipe_config(get_preset("fine", "pixel"), ["surface.model="]) == pixel


def test_one_model_is_in_memory_at_a_time(folders: dict[Family, Path], loads: Loads) -> None:
    """The second is loaded once at the start, to be checked, then the first, and the second again after the field."""
    pipeline = TextTo3DPipeline(job_of_two(folders), "cpu")
    assert len(loads.names) == 2 and "+VAE" in loads.names[0] and "+VAE" not in loads.names[1]
    assert any("second stage by" in notice and "omega 100" in notice for notice in pipeline.notices)
    assert finished(pipeline) and len(loads.names) == 3 and loads.names[2] == loads.names[0]
    assert loads.most == 1
    mesh, report = pipeline.mesh()
    assert mesh.texture is not None and report.texture == 64
    assert pipeline.provenance()["surface_model"] == str(folders["latent"])
    scene = pipeline.scene
    assert isinstance(scene, FieldSurfaceScene) and scene.surface is not None
    assert scene.surface.prompts is not scene.prompts


@pytest.mark.parametrize("step", [2, 4, 5])
def test_resume_in_each_stage_is_exact(
    folders: dict[Family, Path], step: int, whole: Mesh, tmp_path: Path, loads: Loads
) -> None:
    job, running = job_of_two(folders), list[TextTo3DPipeline]()
    stopped = TextTo3DPipeline(job, "cpu", should_stop=lambda: bool(running) and running[0].step >= step)
    running.append(stopped)
    kept = [event.state for event in stopped.events() if isinstance(event, Checkpoint)]
    write_checkpoint(tmp_path, job, kept[-1])
    loads.names.clear()
    resumed = TextTo3DPipeline(job, "cpu", read_checkpoint(tmp_path, job).state)
    assert len(loads.names) == (2 if step < 4 else 1), "a run in its second stage has no use for the first model"
    assert resumed.step == step and finished(resumed)
    first, second = whole, resumed.mesh()[0]
    assert first.texture is not None and second.texture is not None
    assert np.array_equal(first.vertices, second.vertices) and np.array_equal(first.faces, second.faces)
    assert np.array_equal(first.texture.image, second.texture.image)


def test_a_run_knows_its_second_model_by_its_contents(folders: dict[Family, Path], tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.symlink_to(folders["latent"])
    job = job_of_two(folders)
    assert job.surface_model and job.fingerprint() == job_of_two({**folders, "latent": moved}).fingerprint()
    assert job.fingerprint() != job_of_two({**folders, "latent": folders["pixel"]}).fingerprint()


def test_option_of_the_command_is_the_setting(folders: dict[Family, Path]) -> None:
    parser = argparse.ArgumentParser()
    generate.add_arguments(parser.add_subparsers())
    given = ["--model", str(folders["pixel"]), "--preset", "fine", "--surface-model", str(folders["latent"])]
    job = generate.job_from(parser.parse_args(["generate", PROMPT, *given, "--set", "surface.steps=9"]))
    assert job.has_surface_model and job.config.surface.model == str(folders["latent"])
    assert (job.config.surface.omega, job.config.surface.steps, job.recipe) == (100, 9, "pixel/fine")


def settings_of(folders: dict[Family, Path], *settings: str) -> Config:
    return recipe_config(get_preset("fine", "pixel"), [*SMALL, *settings])


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (("surface.model={multi-view}",), ConfigError, "one of multi-view models .*allowed are pixel models"),
        (("surface.model={starter}",), ConfigError, "one of the starter; allowed are"),
        (("surface.model=/no/such/folder",), ModelError, "/no/such/folder"),
        (("surface.model={latent}", "guidance.rule=vsd"), ConfigError, "rule is vsd and surface.model"),
        (("surface.model=starter-clip",), ModelError, "which cannot guide"),
    ],
)
def test_wrong_second_models_are_refused_before_anything_is_loaded(
    folders: dict[Family, Path], settings: tuple[str, ...], error: type[DreamwrightError], words: str, loads: Loads
) -> None:
    given = [setting.format(**{name: str(path) for name, path in folders.items()}) for setting in settings]
    with pytest.raises(error, match=words) as caught:
        settings_of(folders, *given)
    assert "\n" not in str(caught.value) and not loads.names


def test_other_users_of_a_server_may_only_name_a_second_model(folders: dict[Family, Path]) -> None:
    settings = {"surface.model": str(folders["latent"])}
    request = SubmitJob("t", "a red mushroom", "", "starter", "fine", 0, settings)
    for name in ("surface.model", " surface.model "):
        with pytest.raises(ModelError, match="is none that this server has"):
            check_submission(replace(request, settings={name: str(folders["latent"])}), folders=False)
    assert check_submission(request).config.surface.omega == 100
