# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage after the field, with texels that it optimizes: resumed exactly, exported, refused if damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamwright.backend.config.schema import Config
from dreamwright.backend.errors import CheckpointError
from dreamwright.backend.geometry.color import linear_to_display
from dreamwright.backend.io.mesh_export import export_mesh
from dreamwright.backend.io.mesh_reader import read_mesh
from dreamwright.backend.scenes.derived_config import surface_config, surface_guidance
from dreamwright.backend.scenes.field_surface_scene import FieldSurfaceScene
from dreamwright.backend.scenes.textured_surface_scene import TexturedSurfaceScene
from dreamwright.backend.training.checkpoints import read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Event, StepCompleted
from dreamwright.backend.training.job import make_job
from dreamwright.backend.training.trainer import Trainer
from tests.testing.oracles import KnownImages
from tests.testing.sphere_runs import ball_images
from tests.testing.staged_runs import FIELD_STEPS, LAST, assert_equal, checkpoints, staged_config, staged_run

SIZE = 64


def textured_config(*settings: str) -> Config:
    return staged_config(f"mesh.texture={SIZE}", "surface.texture_rate=0.1", "surface.resolution=24", *settings)


def known_ball() -> KnownImages:
    return KnownImages(lambda cameras: ball_images(cameras, 16), 16)


@pytest.fixture(scope="module")
def whole() -> tuple[Trainer, list[Event]]:
    """An undisturbed run and its events."""
    run = staged_run(textured_config(), known_ball())
    return run, list(run)


def surface_of(run: Trainer) -> TexturedSurfaceScene:
    assert isinstance(run.scene, FieldSurfaceScene) and isinstance(run.scene.surface, TexturedSurfaceScene)
    return run.scene.surface


@pytest.mark.parametrize("step", [2, FIELD_STEPS, 8])
def test_resume_in_each_stage_gives_the_same_textured_mesh(
    step: int, whole: tuple[Trainer, list[Event]], tmp_path: Path
) -> None:
    """To the bit: state, vertices, vertex colors, uv and texels, from a checkpoint that went over the disk."""
    run, events = whole
    job = make_job("a ball", "oracle", "draft", textured_config())
    write_checkpoint(tmp_path, job, checkpoints(events)[step])
    resumed = staged_run(job.config, known_ball(), resume=read_checkpoint(tmp_path, job).state)
    assert_equal(checkpoints(list(resumed))[LAST], checkpoints(events)[LAST])
    first, second = run.scene.to_mesh()[0], resumed.scene.to_mesh()[0]
    assert first.texture is not None and second.texture is not None
    for one, other in (
        (first.vertices, second.vertices), (first.albedo, second.albedo), (first.faces, second.faces),
        (first.texture.image, second.texture.image), (first.texture.unwrapping.uv, second.texture.unwrapping.uv),
        (first.texture.unwrapping.corners, second.texture.unwrapping.corners),
        (first.texture.unwrapping.vertex, second.texture.unwrapping.vertex),
    ):  # fmt: skip
        assert one.dtype == other.dtype and np.array_equal(one, other)


def test_texels_and_tints_both_change_and_stay_colors(whole: tuple[Trainer, list[Event]]) -> None:
    run, events = whole
    surface = surface_of(run)
    texels = (surface.texels.base + surface.texel_offsets).detach()
    assert not torch.equal(surface.texel_colors().detach(), texels), "changes are smoothed"
    assert float(surface.texel_offsets.detach().abs().max()) > 0.01 and float(surface.tints().max()) > 0
    assert float(texels.min()) >= 0 and float(texels.max()) <= 1
    assert "bending" in [event.scalars for event in events if isinstance(event, StepCompleted)][-1]
    assert f"texture of {SIZE} x {SIZE}" in " ".join(surface.notices)


def test_first_stage_is_the_run_without_a_texture(whole: tuple[Trainer, list[Event]]) -> None:
    plain = staged_run(staged_config(), known_ball())
    assert_equal(checkpoints(list(plain))[FIELD_STEPS], checkpoints(whole[1])[FIELD_STEPS])


def test_stage_begins_with_the_texture_of_the_field(whole: tuple[Trainer, list[Event]]) -> None:
    """The stored texels are the field's baked ones, and a scene of them that took no step shows them unchanged."""
    run, events = whole
    baked = run.scene.field.to_mesh()[0].texture
    tensors = checkpoints(events)[8].tensors
    assert baked is not None
    assert np.array_equal(tensors["surface.mesh.texels"].numpy(), baked.image.reshape(-1, 3))
    made = {name.removeprefix("surface.mesh."): value for name, value in tensors.items() if ".mesh." in name}
    guidance = run.scene.surface.guidance
    fresh = TexturedSurfaceScene(textured_config(), guidance, run.scene.prompts, made, 0)
    own = fresh.texels.layout.own.pixel
    shown = fresh.texture().image.reshape(-1, 3)
    assert np.array_equal(shown[own], baked.image.reshape(-1, 3)[own]) and len(own) > 500


