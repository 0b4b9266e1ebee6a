# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged model folders are refused by name or give equal outputs, and never fall back to library defaults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamwright.backend.errors import ModelError
from dreamwright.backend.guidance.clip_model import load_image_text
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.models import pipeline_folder
from dreamwright.backend.models.verify import verify_folder
from tests.testing.tiny_clip import write_clip
from tests.testing.tiny_families import FAMILIES, write_family
from tests.testing.tiny_pipeline import write_pipeline

NAMES = ("pixel", *FAMILIES, "clip")
PROMPTS = ["a red mushroom", "a blue chair, front view", ""]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("whole")
    made = {name: write_family(name, work / name) for name in FAMILIES}
    return made | {"pixel": write_pipeline(work / "pixel"), "clip": write_clip(work / "clip")}


def numbers(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The outputs of a model that a run uses: embeddings, noise levels, a prediction, latents."""
    if name == "clip":
        model = load_image_text(folder)
        pixels = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(1))
        return {"images": model.embed_images(pixels), "text": model.embed_prompts(PROMPTS)}
    denoiser: Any = load_denoiser(folder)
    conditioning = denoiser.embed(PROMPTS)
    generator = torch.Generator().manual_seed(1)
    t = torch.tensor([0.1, 0.5, 0.9])
    levels = torch.stack(denoiser.alpha_sigma(t))
    found = {**conditioning.tensors, "levels": levels, "time": denoiser.model_timestep(t)}
    if hasattr(denoiser, "encode"):
        x = 2 * torch.rand(3, 3, denoiser.image_size, denoiser.image_size, generator=generator) - 1
        z = denoiser.encode(x, generator)
        found |= {"latents": z, "decoded": denoiser.decode(z)}
    else:
        z = torch.randn(3, 3, denoiser.image_size, denoiser.image_size, generator=generator)
    return found | {"noise": denoiser.predict_noise(z, t, conditioning)}


def check_refused_or_same(folder: Path, name: str, whole: dict[str, torch.Tensor], what: str) -> str:
    """ "refused" or "same". A refused damage must be a fault in `verify` as well."""
    try:
        found = numbers(folder, name)
    except ModelError as error:
        assert "\n" not in str(error)
        assert not is_sound(folder), f"verify accepts {what}, which is refused: {error}"
        return "refused"
    for key, value in whole.items():
        assert torch.equal(found[key], value), f"{what} changes {key} without a word"
    return "same"


def is_sound(folder: Path) -> bool:
    try:
        return verify_folder(folder).sound
    except ModelError:
        return False


def damaged(path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Ways to damage a file: removed, empty, cut in half, an empty object, a link to nothing."""
    content = path.read_bytes()
    yield "removed", path.unlink
    yield "empty", lambda: path.write_bytes(b"")
    yield "cut in half", lambda: path.write_bytes(content[: len(content) // 2])
    yield "a link to nothing", lambda: (path.unlink(), path.symlink_to("nothing"))
    if path.suffix == ".json":
        yield "{}", lambda: path.write_text("{}")


@pytest.mark.parametrize("name", NAMES)
def test_missing_or_damaged_files_are_refused_by_name(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders[name], tmp_path / "m"))
    whole = numbers(folder, name)
    assert is_sound(folder)
    same = set()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        content = path.read_bytes()
        for way, damage in damaged(path):
            damage()
            if check_refused_or_same(folder, name, whole, f"{path.relative_to(folder)} {way}") == "same":
                same.add((path.name, way))
            path.unlink(missing_ok=True)
            path.write_bytes(content)
    # A word-level tokenizer is its own vocabulary; a tokenizer with one token per letter has no merges.
    assert same <= {("domain.json", "removed"), ("merges.txt", "cut in half")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pixel", "sd15", "sdxl", "sd3", "clip"])
def test_missing_configuration_fields_are_refused_or_harmless(
    folders: dict[str, Path], name: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders[name], tmp_path / "m"))
    whole = numbers(folder, name)
    refused = 0
    for path in sorted(folder.rglob("*.json")):
        content = path.read_text()
        for key in json.loads(content):
            path.write_text(json.dumps({k: v for k, v in json.loads(content).items() if k != key}))
            found = check_refused_or_same(folder, name, whole, f"{path.relative_to(folder)} without {key}")
            refused += found == "refused"
            path.write_text(content)
    assert refused > 20


def test_damage_is_found_before_weights_are_loaded(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_folder, "load_checked", lambda *_: pytest.fail("a weight was loaded"))
    for name in FAMILIES:
        folder = Path(shutil.copytree(folders[name], tmp_path / name))
        for path in sorted(file for file in folder.rglob("*") if file.is_file()):
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            with pytest.raises(ModelError):
                load_denoiser(folder)
            path.write_bytes(content)


def test_fewer_layers_than_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """diffusers would only log the unused tensors and run a shallower network."""
    folder = Path(shutil.copytree(folders["sd15"], tmp_path / "m"))
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1}))
    with pytest.raises(ModelError, match="tensors that config.json has no place for"):
        numbers(folder, "sd15")


