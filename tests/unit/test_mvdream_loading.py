# SPDX-License-Identifier: GPL-3.0-or-later
"""MVDream's folder: what is read of it, and its faults, each one line before a weight is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamwright.backend.errors import ModelError
from dreamwright.backend.guidance.denoisers import loading
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.models import mvdream_network
from dreamwright.backend.models.local import registered_model, resolve_model
from dreamwright.backend.models.model_files import missing_files, needed_files
from dreamwright.backend.models.mvdream_layout import diffusers_config
from dreamwright.backend.models.pipeline_folder import open_pipeline
from dreamwright.backend.models.unsupported_files import unsupported_kind
from dreamwright.backend.models.verify import verify_folder
from tests.testing.fake_hub import folder_files
from tests.testing.family_folders import edit
from tests.testing.mvdream_reference import PUBLISHED_CONFIG
from tests.testing.tiny_mvdream import INDEX, WEIGHTS, write_mvdream

CAMERA = "camera_embed.0.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mvdream(tmp_path_factory.mktemp("models") / "mvdream")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(sound, tmp_path / "mvdream"))


@pytest.fixture
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading weights of the U-Net or of the VAE, which is loaded before it, fails the test."""

    def read(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(mvdream_network, "_read", read)
    monkeypatch.setattr(loading, "load_vae", read)


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_denoiser(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_published_folder_is_sound_and_its_code_is_left_alone(sound: Path, tmp_path: Path) -> None:
    needed = needed_files(folder_files(sound), json.loads((sound / "model_index.json").read_text()), "it")
    assert WEIGHTS in needed and "unet/config.json" in needed and not [name for name in needed if name.endswith(".py")]
    for name in needed:
        (tmp_path / "brought" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sound / name, tmp_path / "brought" / name)
    assert missing_files(tmp_path / "brought") == [] and verify_folder(tmp_path / "brought").sound
    # diffusers writes [module, class] where a folder brings its pipeline's code.
    edit(tmp_path / "brought" / "model_index.json", _class_name=["pipeline_mvdream", "MVDreamPipeline"])
    assert open_pipeline(tmp_path / "brought").pipeline == "MVDreamPipeline"
    assert verify_folder(tmp_path / "brought").sound


def test_the_published_configuration_is_stable_diffusion_2s() -> None:
    config = diffusers_config(PUBLISHED_CONFIG, "it")
    # As unet/config.json of stable-diffusion-2-1-base has it, but for the size.
    assert config["sample_size"] == 32 and config["block_out_channels"] == [320, 640, 1280, 1280]
    assert config["attention_head_dim"] == [5, 10, 20, 20] and config["cross_attention_dim"] == 1024
    assert config["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert config["up_block_types"] == ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"ip_dim": 16}, "ip_dim 16, so it is ImageDream, which starts from an image; .*`dreamwright models download"),
        ({"camera_dim": 12}, "camera_dim 12; allowed is 16"),
        ({"use_linear_in_transformer": False}, "use_linear_in_transformer False; allowed is True"),
        ({"resblock_updown": True}, "resblock_updown True; allowed is False"),
        ({"channel_mult": []}, r"channel_mult \[\]; needed: positive whole numbers"),
        ({"channel_mult": 4}, "channel_mult 4; needed: positive whole numbers"),
        ({"num_res_blocks": [1, 1]}, r"num_res_blocks \[1, 1\]; needed: one positive whole number"),
        ({"model_channels": "32"}, "model_channels '32'; needed: one positive whole number"),
        ({"num_head_channels": True}, "num_head_channels True; needed: one positive whole number"),
        ({"num_head_channels": 12}, "num_head_channels 12; allowed are numbers that divide 32 and 64"),
        ({"model_channels": 40}, "model_channels 40; allowed are multiples of 32"),
        ({"in_channels": 9}, "9 input and 4 output channels; allowed are 4 and 4"),
        ({"context_dim": 20}, "has width 16, its unet wants 20"),
        ({"image_size": 32}, None),
        ({"channel_mult": [1, 1]}, "lack or misfit"),
        ({"num_res_blocks": 2}, "lack or misfit"),
        ({"attention_resolutions": [2]}, "lack or misfit"),
    ],
)
@pytest.mark.usefixtures("nothing_read")
def test_configurations_of_other_networks_are_refused(folder: Path, changes: dict, message: str | None) -> None:
    edit(folder / "unet" / "config.json", **changes)
    if message is None:  # a size is the user's choice: the network has none of its own
        with pytest.raises(AssertionError, match="weights were read"):
            load_denoiser(folder)
    else:
        with pytest.raises(ModelError, match=message):
            load_denoiser(folder)
        assert refused(folder)


@pytest.mark.usefixtures("nothing_read")
def test_missing_fields_are_named(folder: Path) -> None:
    config = json.loads((folder / "unet" / "config.json").read_text())
    for name in ("camera_dim", "context_dim"):
        (folder / "unet" / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != name}))
        assert f"config.json lacks {name}; download the model again" in refused(folder)


DAMAGES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "a tensor is missing": (lambda w: w.pop(CAMERA), r"lack or misfit 1 tensors \(class_embedding.linear_1.weight"),
    "a tensor is of another shape": (
        lambda w: w.update({CAMERA: torch.zeros(128, 12)}), r"lack or misfit 1 tensors \(camera_embed.0.weight"
    ),
    "a tensor has no place": (
        lambda w: w.update({"image_embed.latents": torch.zeros(2)}), r"hold 1 tensors .*\(image_embed.latents"
    ),
    "a tensor of the whole checkpoint": (
        lambda w: w.update({f"model.diffusion_model.{CAMERA}": w[CAMERA].clone()}),
        r"hold 1 tensors .*model.diffusion_model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.usefixtures("nothing_read")
def test_other_weights_are_refused(folder: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(ModelError, match=message):
        load_denoiser(folder)
    assert refused(folder)


def test_weights_may_lie_in_shards(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    halves = [dict(list(weights.items())[part::2]) for part in (0, 1)]
    shards = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for shard, half in zip(shards, halves, strict=True):
        save_file(half, folder / "unet" / shard)
    table = {name: shard for shard, half in zip(shards, halves, strict=True) for name in half}
    index = {"metadata": {}, "weight_map": table}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    loaded = load_denoiser(folder).network.state_dict()
    assert torch.equal(loaded["class_embedding.inner.linear_1.weight"], weights[CAMERA])
    save_file(halves[0] | {CAMERA: weights[CAMERA]}, folder / "unet" / shards[0])
    save_file(halves[1] | {CAMERA: weights[CAMERA]}, folder / "unet" / shards[1])
    assert "hold 1 tensors" in refused(folder), "a tensor in two files"


def test_imagedream_is_refused_before_it_is_downloaded(folder: Path) -> None:
    index = {**INDEX, "image_encoder": ["transformers", "CLIPVisionModel"]}
    with pytest.raises(ModelError, match="it is ImageDream, which starts from an image"):
        needed_files(folder_files(folder), index, "its repository")
    edit(folder / "model_index.json", **index)
    assert "it is ImageDream" in refused(folder)


def test_pickles_and_single_files_name_the_way_to_the_weights(folder: Path, tmp_path: Path) -> None:
    way = "`dreamwright models download mvdream` brings"
    assert way in unsupported_kind(["README.md", "sd-v1.5-4view.pt", "sd-v2.1-base-4view.pt"])
    pickle = tmp_path / "sd-v2.1-base-4view.pt"
    pickle.write_bytes(b"never read")
    single = tmp_path / "mvdream.safetensors"
    save_file({f"model.diffusion_model.{CAMERA}": torch.zeros(1)}, single)
    for path in (pickle, single):
        with pytest.raises(ModelError, match="is MVDream's") as caught:
            resolve_model(str(path))
        assert way in str(caught.value) and "\n" not in str(caught.value)
    (folder / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "only pickled weights (diffusion_pytorch_model.bin)" in refused(folder)


def test_the_registry_names_its_sources() -> None:
    model = registered_model("ashawkey/mvdream-sd2.1-diffusers")
    assert model is not None and model.name == "mvdream" and not model.gated
