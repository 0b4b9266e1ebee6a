# SPDX-License-Identifier: GPL-3.0-or-later
"""`--lora` of `sample` and `refine`: the images and the provenance of a changed model, and refusals before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from dreamwright.backend.cli.main import main
from dreamwright.backend.models.fingerprint import file_digest
from dreamwright.backend.models.pipeline_folder import load_model, open_pipeline
from tests.testing.local_models import only_packaged_models  # noqa: F401  # a fixture
from tests.testing.lora_writing import random_factors, write_lora
from tests.testing.primitive_meshes import icosphere
from tests.testing.tiny_families import write_family

QUICK = (
    "run.steps=2", "run.views_per_step=1", "camera.views_per_set=1", "guidance.noises=1", "render.resolution=16",
    "run.checkpoint_interval=2", "run.preview_interval=100", "model.image_size=0",
)  # fmt: skip
LAYERS = ("conv_in", "conv_out", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family("sd15", tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def lora(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with large numbers, so that it is seen in an image of 8 bits."""
    network = load_model(open_pipeline(model), "unet", torch.float32, "cpu")
    factors = {
        ("unet", name): random_factors(tuple(network.get_submodule(name).weight.shape), 2, 20.0, seed)
        for seed, name in enumerate(LAYERS)
    }
    return write_lora(tmp_path_factory.mktemp("lora") / "clay.safetensors", factors)


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    vertices, faces = icosphere(1, 0.5)
    lines = [f"v {x} {y} {z}" for x, y, z in vertices.tolist()]
    lines += ["f " + " ".join(str(corner + 1) for corner in face) for face in faces.tolist()]
    path = tmp_path / "ball.obj"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_samples_are_of_the_model_with_its_loras(model: Path, lora: Path, tmp_path: Path) -> None:
    def sample(name: str, *options: str) -> Image.Image:
        out = tmp_path / name
        command = ["sample", "a red mushroom", "--model", str(model), "--steps", "2", "--out", str(out), *options]
        assert main(command) == 0
        return Image.open(out)

    plain, changed = sample("plain.png"), sample("changed.png", "--lora", f"{lora}:0.8")
    none = sample("none.png", "--lora", f"{lora}:0")
    assert changed.tobytes() != plain.tobytes() == none.tobytes()
    assert changed.text["loras"] == f"{file_digest(lora)} 0.8" and "loras" not in plain.text


def test_a_refined_mesh_names_its_loras(model: Path, lora: Path, ball: Path, tmp_path: Path) -> None:
    out = tmp_path / "refined.glb"
    settings = [part for setting in QUICK for part in ("--set", setting)]
    command = ["refine", str(ball), "a red mushroom", "--model", str(model), "--out", str(out), *settings]
    assert main([*command, "--lora", f"{lora}:0.5"]) == 0
    content = out.read_bytes()
    length = int.from_bytes(content[12:16], "little")  # of the JSON chunk, which follows the header of 12 bytes
    document = json.loads(content[20 : 20 + length])
    assert document["asset"]["extras"]["loras"] == [f"{file_digest(lora)} 0.5"]


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("sample", "gone.safetensors", "there is no LoRA"),
        ("refine", "gone.safetensors", "there is no LoRA"),
        ("sample", "a:99", "allowed are -10 to 10"),
        ("refine", "a;b", "one for each --lora"),
    ],
)
def test_a_wrong_lora_is_one_line_and_no_file(
    name: str, given: str, words: str, model: Path, ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("x.png" if name == "sample" else "x.glb")
    subject = ["a red mushroom"] if name == "sample" else [str(ball), "a red mushroom"]
    assert main([name, *subject, "--model", str(model), "--out", str(out), "--lora", given]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error
    assert not out.exists()


@pytest.mark.usefixtures("only_packaged_models")
def test_the_starter_takes_no_lora(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.png"
    assert main(["sample", "a red mushroom", "--out", str(out), "--lora", str(lora)]) == 2
    assert "LoRA" in capsys.readouterr().err and not out.exists()
