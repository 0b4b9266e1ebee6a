# SPDX-License-Identifier: GPL-3.0-or-later
"""The starter's vocabulary, props and training images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamwright.backend.mesh_rendering.rasterize import orbit_axes, rasterize
from dreamwright.backend.starter import domain, props, solids
from dreamwright.backend.starter.architecture import build_tokenizer
from dreamwright.backend.starter.classifier import StarterClassifier
from tools.starter_training.captions import LookConfig, RenderDataset
from tools.starter_training.train_classifier import classifier_loss


def test_props_and_colors_of_the_domain() -> None:
    names = {p.name for p in domain.PROPS}
    assert len(names) >= 16 and len(domain.COLORS) >= 8
    assert {"mushroom", "snowman", "table", "chair", "house", "tree", "mug", "rocket", "torus"} <= names
    assert {"red", "green", "blue", "yellow", "orange", "purple", "white", "black"} <= set(domain.COLORS)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "view"),
    [
        (0, 0, "front"),
        (44, 10, "front"),
        (316, 10, "front"),
        (90, 59, "side"),
        (180, 0, "back"),
        (270, 0, "side"),
        (0, 61, "overhead"),
    ],
)
def test_views_follow_the_papers_quadrants(azimuth: float, elevation: float, view: str) -> None:
    assert domain.view_of(azimuth, elevation) == view


@pytest.mark.parametrize(
    ("azimuth", "elevation", "direction"),
    [
        (0, 0, "front"),
        (30, 60, "front right"),
        (0, 61, "front overhead"),
        (100, 88, "right side overhead"),
        (225, 75, "back left overhead"),
    ],
)
def test_directions_are_distinguished(azimuth: float, elevation: float, direction: str) -> None:
    assert domain.direction_of(azimuth, elevation) == direction


def test_captions_and_parsing_are_inverse() -> None:
    for prop in domain.PROPS:
        for color in domain.COLORS:
            assert domain.parse(domain.caption(prop.name, color, "left side view")) == (color, prop.name)
    assert domain.caption("house", "orange", None) == "an orange house"
    with pytest.raises(ValueError, match="mushroom"):
        domain.parse("a red dragon")


def test_captions_use_known_words_and_fit_the_encoder() -> None:
    tokenizer = build_tokenizer()
    for prop in domain.PROPS:
        tokens = tokenizer(
            f"{domain.caption(prop.name, 'orange', None)}, untextured, back right overhead view"
        ).input_ids
        assert tokenizer.unk_token_id not in tokens and len(tokens) <= tokenizer.model_max_length
    assert tokenizer.unk_token_id in tokenizer("a red dragon").input_ids


@pytest.mark.parametrize("prop", [p.name for p in domain.PROPS])
def test_props_are_centered_and_fill_their_sphere(prop: str) -> None:
    mesh = props.triangles(props.build(prop))
    # float32 coordinates of at most 0.5 have roundings of 3e-8: two in a sum, and three in a length.
    np.testing.assert_allclose(mesh.vertices.min(0) + mesh.vertices.max(0), 0, atol=2.5e-7)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.5, abs=2.5e-7)
    assert mesh.primary.any() and np.isfinite(mesh.vertices).all()
    varied = props.triangles(props.build(prop, np.random.default_rng(3)))
    assert not np.allclose(varied.vertices, mesh.vertices, atol=1e-4)
    assert np.abs(varied.vertices - mesh.vertices).max() < 0.12


def seen_colors(prop: str, azimuth: float) -> np.ndarray:
    mesh = props.triangles(props.build(prop))
    axes = orbit_axes(azimuth, 10.0)
    seen = rasterize(mesh.vertices, mesh.faces, 2.2 * axes[:, 2], axes, 1.8, 64)
    return np.where(seen.mask[..., None], mesh.colors[np.maximum(seen.face, 0)], 0.5)


@pytest.mark.parametrize("prop", [p.name for p in domain.PROPS if p.has_front and p.name not in ("chair", "sofa")])
def test_fronts_differ_from_mirrored_backs_in_color(prop: str) -> None:
    front, back = seen_colors(prop, 0), seen_colors(prop, 180)[:, ::-1]
    assert np.abs(front - back).mean() > 0.004  # 16 of 4,096 pixels that differ by 1; equal sides have 0


@pytest.mark.parametrize(
    "solid",
    [
        solids.box((1, 2, 3), bevel=0.1),
        solids.ellipsoid((1, 2, 0.5)),
        solids.lathe([(0, 0), (1, 0), (0, 1)]),
        solids.ring(1, 0.3),
        solids.tube([(0, 0, 0), (0, 0, 1), (1, 0, 2)], 0.2),
    ],
)
def test_solids_are_closed_and_face_outwards(solid: solids.Solid) -> None:
    vertices, faces = solid
    edges: dict[tuple[int, int], int] = {}
    volume = 0.0
    for face in faces:
        for a, b in zip(face, (*face[1:], face[0]), strict=True):
            edges[(a, b)] = edges.get((a, b), 0) + 1
        for i in range(1, len(face) - 1):
            volume += np.dot(vertices[face[0]], np.cross(vertices[face[i]], vertices[face[i + 1]])) / 6
    assert all(count == 1 and edges.get((b, a)) == 1 for (a, b), count in edges.items())
    assert volume > 0


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Three records: a half-covered square, primary on the left, secondary green on the right, E = 1."""
    values = np.zeros((3, 64, 64, 6), np.uint8)
    values[:, 16:48, 16:32, 0] = 255
    values[:, 16:48, 32:48, 2] = 255
    values[:, 16:48, 16:48, 4] = round(255 * 0.5**0.5)
    values[:, 16:48, 16:48, 5] = 255
    np.save(tmp_path / "shard-001-0000.npy", values)
    views = [{"prop": i, "azimuth": a, "elevation": 10.0} for i, a in enumerate((0.0, 90.0, 180.0))]
    (tmp_path / "shard-001-0000.json").write_text(json.dumps(views))
    return tmp_path