def test_mesh_has_texture_and_vertex_colors_of_it(whole: tuple[Trainer, list[Event]], tmp_path: Path) -> None:
    """In the report, and in a GLB: places of the texture and its image. Vertex colors are the texture's."""
    run, _ = whole
    mesh, report = run.scene.to_mesh()
    assert mesh.texture is not None and report.texture == SIZE == len(mesh.texture.image)
    places = mesh.texture.unwrapping
    assert np.array_equal(places.vertex[places.corners], mesh.faces)
    at_corners = mesh.texture.linear_at(places.uv)
    once = np.bincount(places.vertex) == 1
    rows = np.argsort(places.vertex, kind="stable")[np.cumsum(np.bincount(places.vertex)) - 1]
    assert once.sum() > 20 and np.allclose(mesh.albedo[once], at_corners[rows[once]], rtol=0, atol=1e-6)
    spread = linear_to_display(at_corners) - linear_to_display(mesh.albedo)[places.vertex]
    assert np.abs(spread).mean() < 0.05, "places of one vertex at a seam have other colors"
    content = read_mesh(export_mesh(mesh, tmp_path / "ball.glb", {"prompt": "a ball"}))
    assert len(content.faces) == len(mesh.faces)


def test_a_run_that_asks_for_no_texture_any_more_has_its_colors(whole: tuple[Trainer, list[Event]]) -> None:
    """mesh.texture is of the finished mesh, so a resumed run may change it; the stage goes on with its texels."""
    run, events = whole
    resumed = staged_run(textured_config("mesh.texture=0"), known_ball(), resume=checkpoints(events)[8])
    list(resumed)
    mesh, report = resumed.scene.to_mesh()
    assert mesh.texture is None and report.texture == 0
    assert np.array_equal(mesh.albedo, run.scene.to_mesh()[0].albedo)


def test_views_at_once_changes_rounding_only() -> None:
    """Two views together or one by one, from one field and therefore on one mesh.

    float32 sums over the views in another order: 1e-6 of the largest gradient, which the step size divides by.
    """
    settings = ("run.views_per_step=2", "surface.steps=2")
    first = staged_run(textured_config(*settings), known_ball(), should_stop=lambda: first.step >= FIELD_STEPS)
    field, found = checkpoints(list(first))[FIELD_STEPS], []
    for at_once in (0, 1):
        run = staged_run(textured_config(*settings, f"run.views_at_once={at_once}"), known_ball(), resume=field)
        list(run)
        found.append(surface_of(run).texel_offsets.detach())
    assert torch.allclose(found[0], found[1], rtol=0, atol=1e-4) and float(found[0].abs().max()) > 0.01


@pytest.mark.parametrize("damage", ["corners", "uv", "cut texels", "other corners"])
def test_checkpoint_with_a_damaged_texture_is_refused(damage: str, whole: tuple[Trainer, list[Event]]) -> None:
    state = checkpoints(whole[1])[8]
    tensors = dict(state.tensors)
    if damage in ("corners", "uv"):
        del tensors[f"surface.mesh.{damage}"]
    elif damage == "cut texels":
        tensors["surface.mesh.texels"] = tensors["surface.mesh.texels"][:-7]
    else:
        tensors["surface.mesh.corners"] = tensors["surface.mesh.corners"] + 100_000
    with pytest.raises(CheckpointError, match="holds no mesh of a field"):
        staged_run(textured_config(), known_ball(), resume=replace(state, tensors=tensors))


def test_stage_has_its_own_views_and_weights() -> None:
    config = staged_config(
        "surface.resolution=48", "surface.focal_min=1.2", "surface.focal_max=1.8", "surface.omega=7",
        "surface.weighting=clean", "surface.consistency=50", "surface.normals=0", "surface.supersampling=1",
    )  # fmt: skip
    derived = surface_config(config)
    assert (derived.render.resolution, derived.camera.focal_min, derived.camera.focal_max) == (48, 1.2, 1.8)
    assert (derived.refine.normals, derived.refine.supersampling) == (50, 1)
    assert (surface_guidance(config).omega, surface_guidance(config).weighting) == (7, "clean")
    plain, field = surface_config(staged_config()), staged_config()
    assert plain.render.resolution == field.render.resolution and plain.camera == field.camera
    times = surface_guidance(field)
    assert (times.omega, times.weighting) == (field.guidance.omega, field.guidance.weighting)


def test_consistency_alone_replaces_the_difference_of_normals() -> None:
    """With surface.normals=0 the figure "bending" is the mean of 1 - cos, and its weight is surface.consistency."""
    run = staged_run(textured_config("surface.normals=0", "surface.consistency=10"), known_ball())
    list(run)
    surface = surface_of(run)
    total, figures = surface.penalties(surface.displacements().detach())
    config = surface.config.refine
    rest = config.laplacian * figures["laplacian"] + config.edges * figures["stretching"]
    assert float(total) - rest == pytest.approx(10 * figures["bending"], rel=1e-3)
