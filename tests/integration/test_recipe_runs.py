# SPDX-License-Identifier: GPL-3.0-or-later
"""Every quality of every family, reduced in size and steps alone, goes from a prompt to a mesh on a tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import RECIPES
from dreamwright.backend.config.recipes.recipe import Family
from dreamwright.backend.config.schema import Config
from dreamwright.backend.geometry.input_mesh import make_input_mesh
from dreamwright.backend.training.checkpoints import read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Checkpoint, Finished
from dreamwright.backend.training.job import make_job
from dreamwright.backend.training.pipeline import TextTo3DPipeline
from tests.testing.primitive_meshes import icosphere
from tests.testing.recipe_folders import write_all

PROMPT = "a red mushroom"
SIZES = (
    "run.steps=4", "run.preview_interval=100", "run.checkpoint_interval=100", "render.resolution=16",
    "model.image_size=0",
)  # fmt: skip
COMMON_SIZES = (
    "render.coarse_resolution=8", "render.samples=24", "render.occupancy_resolution=8", "mesh.resolution=24",
    "mesh.triangles=400", "optimizer.block_size=16",
)  # fmt: skip
OF_KIND = {
    "hash-grid": ("field.hash_levels=6", "field.hash_log2_size=10", "field.hash_start_level=2"),
    "mip-mlp": ("field.hidden_width=16", "field.hidden_blocks=1"),
    "voxels": ("field.voxel_resolutions=6,12",),
}
FIELD_SIZES = (*COMMON_SIZES, *OF_KIND["hash-grid"])  # of the published recipes
MADE = [
    (family, name)
    for family, recipes in RECIPES.items()
    if family != "clip"  # tests/integration/test_methods.py
    for name in recipes
    if name != "refine"
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    return write_all(tmp_path_factory.mktemp("models"))


def finished(pipeline: TextTo3DPipeline) -> bool:
    return [event.complete for event in pipeline.events() if isinstance(event, Finished)] == [True]


def field_sizes(config: Config) -> list[str]:
    """A small field of the recipe's kind, and its mesh."""
    return [*COMMON_SIZES, *OF_KIND[config.field.kind], *surface_sizes(config)]


def surface_sizes(config: Config) -> list[str]:
    """Two steps of the stage after the field, where there is one, and a small texture where it has one."""
    stage = ["surface.steps=2", "surface.resolution=16"] if config.surface.steps else []
    return [*stage, "mesh.texture=64"] if config.surface.texture_rate else stage


@pytest.mark.parametrize(("family", "name"), MADE)
def test_recipe_makes_a_mesh(folders: dict[Family, Path], family: Family, name: str) -> None:
    recipe = RECIPES[family][name]
    config = apply_settings(recipe.config, [*SIZES, *field_sizes(recipe.config)])
    job = make_job(PROMPT, str(folders[family]), name, config, family=family)
    pipeline = TextTo3DPipeline(job, "cpu")
    assert pipeline.notices[0] == recipe.notice
    assert finished(pipeline)
    mesh, report = pipeline.mesh()
    assert report.triangles > 20 and np.isfinite(mesh.vertices).all()
    assert (mesh.texture is not None) == (name == "fine") and report.texture == (64 if name == "fine" else 0)
    assert pipeline.provenance()["recipe"] == f"{family}/{name}"


@pytest.mark.parametrize("step", [2, 4, 5])
def test_fine_resumes_exactly_in_each_stage(folders: dict[Family, Path], step: int, tmp_path: Path) -> None:
    """Of a latent model: stopped in the field, between the stages and in the second, and gone on from the disk.

    The mesh, its uv and its texels are those of an undisturbed run, to the bit.
    """
    recipe = RECIPES["latent"]["fine"]
    config = apply_settings(recipe.config, [*SIZES, *field_sizes(recipe.config)])
    job = make_job(PROMPT, str(folders["latent"]), "fine", config, family="latent")
    whole = TextTo3DPipeline(job, "cpu")
    assert finished(whole)
    running: list[TextTo3DPipeline] = []
    stopped = TextTo3DPipeline(job, "cpu", should_stop=lambda: bool(running) and running[0].step >= step)
    running.append(stopped)
    kept = [event.state for event in stopped.events() if isinstance(event, Checkpoint)]
    write_checkpoint(tmp_path, job, kept[-1])
    resumed = TextTo3DPipeline(job, "cpu", read_checkpoint(tmp_path, job).state)
    assert kept[-1].step == resumed.step == step and finished(resumed)
    first, second = whole.mesh()[0], resumed.mesh()[0]
    assert first.texture is not None and second.texture is not None
    for name in ("vertices", "faces", "albedo", "normals"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert np.array_equal(first.texture.image, second.texture.image)
    assert np.array_equal(first.texture.unwrapping.uv, second.texture.unwrapping.uv)
    assert np.array_equal(first.texture.unwrapping.corners, second.texture.unwrapping.corners)


@pytest.mark.parametrize("family", [family for family in RECIPES if family != "clip"])
def test_recipe_refines_a_mesh(folders: dict[Family, Path], family: Family) -> None:
    vertices, faces = icosphere(2, 0.5)
    given = make_input_mesh(vertices, faces, np.full(vertices.shape, 0.5))
    config = apply_settings(RECIPES[family]["refine"].config, [*SIZES, "refine.supersampling=1"])
    job = make_job(PROMPT, str(folders[family]), "refine", config, given.digest(), family)
    pipeline = TextTo3DPipeline(job, "cpu", input_mesh=given)
    assert pipeline.notices[0] == RECIPES[family]["refine"].notice and finished(pipeline)
    assert np.isfinite(pipeline.mesh()[0].vertices).all()
