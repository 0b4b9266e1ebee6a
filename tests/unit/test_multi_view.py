# SPDX-License-Identifier: GPL-3.0-or-later
"""Multi-view models: attention joins the views of a set and no others, cameras are known, sets are kept whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnAddedKVProcessor, AttnProcessor
from torch import Tensor

from dreamwright.backend.cameras.poses import orbit_cameras, pose_vectors, sample_cameras
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.recipes.starter import DRAFT
from dreamwright.backend.config.schema import CameraConfig, ModelConfig
from dreamwright.backend.errors import ConfigError, ModelError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.denoisers.multi_view import MultiViewPixelDiffusion, are_sets
from dreamwright.backend.guidance.denoisers.view_attention import JoinedSelfAttention, JoinedTextAttention
from dreamwright.backend.guidance.patch_grid import grid_offsets
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.runtime.rng import RandomStreams
from dreamwright.backend.scenes.views import sample_views, split_views
from dreamwright.backend.starter.architecture import build_parts, save_pipeline
from dreamwright.backend.text.conditioning import Conditioning
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.tiny_model import TINY

VIEWS, WIDTH, TEXT = 4, 16, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny multi-view model whose layers are all random, those that training starts with zeros included."""
    parts = build_parts(0, TINY, VIEWS)
    with torch.no_grad():
        for parameter in parts.unet.class_embedding.parameters():
            parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp("models") / "multi-view"
    save_pipeline(parts, path, torch.float32)
    return path


@pytest.fixture(scope="module")
def denoiser(folder: Path) -> MultiViewPixelDiffusion:
    loaded = load_denoiser(folder)
    assert isinstance(loaded, MultiViewPixelDiffusion) and loaded.views == VIEWS
    return loaded


