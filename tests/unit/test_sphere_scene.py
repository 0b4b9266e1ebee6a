# SPDX-License-Identifier: GPL-3.0-or-later
"""A step of clip-mesh: CLIP's score and its gradient on vertices, the schedule of views, and the final mesh."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamwright.backend.cameras.poses import orbit_cameras, sample_cameras
from dreamwright.backend.geometry.topology import (
    Surface,
    signed_volume,
    vertex_normals,
)
from dreamwright.backend.guidance.clip_model import ImageTextModel
from dreamwright.backend.mesh_rendering.render import Topology, render_mesh
from dreamwright.backend.rendering.shading import Shading
from dreamwright.backend.scenes.views import StepViews
from tests.testing.clip_mesh_runs import PROMPT, sphere_scene
from tests.testing.tiny_clip import SIDE


def test_plain_loss_is_the_score_before_white(clip_model: ImageTextModel) -> None:
    """The same views rendered on white and passed to `scores` give the cosine that a step reports."""
    plain = (
        "clip.crops=1",
        "clip.crop_share=1",
        "clip.backgrounds=false",
        f"render.resolution={SIDE}",
        "shading.shaded_probability=0",
    )
    shape, twin = sphere_scene(clip_model, *plain), sphere_scene(clip_model, *plain)
    cosine = shape.train_step()["cosine"]
    cameras = sample_cameras(twin.config.camera, 2, twin.streams["cameras"])
    views = [Shading()] * 2
    seen = render_mesh(
        twin.topology, twin.rest, twin.colors, torch.ones(2, 3), cameras, views, cameras.position, SIDE, 1
    )
    # A cosine is at most 1; float32 images in another order of operations: 100 roundings of 6e-8 in all layers
    # together.
    assert cosine == pytest.approx(float(clip_model.scores(seen.image, [PROMPT]).mean()), abs=1e-5)


def test_score_gradient_reaches_visible_vertices(clip_model: ImageTextModel) -> None:
    shape = sphere_scene(clip_model, "clip.backgrounds=false", "clip.crops=1", "clip.crop_share=1")
    topology: Topology = shape.topology
    cameras = orbit_cameras([0, 120, 240], 20.0, 1.9, 1.2)

    def score(where: torch.Tensor) -> torch.Tensor:
        seen = render_mesh(
            topology, where, shape.colors, torch.ones(3, 3), cameras, [Shading()] * 3, cameras.position, SIDE, 1
        )
        return (clip_model.embed_images(seen.image) @ clip_model.embed_prompts([PROMPT]).T).mean()

    where = shape.rest.clone().requires_grad_()
    before = score(where)
    gradient = torch.autograd.grad(before, where)[0]
    assert float((gradient.norm(dim=-1) > 0).float().mean()) > 0.25, "silhouettes from three sides"
    step = 0.002 / float(gradient.norm(dim=-1).max())
    assert float(score(where.detach() + step * gradient)) > float(before.detach())


def test_step_gradient_is_the_gradient_of_the_score(clip_model: ImageTextModel) -> None:
    """Layer gradients through the rasterizer against plain autograd from the score to the sphere's parameters."""
    shape = sphere_scene(
        clip_model, "clip.backgrounds=false", "clip.crops=1", "clip.crop_share=1", f"render.resolution={SIDE}"
    )
    cameras, views = orbit_cameras([10, 130], 20.0, 1.9, 1.2), [Shading()] * 2
    drawn = StepViews(cameras, cameras.position, tuple(views), torch.full((2, 3), 0.3), torch.ones(2, dtype=torch.bool))
    loss, figures = shape._chunk_loss(shape.values(), drawn)
    gradients = torch.autograd.grad(loss, (shape.vertex_offsets, shape.color_offsets))
    where, colors = shape.rest + shape.displacements(), shape.colors + shape.color_changes()
    seen = render_mesh(shape.topology, where, colors, torch.ones(2, 3), cameras, views, cameras.position, SIDE, 1)
    score = (clip_model.embed_images(seen.image) @ clip_model.embed_prompts([PROMPT]).T).mean()
    # A cosine is at most 1; float32 images in another order of operations: 100 roundings of 6e-8 in all layers
    # together.
    assert figures["cosine"] == pytest.approx(float(score.detach()), abs=1e-5)
    for found, wanted in zip(
        gradients, torch.autograd.grad(-score, (shape.vertex_offsets, shape.color_offsets)), strict=True
    ):
        # float32 gradients through a network and a rasterizer, sums over 2 x 32 x 32 pixels in another order: at most
        # 2,048 x 6e-8 = 1.2e-4 of the sum of magnitudes, eight times that where terms cancel.
        assert float(wanted.abs().max()) > 1e-6 and torch.allclose(
            found, wanted, rtol=0, atol=1e-3 * float(wanted.abs().max())
        )


