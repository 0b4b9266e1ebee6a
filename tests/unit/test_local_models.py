# SPDX-License-Identifier: GPL-3.0-or-later
"""Models are found by name, repository and folder; what cannot be used is refused with a reason."""

from __future__ import annotations

import json
import logging
import re
import shutil
import struct
from pathlib import Path

import pytest

from dreamwright.backend.errors import ModelError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.models.download_record import DownloadRecord, read_record, record_path, write_record
from dreamwright.backend.models.local import local_models, resolve_model
from dreamwright.backend.models.record_file import HubFile, is_inside
from dreamwright.backend.models.registry import BY_NAME, STARTER
from dreamwright.backend.models.unsafe_weights import unsafe_weights_found
from tests.testing.fake_hub import safetensors_bytes
from tests.testing.local_models import write_snapshot

pytestmark = pytest.mark.usefixtures("only_packaged_models")


def test_local_folder_shadows_a_model_with_one_warning(pipeline_folder, tmp_path, caplog):
    packaged = resolve_model(STARTER)
    (tmp_path / STARTER).mkdir()
    assert resolve_model(STARTER) == packaged, "a folder with other contents is no model"
    shutil.copytree(pipeline_folder, tmp_path / STARTER, dirs_exist_ok=True)
    with caplog.at_level(logging.WARNING):
        assert resolve_model(STARTER) == Path(STARTER) == resolve_model(STARTER)
    assert (
        len(caplog.records) == 1
        and str(tmp_path / STARTER) in caplog.text
        and "not the model named 'starter'" in caplog.text
    )
    assert resolve_model(f"./{STARTER}").resolve() == tmp_path / STARTER, "a path is a path"


def test_local_folder_precedes_a_repository(pipeline_folder, tmp_path):
    where = tmp_path / "stabilityai" / "stable-diffusion-xl-base-1.0"
    with pytest.raises(ModelError, match="`dreamwright models download sdxl`"):
        resolve_model("stabilityai/stable-diffusion-xl-base-1.0")
    shutil.copytree(pipeline_folder, where)
    assert resolve_model("stabilityai/stable-diffusion-xl-base-1.0").resolve() == where