def double_attention(**options) -> Attention:
    torch.manual_seed(0)
    return Attention(query_dim=WIDTH, heads=2, dim_head=WIDTH // 2, **options).double().eval()


def text_attention() -> Attention:
    return double_attention(cross_attention_dim=WIDTH, added_kv_proj_dim=TEXT, norm_num_groups=4, bias=True)


def reference_text_attention(attn: Attention, states: Tensor, text: Tensor, views: int) -> Tensor:
    """The same by loops over objects, views and heads; states (n, width, h, w)."""
    n, width, height, wide = states.shape
    normed = attn.group_norm(states.flatten(2)).transpose(1, 2)
    result = torch.empty_like(states)
    for row in range(n):
        of_object = normed[row // views * views : row // views * views + views].reshape(-1, width)
        keys = torch.cat([attn.add_k_proj(text[row]), attn.to_k(of_object)])
        values = torch.cat([attn.add_v_proj(text[row]), attn.to_v(of_object)])
        query = attn.to_q(normed[row])
        heads = []
        for head in torch.arange(width).chunk(attn.heads):
            scores = query[:, head] @ keys[:, head].T / len(head) ** 0.5
            heads.append(scores.softmax(-1) @ values[:, head])
        result[row] = attn.to_out[0](torch.cat(heads, dim=-1)).T.reshape(width, height, wide) + states[row]
    return result


@torch.no_grad()
def test_text_attention_joins_the_views_of_an_object() -> None:
    attn, generator = text_attention(), torch.Generator().manual_seed(1)
    states = torch.randn(2 * VIEWS, WIDTH, 3, 2, generator=generator, dtype=torch.float64)
    text = torch.randn(2 * VIEWS, 5, TEXT, generator=generator, dtype=torch.float64)
    got = JoinedTextAttention()(attn, states, text, views=VIEWS)
    # float64 rounding of sums of at most 29 terms
    torch.testing.assert_close(got, reference_text_attention(attn, states, text, VIEWS), rtol=1e-12, atol=1e-12)
    alone = AttnAddedKVProcessor()(attn, states, text)
    torch.testing.assert_close(JoinedTextAttention()(attn, states, text), alone, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(got, alone)


@torch.no_grad()
def test_self_attention_joins_and_cross_attention_does_not() -> None:
    attn, generator = double_attention(), torch.Generator().manual_seed(2)
    states = torch.randn(2 * VIEWS, 6, WIDTH, generator=generator, dtype=torch.float64)
    joined = JoinedSelfAttention(AttnProcessor())
    plain = AttnProcessor()(attn, states.reshape(2, VIEWS * 6, WIDTH)).reshape(states.shape)
    assert torch.equal(joined(attn, states, views=VIEWS), plain)
    assert torch.equal(joined(attn, states), AttnProcessor()(attn, states))
    cross = double_attention(cross_attention_dim=TEXT)
    text = torch.randn(2 * VIEWS, 5, TEXT, generator=generator, dtype=torch.float64)
    assert torch.equal(joined(cross, states, text, views=VIEWS), AttnProcessor()(cross, states, text))


def test_text_attention_with_a_mask_is_refused() -> None:
    with pytest.raises(ModelError, match="without a mask"):
        JoinedTextAttention()(text_attention(), torch.zeros(1, WIDTH, 2, 2), torch.zeros(1, 5, TEXT), torch.zeros(1))


def test_pose_vectors_are_camera_to_world_matrices() -> None:
    front, right = pose_vectors(torch.tensor([0.0, 90.0]), torch.zeros(2)).view(2, 4, 4)
    # columns right, up, back, position; the front camera stands at -Y, the right one at +X
    expected_front = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -1], [0, 1, 0, 0], [0, 0, 0, 1]])
    expected_right = torch.tensor([[0.0, 0, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(front, expected_front, rtol=0, atol=1e-6)  # sines and cosines in float32
    torch.testing.assert_close(right, expected_right, rtol=0, atol=1e-6)
    pose = pose_vectors(torch.rand(5) * 360, torch.rand(5) * 90).view(5, 4, 4)
    identity = torch.eye(3).expand(5, 3, 3)
    torch.testing.assert_close(pose[:, :3, :3].mT @ pose[:, :3, :3], identity, rtol=0, atol=1e-6)


def test_cameras_of_a_set_stand_around_the_object() -> None:
    config = replace(DRAFT.camera, views_per_set=VIEWS)
    cameras = sample_cameras(config, 3 * VIEWS, torch.Generator().manual_seed(0))
    assert are_sets(cameras, VIEWS) and not are_sets(cameras[slice(1, 5)], VIEWS)
    for values in (cameras.elevation, cameras.focal):
        rows = values.view(3, VIEWS)
        assert torch.equal(rows, rows[:, :1].expand(-1, VIEWS)) and len(set(rows[:, 0].tolist())) == 3
    # stratified: all views of the step are at equal steps
    angles = cameras.azimuth.double().sort().values
    torch.testing.assert_close(angles.diff(), torch.full((11,), 30.0, dtype=torch.float64), rtol=0, atol=1e-4)
    single = replace(DRAFT.camera, views_per_set=1)
    assert not are_sets(sample_cameras(single, VIEWS, torch.Generator().manual_seed(0)), VIEWS)
    assert are_sets(orbit_cameras([270, 0, 180, 90], 10.0, 2.0, 1.5), VIEWS)
    assert not are_sets(orbit_cameras([270, 0, 180, 90], [10.0, 10, 10, 11], 2.0, 1.5), VIEWS)


def test_views_of_a_set_share_look_and_background_but_not_the_light() -> None:
    config = apply_settings(DRAFT, ["run.views_per_step=8", "camera.views_per_set=4"])
    for seed in range(4):
        views = sample_views(config, 8, 0.9, RandomStreams(("cameras", "looks"), seed, 8, slice(0, 8)))
        assert len(set(views.shadings[:4])) == len(set(views.shadings[4:])) == 1
        assert len(torch.unique(views.plain, dim=0)) == 2 and len(torch.unique(views.lights, dim=0)) == 8


def test_chunks_hold_whole_sets() -> None:
    assert split_views(slice(0, 8), 1, 4) == [slice(0, 4), slice(4, 8)]
    assert split_views(slice(0, 12), 11, 4) == [slice(0, 8), slice(8, 12)]
    assert split_views(slice(0, 8), 0, 4) == [slice(0, 8)]
    with pytest.raises(ConfigError, match=r"camera.views_per_set is 4; .*run.views_per_step=8"):
        apply_settings(DRAFT, ["run.views_per_step=6", "camera.views_per_set=4"])


def test_offsets_of_the_patch_grid_keep_sets_together() -> None:
    rows, offsets = grid_offsets(torch.tensor([10, 10, 700, 700]), 1000, 4, views=2)
    assert rows.tolist() == [0, 1] * 4 + [2, 3]
    assert torch.equal(offsets[::2], offsets[1::2]) and len(torch.unique(offsets[:8:2], dim=0)) == 4


def predict(denoiser: MultiViewPixelDiffusion, z_t: Tensor, cameras, prompts: list[str]) -> Tensor:
    conditioning = denoiser.with_cameras(denoiser.embed(prompts), cameras)
    return denoiser.predict_raw(z_t, torch.full((len(z_t),), 0.6), conditioning)


def test_a_view_depends_on_its_own_set_alone(denoiser: MultiViewPixelDiffusion) -> None:
    generator = torch.Generator().manual_seed(5)
    size = denoiser.image_size
    z_t = torch.randn(8, 3, size, size, generator=generator)
    cameras = orbit_cameras([0, 90, 180, 270, 45, 135, 225, 315], [10.0] * 4 + [30.0] * 4, 2.0, 1.5)
    prompts = ["a red chair"] * 8
    before = predict(denoiser, z_t, cameras, prompts)
    changed = z_t.clone()
    changed[1] += 1
    moved = (predict(denoiser, changed, cameras, prompts) - before).abs().amax((1, 2, 3))
    assert (moved[:4] > 1e-4).all() and (moved[4:] == 0).all()
    # In another order of its views, each view is predicted alike.
    order = [2, 0, 3, 1]
    shuffled = predict(denoiser, z_t[order], orbit_cameras([180, 0, 270, 90], 10.0, 2.0, 1.5), prompts[:4])
    torch.testing.assert_close(shuffled, before[order], rtol=0, atol=2e-5)  # float32 sums in another order


def test_views_that_are_no_set_are_predicted_one_by_one(denoiser: MultiViewPixelDiffusion) -> None:
    generator = torch.Generator().manual_seed(6)
    size = denoiser.image_size
    z_t = torch.randn(4, 3, size, size, generator=generator)
    cameras = orbit_cameras([0, 90, 180, 200], 10.0, 2.0, 1.5)
    together = predict(denoiser, z_t, cameras, ["a red chair"] * 4)
    alone = torch.cat([predict(denoiser, z_t[i : i + 1], cameras[slice(i, i + 1)], ["a red chair"]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)  # batched sums in another order
    pose = predict(denoiser, z_t[:1], orbit_cameras([77], 10.0, 2.0, 1.5), ["a red chair"])
    assert (pose - alone[:1]).abs().max() > 1e-3, "the pose has no effect"
    # Without cameras, as when images are sampled, the model still answers.
    plain = denoiser.predict_raw(z_t, torch.full((4,), 0.6), denoiser.embed(["a red chair"] * 4))
    assert torch.isfinite(plain).all()


def test_a_set_has_one_time_for_each_noise(denoiser: MultiViewPixelDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(DRAFT.guidance, noises=3)
    prompts = PromptEmbeddings(denoiser, "a red chair", config)
    times: list[Tensor] = []
    predict_raw = denoiser.predict_raw

    def recorded(z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        times.append(t)
        return predict_raw(z_t, t, conditioning)

    monkeypatch.setattr(denoiser, "predict_raw", recorded)
    cameras = orbit_cameras([0, 90, 180, 270, 45, 135, 225, 315], [10.0] * 4 + [30.0] * 4, 2.0, 1.5)
    conditioning = prompts.for_cameras(cameras.azimuth, cameras.elevation)
    image = torch.full((8, 3, denoiser.image_size, denoiser.image_size), 0.5)
    ScoreDistillation(denoiser, config).gradient(image, cameras, conditioning, torch.Generator().manual_seed(0), 0.5)
    sets = times[0].view(-1, VIEWS)
    assert (sets == sets[:, :1]).all() and len(torch.unique(sets[:6, 0])) == 6  # three noises of two sets


def test_unsuitable_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    for views in (None, 3, True, "4"):
        copy = tmp_path / f"views-{views}"
        copy.mkdir()
        for part in folder.iterdir():
            (copy / part.name).symlink_to(part)
        (copy / "model_index.json").unlink()
        (copy / "model_index.json").write_text(json.dumps(index | {"views": views}))
        with pytest.raises(ModelError, match="states views .*allowed are 2, 4, 8"):
            load_denoiser(copy)
        (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": "IFPipeline"}))
        with pytest.raises(ModelError, match="class_embed_type 'projection'"):
            load_denoiser(copy)
    with pytest.raises(ConfigError, match="slices do not join"):
        load_denoiser(folder, config=ModelConfig(attention_slicing=True))


def test_sets_of_one_view_draw_what_they_drew_before() -> None:
    """With one view a set, each number has the place in the stream that the paper's cameras have."""
    config, generator = CameraConfig(), torch.Generator().manual_seed(4)
    cameras = sample_cameras(config, 5, generator)
    numbers = torch.Generator().manual_seed(4)
    in_angle = config.elevation_min + (config.elevation_max - config.elevation_min) * torch.rand(5, generator=numbers)
    in_area = torch.rad2deg(torch.asin(torch.rand(5, generator=numbers)))
    chosen = torch.rand(5, generator=numbers) < config.uniform_angle_share
    torch.testing.assert_close(cameras.elevation, torch.where(chosen, in_angle, in_area), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(cameras.azimuth, 360 * torch.rand(5, generator=numbers), rtol=1e-6, atol=1e-4)