def test_textureless_views_come_in_the_first_part_only(clip_model: ImageTextModel) -> None:
    shape = sphere_scene(
        clip_model,
        "run.steps=8",
        "run.views_per_step=4",
        "shading.shaded_probability=1",
        "shading.textureless_probability=1",
        "sphere.textureless_share=0.5",
    )
    shown: list[set[str]] = []
    render = shape._render
    shape._render = lambda *given: shown.append({s.kind for s in given[3]}) or render(*given)
    for _ in range(8):
        shape.train_step()
    assert shown == [{"textureless"}] * 4 + [{"shaded"}] * 4


def test_views_at_once_changes_rounding_only(clip_model: ImageTextModel) -> None:
    whole, parts = (
        sphere_scene(clip_model, "run.views_per_step=3"),
        sphere_scene(clip_model, "run.views_per_step=3", "run.views_at_once=2"),
    )
    for _ in range(2):
        figures_whole, figures_parts = whole.train_step(), parts.train_step()
        # Means over three views in float32, in groups of two and one: figures of up to 10 err by some 6e-7 each. The
        # second step has moved by Adam's steps, which differ as below.
        assert figures_whole == pytest.approx(figures_parts, abs=1e-4)
    one, other = whole.vertex_offsets.detach(), parts.vertex_offsets.detach()
    # The gradient errs by 1e-4 of its size as above, and the step, which is uniform over the mesh, by the same share;
    # ten times that for two steps.
    assert float(one.abs().max()) > 0.01 and torch.allclose(one, other, rtol=0, atol=1e-3 * float(one.abs().max()))
    assert torch.equal(whole.streams["noise"].get_state(), parts.streams["noise"].get_state())


def test_inside_out_sphere_is_corrected(clip_model: ImageTextModel) -> None:
    shape = sphere_scene(clip_model, "refine.reach=1", "mesh.height_m=2")
    wanted = -2 * shape.rest  # every vertex mirrored through the center
    bound = 1.0
    length = wanted.norm(dim=-1, keepdim=True)
    offset = shape._vertex_steps.matrix @ (wanted * bound / torch.sqrt(bound**2 - length**2)).double().numpy()
    assert shape.figures()["inside"] == 0
    with torch.no_grad():
        shape.vertex_offsets.copy_(torch.from_numpy(np.asarray(offset)).float())
    # The solve is float64, of offsets rounded to float32: 6e-8 x 10, divided by (1 - 0.6^2) where the bound bends.
    assert torch.allclose(shape.rest + shape.displacements(), -shape.rest, rtol=0, atol=1e-5)
    assert shape.figures()["inside"] == 1
    mesh, report = shape.to_mesh()
    assert report.volume > 0 and signed_volume(Surface(mesh.vertices.astype(float), mesh.faces)) > 0
    middle = mesh.vertices - mesh.vertices.mean(0)
    assert ((mesh.normals * middle).sum(1) > 0).all()
    # float32 vertices of up to 2 m err by 1.2e-7, over edges of 0.1 m: normals turn by some 1e-6; they have a rounding
    # too.
    normals = vertex_normals(Surface(mesh.vertices.astype(float), mesh.faces))
    assert np.allclose(normals, mesh.normals, rtol=0, atol=1e-5)
