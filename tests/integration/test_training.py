# SPDX-License-Identifier: GPL-3.0-or-later
"""Training of the starter model: the loss falls, and resumed training is bitwise equal."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamwright.backend.starter import architecture, domain
from tests.testing.tiny_model import TINY
from tools.starter_training import train, train_image_text
from tools.starter_training.captions import RenderDataset
from tools.starter_training.moving_average import MovingAverage
from tools.starter_training.quality import spread_prompts


@pytest.fixture
def dataset(tmp_path: Path) -> RenderDataset:
    records = np.zeros((4, 64, 64, 6), np.uint8)
    records[:, 16:48, 16:48, 0] = records[:, 16:48, 16:48, 5] = 255
    records[:, 16:48, 16:48, 4] = 180
    np.save(tmp_path / "shard-001-0000.npy", records)
    (tmp_path / "shard-001-0000.json").write_text(
        json.dumps([{"prop": i, "azimuth": 90.0 * i, "elevation": 5.0} for i in range(4)])
    )
    return RenderDataset(tmp_path)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "build_parts", lambda seed, views: architecture.build_parts(seed, TINY, views))


@pytest.fixture
def sets(dataset: RenderDataset, tmp_path: Path) -> RenderDataset:
    """The same records as one set of four views around a prop."""
    records = [{"prop": 3, "azimuth": 20.0 + 90.0 * i, "elevation": 5.0} for i in range(4)]
    (tmp_path / "shard-001-0000.json").write_text(json.dumps({"views": 4, "records": records}))
    return RenderDataset(tmp_path)


def new_training(views: int = 1) -> train.Training:
    return train.Training(train.TrainingConfig(batch=4, warmup_steps=2, views=views), torch.device("cpu"))


def test_a_set_has_one_look_and_the_captions_of_its_views(sets: RenderDataset) -> None:
    generator = torch.Generator().manual_seed(3)
    batch = sets.sample(8, 64, generator, views=4)
    assert batch.views_of_set == 4 and batch.azimuths.tolist() == [20.0, 110.0, 200.0, 290.0] * 2
    assert len(set(batch.colors[:4].tolist())) == len(set(batch.colors[4:].tolist())) == 1
    # The records are equal, so images of one look, color and background are.
    assert torch.equal(batch.images[0], batch.images[3]) and not torch.equal(batch.images[0], batch.images[4])
    captions = [caption for _ in range(20) for caption in sets.sample(4, 64, generator, views=4).captions]
    full = next(captions[i : i + 4] for i in range(0, 80, 4) if captions[i].endswith(", front view"))
    named = full[0].removesuffix(", front view")
    assert [text.removeprefix(f"{named}, ").split()[0] for text in full] == ["front", "right", "back", "left"]
    with pytest.raises(ValueError, match="sets of 3 views"):
        sets.sample(6, 64, generator, views=3)


def test_shards_of_other_set_sizes_are_not_mixed(sets: RenderDataset, tmp_path: Path) -> None:
    np.save(tmp_path / "shard-002-0000.npy", np.zeros((1, 64, 64, 6), np.uint8))
    entries = [{"prop": 0, "azimuth": 0.0, "elevation": 5.0}]
    (tmp_path / "shard-002-0000.json").write_text(json.dumps({"views": 1, "records": entries}))
    with pytest.raises(ValueError, match=r"sets of \[1, 4\] views"):
        RenderDataset(tmp_path)


def test_multi_view_training_starts_as_the_single_view_model(sets: RenderDataset, tmp_path: Path) -> None:
    """Poses and joined views add nothing before the first step: the new layers are zero, attention has none."""
    first = new_training()
    architecture.save_pipeline(first.averaged_parts(), tmp_path / "weights", torch.float32)
    second = new_training(views=4)
    second.start_from(tmp_path / "weights")
    batch = sets.sample(4, 64, torch.Generator().manual_seed(0))
    losses = [
        train.diffusion_loss(training.parts, batch, torch.Generator().manual_seed(1), 6.0, 0.5)
        for training in (first, second)
    ]
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("views", [1, 4])
def test_resumed_training_is_bitwise_equal(sets: RenderDataset, tmp_path: Path, views: int) -> None:
    def steps(training: train.Training, count: int, generator: torch.Generator) -> None:
        for step, _, _ in train.train(training, sets, 32, 1000, generator):
            if step >= count:
                return

    generator = torch.Generator().manual_seed(0)
    whole = new_training(views)
    steps(whole, 4, generator)
    generator = torch.Generator().manual_seed(0)
    first = new_training(views)
    steps(first, 2, generator)
    first.save(tmp_path / "work", generator)
    second, generator = new_training(views), torch.Generator()
    assert second.restore(tmp_path / "work", generator)
    steps(second, 4, generator)
    for name, value in whole.modules.state_dict().items():
        assert torch.equal(value, second.modules.state_dict()[name]), name
    assert all(torch.equal(value, second.average.values[name]) for name, value in whole.average.values.items())


def test_resumed_image_text_training_is_bitwise_equal(
    dataset: RenderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_image_text, "BATCH", 4)
    textured = train_image_text.TexturedBackgroundDataset(tmp_path, looks=train_image_text.LOOKS)
    whole, first, second = (train_image_text.ImageTextTraining("guide", 0, 10) for _ in range(3))
    losses = [whole.advance(textured) for _ in range(3)]
    assert np.isfinite(losses).all()
    first.advance(textured)
    first.save(tmp_path / "work")
    assert second.restore(tmp_path / "work")
    assert [second.advance(textured) for _ in range(2)] == losses[1:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@pytest.mark.parametrize("name", ["render_images", "train", "train_classifier", "train_image_text", "quality"])
def test_every_command_prints_its_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"tools.starter_training.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0 and "--help" in capsys.readouterr().out


@pytest.mark.slow
def test_loss_falls(dataset: RenderDataset) -> None:
    training, generator, losses = new_training(), torch.Generator().manual_seed(0), []
    for step, _, loss in train.train(training, dataset, 32, 1000, generator):
        losses.append(loss)
        if step == 40:
            break
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:4])


def test_exported_weights_can_be_trained(tmp_path: Path) -> None:
    first = new_training()
    architecture.save_pipeline(first.averaged_parts(), tmp_path / "weights", torch.float32)
    second = train.Training(train.TrainingConfig(seed=5), torch.device("cpu"))
    second.start_from(tmp_path / "weights")
    for name, value in first.modules.state_dict().items():
        assert torch.equal(value, second.modules.state_dict()[name]), name


def test_moving_average_forgets_its_start() -> None:
    layer = torch.nn.Linear(1, 1)
    average = MovingAverage(layer, 0.5)
    with torch.no_grad():
        layer.weight.fill_(4.0)
    for step in range(1, 30):
        average.update(layer, step)
    # The start has a share of at most 0.5^29 = 2e-9; 29 float32 updates round values of 4 by at most 2.4e-7 each.
    assert float(average.values["weight"]) == pytest.approx(4.0, abs=1e-5)


def test_quality_prompts_are_balanced() -> None:
    triples = spread_prompts(512)
    assert len(set(triples)) >= 128
    for column, size in ((0, 16), (1, 8), (2, 4)):
        counts = np.bincount([t[column] for t in triples], minlength=size)
        assert counts.min() == counts.max() == 512 // size
    pairs = {(t[0], t[2]) for t in triples}
    assert len(pairs) == 64


def test_initial_pooled_text_differs_between_prompts() -> None:
    """The mean over prompts has less than a third of the energy of the pooled states."""
    parts = architecture.build_parts(0, TINY)
    prompts = [
        domain.caption(p.name, c, f"{v} view") for p in domain.PROPS for c in domain.COLORS for v in domain.VIEWS
    ]
    pooled = architecture.encode(parts, prompts).detach().mean(dim=1)
    common = pooled.mean(dim=0).square().sum() / pooled.square().sum(dim=1).mean()
    assert float(common) < 1 / 3