@pytest.mark.parametrize(
    ("part", "name", "class_name", "keys"),
    [
        ("vae", "sdxl", "AutoencoderKL", {"scaling_factor"}),
        ("vae", "sd3", "AutoencoderKL", {"scaling_factor", "shift_factor"}),
        ("unet", "sd15", "UNet2DConditionModel", {"act_fn", "norm_eps", "attention_head_dim", "flip_sin_to_cos"}),
        ("text_encoder", "sd15", "CLIPTextModel", {"hidden_act", "num_attention_heads", "layer_norm_eps"}),
        ("scheduler", "sd15", "PNDMScheduler", {"beta_start", "beta_end", "beta_schedule", "num_train_timesteps"}),
        ("scheduler", "sd21", "DDIMScheduler", {"prediction_type"}),
        ("scheduler", "sd3", "FlowMatchEulerDiscreteScheduler", {"shift"}),
    ],
)
def test_fields_without_safe_defaults_are_required(
    folders: dict[str, Path], tmp_path: Path, part: str, name: str, class_name: str, keys: set[str]
) -> None:
    folder = Path(shutil.copytree(folders[name], tmp_path / "m"))
    path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    content = json.loads(path.read_text()) | {"_diffusers_version": "0.21.4", "transformers_version": "4.30.0"}
    for key in keys:
        path.write_text(json.dumps({k: v for k, v in content.items() if k != key}))
        with pytest.raises(ModelError, match=f"lacks {key}; needed .* {class_name}"):
            pipeline_folder.open_pipeline(folder)


def test_model_in_the_layout_of_stable_diffusion_1_loads(folders: dict[str, Path], tmp_path: Path) -> None:
    """diffusers 0.6: no prediction_type, no scaling_factor, none of the fields that came later."""
    folder = Path(shutil.copytree(folders["sd15"], tmp_path / "m"))
    whole = numbers(folder, "sd15")
    old_vae = {
        "act_fn", "block_out_channels", "down_block_types", "in_channels", "latent_channels", "layers_per_block",
        "norm_num_groups", "out_channels", "sample_size", "up_block_types",
    }  # fmt: skip
    old_scheduler = {
        "beta_end", "beta_schedule", "beta_start", "num_train_timesteps", "set_alpha_to_one", "skip_prk_steps",
        "steps_offset", "trained_betas",
    }  # fmt: skip
    for path, kept in (
        (folder / "vae" / "config.json", old_vae),
        (folder / "scheduler" / "scheduler_config.json", old_scheduler),
    ):
        content = {key: value for key, value in json.loads(path.read_text()).items() if key in kept}
        path.write_text(json.dumps(content | {"_diffusers_version": "0.6.0"}))
    found = numbers(folder, "sd15")
    assert all(torch.equal(found[key], whole[key]) for key in whole)
