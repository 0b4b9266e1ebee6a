# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright sample` on a tiny model: outputs and refusals."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from PIL import Image

from dreamwright.backend.cli import sample
from dreamwright.backend.errors import ConfigError, ExportError, ModelError, PromptError
from dreamwright.backend.io.images import GAP, image_grid
from dreamwright.backend.models import local
from tests.testing.tiny_pipeline import write_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("models") / "tiny")


def call(*words: object) -> int:
    parser = argparse.ArgumentParser()
    sample.add_arguments(parser.add_subparsers())
    return sample.run(parser.parse_args(["sample", *map(str, words)]))


def test_grid_of_samples_with_provenance(model, tmp_path, capsys):
    out = tmp_path / "x.png"
    words = (
        "A red mushroom",
        "--out",
        out,
        "--model",
        model,
        "--steps",
        3,
        "--count",
        3,
        "--view",
        "back",
        "--seed",
        4,
    )
    assert call(*words) == 0
    grid = Image.open(out)
    assert grid.size == (34, 34) and grid.mode == "RGB"
    assert grid.text["prompt"] == "A red mushroom, back view" and grid.text["seed"] == "4"
    first = np.asarray(grid)
    assert call(*words) == 0
    assert np.array_equal(first, np.asarray(Image.open(out)))
    assert "wrote" in capsys.readouterr().out


def test_symmetric_images_are_mirrored(model, tmp_path):
    out = tmp_path / "x.png"
    call("a blue chair", "--out", out, "--model", model, "--method", "sds", "--symmetric", "--steps", 4)
    pixels = np.asarray(Image.open(out))
    assert pixels.shape == (16, 16, 3) and np.array_equal(pixels, pixels[:, ::-1])


@pytest.mark.parametrize(
    "words, error, message",
    [
        (["--out", "{}/x.jpg"], ExportError, "allowed is .png"),
        (["--out", "{}/none/x.png"], ExportError, "no folder"),
        (["--out", "{}/folder.png"], ExportError, "is a directory"),
        (["--out", "{}/x.png", "--steps", "-1"], ConfigError, "--steps -1"),
        (["--out", "{}/x.png", "--count", "0"], ConfigError, "--count 0"),
        (["--out", "{}/x.png", "--omega", "nan"], ConfigError, "--omega nan"),
        (["--out", "{}/x.png", "--seed", "-3"], ConfigError, "--seed -3"),
        (["--out", "{}/x.png", "--symmetric"], ConfigError, "--method sds"),
        (["--out", "{}/x.png", "--device", "toaster"], ConfigError, "--device 'toaster'"),
    ],
)
def test_bad_arguments_are_refused_before_loading(tmp_path, monkeypatch, words, error, message):
    def refuse(*args, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(local, "resolve_model", refuse)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(error, match=message) as caught:
        call("a red mushroom", *(word.format(tmp_path) for word in words))
    assert "\n" not in str(caught.value)


def test_refusals_overwrite_nothing(model, tmp_path):
    out = tmp_path / "x.png"
    out.write_bytes(b"old")
    for prompt, chosen, error in (
        ("", model, PromptError),
        ("x" * 10_000, model, PromptError),
        ("a gryphon", model, PromptError),
        ("a red mushroom", "no-such-model", ModelError),
        ("a red mushroom", tmp_path, ModelError),
    ):
        with pytest.raises(error):
            call(prompt, "--out", out, "--model", chosen)
    assert out.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_grid_is_in_reading_order():
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 2, 4) / 10
    grid = image_grid(images)
    assert grid.shape == (3, 2 * 2 + GAP, 3 * 4 + 2 * GAP)
    # Images are copied, so values are equal; 3 / 10 and 0.3 are the same float32.
    assert torch.equal(grid[0, 0, [0, 6, 12]], torch.tensor([0.0, 1.0, 2.0]) / 10)
    assert torch.equal(grid[0, -1, [0, 6, 12]], torch.tensor([3.0, 4.0, 10.0]) / 10)
