# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that a pipeline needs out of its repository."""

from __future__ import annotations

import json
import shutil

import pytest

from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.models.families import BY_PIPELINE
from dreamwright.backend.models.model_files import missing_files, needed_files
from dreamwright.backend.models.verify import verify_folder
from tests.testing.fake_hub import folder_files
from tests.testing.tiny_families import write_family
from tests.testing.tiny_pipeline import write_pipeline

pytestmark = pytest.mark.usefixtures("only_packaged_models")


SMALL = ("tokenizer_config.json", "special_tokens_map.json")
ENCODER = ("config.json", "model.safetensors", "model.fp16.safetensors", "model.onnx", "flax_model.msgpack")
NETWORK = ("config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
XL_LISTING = [
    "model_index.json", "LICENSE.md", "README.md", "sd_xl_base_1.0.safetensors", "scheduler/scheduler_config.json",
    *(f"{part}/{name}" for part in ("tokenizer", "tokenizer_2") for name in (*SMALL, "vocab.json", "merges.txt")),
    *(f"{part}/{name}" for part in ("text_encoder", "text_encoder_2") for name in ENCODER),
    *(f"{part}/{name}" for part in ("unet", "vae", "vae_1_0") for name in NETWORK),
    "unet/openvino_model.bin", "vae_encoder/config.json",
]  # fmt: skip


def test_sdxl_download_is_half_precision_only():
    needed = needed_files(XL_LISTING, {"_class_name": "StableDiffusionXLPipeline"}, "it")
    weights = [name for name in needed if name.endswith(".safetensors")]
    assert sorted(weights) == [
        "text_encoder/model.fp16.safetensors", "text_encoder_2/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors",
    ]  # fmt: skip
    assert (
        "LICENSE.md" in needed
        and "tokenizer_2/merges.txt" in needed
        and len(needed) == len(set(needed)) == 2 + 1 + 8 + 2 * 4
    )
    assert not [name for name in needed if "vae_" in name or name.endswith((".onnx", ".msgpack", ".bin", "README.md"))]


@pytest.mark.parametrize("name", ["pixel", "sd21", "sdxl", "sd3", "sd3-without-t5"])
def test_required_files_load_every_family(name, tmp_path):
    """Copies the files of a download to an empty folder and loads it."""
    source = write_pipeline(tmp_path / "source") if name == "pixel" else write_family(name, tmp_path)
    index = json.loads((source / "model_index.json").read_text())
    assert index["_class_name"] in BY_PIPELINE
    for name in needed_files(folder_files(source), index, "it"):
        target = tmp_path / "brought" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target)
    assert missing_files(tmp_path / "brought") == []
    assert verify_folder(tmp_path / "brought").sound
    assert load_denoiser(tmp_path / "brought").image_size > 0