def test_images_match_their_captions(records: Path, generator: torch.Generator) -> None:
    dataset = RenderDataset(records, looks=LookConfig(color_jitter=0.0, drop_caption=0.0, drop_view=0.0))
    batch = dataset.sample(60, 64, generator)
    for image, caption, color, prop in zip(
        batch.images, batch.captions, batch.colors.tolist(), batch.props.tolist(), strict=True
    ):
        assert domain.PROPS[prop].name in caption
        assert {0: "front view", 1: "right side view" if "right" in caption else "side view", 2: "back view"}[
            prop
        ] in caption
        if color < 0:
            assert "untextured" in caption
            torch.testing.assert_close(image[:, 24, 24], image[:, 24, 40])
        else:
            rgb = torch.tensor(domain.COLORS[list(domain.COLORS)[color]])
            # Albedo and shading (E = sqrt(0.5) in 8 bits) have half a level of error each, 0.002, before the sRGB
            # curve.
            torch.testing.assert_close(image[:, 24, 24], rgb, atol=0.02, rtol=0)
            assert list(domain.COLORS)[color] in caption
        torch.testing.assert_close(image[:, 0, 0], image[:, 63, 63])


def test_overhead_views_are_drawn_more_often(records: Path, generator: torch.Generator) -> None:
    """A mushroom from above weighs 1.5 of 1.5 + 2 (a snowman, with a front) + 1 (a table); 15% name no direction."""
    described = records / "shard-001-0000.json"
    views = json.loads(described.read_text())
    views[0] |= {"azimuth": 225.0, "elevation": 75.0}
    described.write_text(json.dumps(views))
    dataset = RenderDataset(records, looks=LookConfig(drop_caption=0.0, drop_view=0.0))
    batches = [dataset.sample(500, 8, generator) for _ in range(6)]
    captions = [caption for batch in batches for caption in batch.captions if "mushroom" in caption]
    # Four standard errors of 3000 draws: 4 sqrt(0.22 / 3000) = 0.035.
    assert len(captions) / 3000 == pytest.approx(1.5 / 4.5, abs=0.04)
    named = [caption for caption in captions if caption.endswith(", back left overhead view")]
    plain = [caption for caption in captions if caption.endswith(", overhead view")]
    # Four standard errors of about 1000 draws: 4 sqrt(0.13 / 1000) = 0.046.
    assert len(named) + len(plain) == len(captions) and len(plain) / len(captions) == pytest.approx(0.15, abs=0.046)


def test_halved_images_are_averages(records: Path) -> None:
    draws = [RenderDataset(records).sample(4, size, torch.Generator().manual_seed(9)).images for size in (64, 32)]
    # Means of four float32 values.
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(draws[0], 2), draws[1], atol=1e-6, rtol=0)


def test_classifier_loss_covers_every_head(generator: torch.Generator) -> None:
    classifier = StarterClassifier(width=4)
    images = torch.rand(3, 3, 64, 64, generator=generator)
    loss = classifier_loss(
        classifier(images), torch.tensor([0, 1, 2]), torch.tensor([-1, 3, 4]), torch.tensor([0, 1, 2])
    )
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is not None for p in classifier.parameters())