def test_models_in_the_hub_cache_are_found(pipeline_folder):
    home = BY_NAME["sdxl"].sources[0]
    newer = write_snapshot(pipeline_folder, home.repo_id, "f" * 40)
    assert resolve_model("sdxl") == newer == resolve_model(home.repo_id)
    expected = write_snapshot(pipeline_folder, home.repo_id, home.revision or "")
    assert resolve_model("sdxl") == expected, "the expected revision comes first"
    (expected / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert resolve_model("sdxl") == newer, "a complete snapshot precedes an incomplete one of the expected revision"
    other = write_snapshot(pipeline_folder, "someone/thing", "a" * 40)
    assert resolve_model("someone/thing") == other, "so is a repository outside the registry"


@pytest.mark.parametrize(
    "missing",
    [
        "unet/diffusion_pytorch_model.safetensors", "unet/config.json", "text_encoder/model.safetensors",
        "text_encoder/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json", "model_index.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dangling", [True, False])
def test_incomplete_snapshot_is_absent_with_a_reason(pipeline_folder, missing, dangling):
    """The blob was deleted and its link remains, or the download was interrupted."""
    folder = write_snapshot(pipeline_folder, BY_NAME["sdxl"].sources[0].repo_id, "f" * 40)
    assert resolve_model("sdxl") == folder
    file = folder / missing
    file.resolve().unlink()
    if not dangling:
        file.unlink()
    status = {model.name: model for model in local_models()}["sdxl"]
    assert not status.available and str(folder) in status.how_to_get and f"lacks {missing}" in status.how_to_get
    assert "`dreamwright models download sdxl`" in status.how_to_get
    with pytest.raises(ModelError, match=re.escape(f"lacks {missing}")):
        resolve_model("sdxl")
    with pytest.raises(ModelError, match=rf"{re.escape(file.parent.name)} holds no weights|{re.escape(file.name)}"):
        load_denoiser(folder)


def test_mirror_copy_is_the_model(pipeline_folder):
    mirror = BY_NAME["sd-1.5"].sources[-1].repo_id
    folder = write_snapshot(pipeline_folder, mirror, "a" * 40)
    assert {model.name: model.folder for model in local_models()}["sd-1.5"] == folder


def test_invalid_model_arguments_are_named(pipeline_folder, tmp_path):
    lora = tmp_path / "style.safetensors"
    entry = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    header = json.dumps({"lora_unet_down.lora_down.weight": entry}).encode()
    lora.write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    (tmp_path / "checkpoint.safetensors").write_bytes(safetensors_bytes(4))
    for name in ("quantized.gguf", "old.ckpt", "keras.h5", "damaged.safetensors"):
        (tmp_path / name).write_bytes(b"?" * 9)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    for given, text in {
        "style.safetensors": "is a LoRA file",
        "checkpoint.safetensors": "is a checkpoint in a single file",
        "quantized.gguf": "is a GGUF file",
        "old.ckpt": "is a file of pickled weights, which can run programs when read",
        "keras.h5": "is a file of weights of another library",
        "damaged.safetensors": "is no safetensors file",
        "adapter": r"is a LoRA \(adapter_config.json\)",
        "nobody/nothing": "`dreamwright models download nobody/nothing`",
        "./nowhere": "there is no model folder './nowhere'",
        "x" * 5000: "cannot be read",
    }.items():
        with pytest.raises(ModelError, match=text) as caught:
            resolve_model(given)
        assert "\n" not in str(caught.value) and "sdxl" in str(caught.value), "one line with the known names"


def test_unread_weights_are_described():
    """torch pickles are reported before files of other libraries. Tokenizer files are no weights."""
    assert (
        unsafe_weights_found(["vocab.json", "flax_model.msgpack", "pytorch_model.bin"])
        == "only pickled weights (pytorch_model.bin)"
    )
    assert unsafe_weights_found(["x.pth"], "unet") == "only pickled weights of its unet (x.pth)"
    assert unsafe_weights_found(["tf_model.h5"], "unet") == "only weights of another library of its unet (tf_model.h5)"
    assert (
        unsafe_weights_found(["vocab.json"]) == "no weights"
        and unsafe_weights_found([], "unet") == "no weights of its unet"
    )


def test_partial_download_names_the_resume_command(pipeline_folder):
    weights = pipeline_folder / "unet" / "diffusion_pytorch_model.safetensors"
    files = (
        HubFile("unet/diffusion_pytorch_model.safetensors", weights.stat().st_size, "0" * 64),
        HubFile("model_index.json", 1),
    )
    home = BY_NAME["sdxl"].sources[0]
    write_record(pipeline_folder, DownloadRecord(home.repo_id, "a" * 40, "main", False, files))
    weights.unlink()
    with pytest.raises(
        ModelError,
        match=re.escape(
            f"half downloaded ({files[0].path} missing); `dreamwright models download sdxl --to {pipeline_folder}`"
        ),
    ):
        resolve_model(pipeline_folder)


def test_damaged_record_is_a_one_line_error(pipeline_folder):
    record_path(pipeline_folder).parent.mkdir()
    for content in (
        "{",
        "[]",
        '{"files": [{"path": "../x", "size": 1}], "repo_id": "a/b", "revision": "", "requested": "", "complete": true}',
    ):
        record_path(pipeline_folder).write_text(content)
        with pytest.raises(ModelError, match="cannot read the download's record .*delete that file"):
            read_record(pipeline_folder)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a//b", "a/../b", "c:\\x", "a/b\\..\\c", "", "."])
def test_paths_outside_the_folder_are_refused(path):
    assert not is_inside(path) and is_inside("unet/model-00001-of-00002.safetensors")
