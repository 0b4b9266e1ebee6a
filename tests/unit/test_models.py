# SPDX-License-Identifier: GPL-3.0-or-later
"""The model registry, lookup by name, required files, and offline verification."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from dreamwright.backend.errors import ModelError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.models import local
from dreamwright.backend.models.download_record import (
    DownloadRecord,
    HubFile,
    is_inside,
    read_record,
    record_path,
    write_record,
)
from dreamwright.backend.models.families import BY_PIPELINE
from dreamwright.backend.models.local import local_models, resolve_model
from dreamwright.backend.models.model_files import missing_files, needed_files
from dreamwright.backend.models.registry import BY_NAME, BY_REPO, MODELS, PACKAGED, STARTER
from dreamwright.backend.models.safetensors_header import header_error
from dreamwright.backend.models.unsafe_weights import unsafe_weights_found
from dreamwright.backend.models.verify import verify_folder
from dreamwright.backend.server.requests import capabilities
from tests.testing.fake_hub import folder_files, git_sha1, safetensors_bytes
from tests.testing.tiny_families import write_family
from tests.testing.tiny_pipeline import write_pipeline


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("written") / "tiny")


@pytest.fixture
def tiny(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "tiny"))


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty model folders and an empty hub cache: only the packaged model exists."""
    monkeypatch.setenv("DREAMWRIGHT_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    local._warn_hidden.cache_clear()


def snapshot(source: Path, repo_id: str, revision: str) -> Path:
    """The pipeline in the layout of the hub's cache: blobs named by hash, and links to them."""
    repository = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
    folder = repository / "snapshots" / revision
    for name, content in folder_files(source).items():
        digest = hashlib.sha256(content).hexdigest() if name.endswith(".safetensors") else git_sha1(content)
        blob = repository / "blobs" / digest
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return folder


# --- the registry ---


def test_registry_entries_are_complete():
    assert [model.name for model in MODELS] == list(BY_NAME) and MODELS[0].name == STARTER
    assert {"deepfloyd-if", "deepfloyd-if-l", "deepfloyd-if-m", "sd-1.5", "sd-2.1-base", "sdxl", "sd3-medium"} < set(
        BY_NAME
    )
    for model in MODELS[1:]:
        assert model.license and model.memory_gb > 0 and model.text_encoder_gb > 0
        assert (model.download_gb > 0) == bool(model.sources) and bool(model.sources) != (model.name in PACKAGED)
        for home in model.sources:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", home.repo_id) and (
                home.revision is None or re.fullmatch(r"[0-9a-f]{40}", home.revision)
            )
            assert BY_REPO[home.repo_id.lower()] is model
    assert len(BY_REPO) == sum(len(model.sources) for model in MODELS), "no source serves two models"
    gone = ("runwayml/", "stabilityai/stable-diffusion-2")
    assert not [name for name in BY_REPO if name.startswith(gone)], "removed sources are not listed"


def test_models_page_matches_the_registry():
    page = (Path(__file__).resolve().parents[2] / "docs" / "user" / "models.md").read_text(encoding="utf-8")
    table = (line.split("|") for line in page.splitlines() if line.startswith("| `"))
    rows = {cells[1].strip("` "): [cell.strip() for cell in cells[3:-1]] for cells in table}
    assert list(rows) == list(BY_NAME)
    for model in MODELS:
        license, gate, memory, text, size = rows[model.name]
        assert model.license.startswith(license) and gate == ("yes" if model.gated else "no")
        assert [memory, text] == [f"{model.memory_gb:g} GB", f"{model.text_encoder_gb:g} GB"]
        assert size == (f"{model.download_gb:g} GB" if model.sources else "none")
    assert all(pipeline in page for pipeline in BY_PIPELINE)


def test_absent_models_name_their_download_command():
    cards = {card.name: card for card in capabilities(("cpu",)).models}
    assert cards[STARTER].ready and not cards[STARTER].missing
    assert not cards["sdxl"].ready and "`dreamwright models download sdxl`" in cards["sdxl"].missing
    for name in ("deepfloyd-if", "sd3-medium"):
        assert BY_NAME[name].sources[0].url in cards[name].missing and "`hf auth login`" in cards[name].missing


def test_listing_models_imports_no_heavy_library():
    code = (
        "import sys; from dreamwright.backend.cli.main import main; main(['models']);"
        "heavy = ('torch', 'diffusers', 'transformers', 'httpx', 'httpx2', 'requests');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


# --- lookup by name ---


def test_local_folder_shadows_a_model_with_one_warning(tiny, tmp_path, caplog):
    packaged = resolve_model(STARTER)
    (tmp_path / STARTER).mkdir()
    assert resolve_model(STARTER) == packaged, "a folder with other contents is no model"
    shutil.copytree(tiny, tmp_path / STARTER, dirs_exist_ok=True)
    with caplog.at_level(logging.WARNING):
        assert resolve_model(STARTER) == Path(STARTER) == resolve_model(STARTER)
    assert (
        len(caplog.records) == 1
        and str(tmp_path / STARTER) in caplog.text
        and "not the model named 'starter'" in caplog.text
    )
    assert resolve_model(f"./{STARTER}").resolve() == tmp_path / STARTER, "a path is a path"


def test_local_folder_precedes_a_repository(tiny, tmp_path):
    where = tmp_path / "stabilityai" / "stable-diffusion-xl-base-1.0"
    with pytest.raises(ModelError, match="`dreamwright models download sdxl`"):
        resolve_model("stabilityai/stable-diffusion-xl-base-1.0")
    shutil.copytree(tiny, where)
    assert resolve_model("stabilityai/stable-diffusion-xl-base-1.0").resolve() == where


def test_models_in_the_hub_cache_are_found(tiny):
    home = BY_NAME["sdxl"].sources[0]
    newer = snapshot(tiny, home.repo_id, "f" * 40)
    assert resolve_model("sdxl") == newer == resolve_model(home.repo_id)
    expected = snapshot(tiny, home.repo_id, home.revision or "")
    assert resolve_model("sdxl") == expected, "the expected revision comes first"
    (expected / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert resolve_model("sdxl") == newer, "a complete snapshot precedes an incomplete one of the expected revision"
    other = snapshot(tiny, "someone/thing", "a" * 40)
    assert resolve_model("someone/thing") == other, "so is a repository outside the registry"


@pytest.mark.parametrize(
    "gone",
    [
        "unet/diffusion_pytorch_model.safetensors", "unet/config.json", "text_encoder/model.safetensors",
        "text_encoder/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json", "model_index.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dangling", [True, False])
def test_incomplete_snapshot_is_absent_with_a_reason(tiny, gone, dangling):
    """The blob was deleted and its link remains, or the download was interrupted."""
    folder = snapshot(tiny, BY_NAME["sdxl"].sources[0].repo_id, "f" * 40)
    assert resolve_model("sdxl") == folder
    file = folder / gone
    file.resolve().unlink()
    if not dangling:
        file.unlink()
    status = {model.name: model for model in local_models()}["sdxl"]
    assert not status.available and str(folder) in status.how_to_get and f"lacks {gone}" in status.how_to_get
    assert "`dreamwright models download sdxl`" in status.how_to_get
    with pytest.raises(ModelError, match=re.escape(f"lacks {gone}")):
        resolve_model("sdxl")
    with pytest.raises(ModelError, match=rf"{re.escape(file.parent.name)} holds no weights|{re.escape(file.name)}"):
        load_denoiser(folder)


def test_mirror_copy_is_the_model(tiny):
    mirror = BY_NAME["sd-1.5"].sources[-1].repo_id
    folder = snapshot(tiny, mirror, "a" * 40)
    assert {model.name: model.folder for model in local_models()}["sd-1.5"] == folder


def test_invalid_model_arguments_are_named(tiny, tmp_path):
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


def test_partial_download_names_the_resume_command(tiny):
    weights = tiny / "unet" / "diffusion_pytorch_model.safetensors"
    files = (
        HubFile("unet/diffusion_pytorch_model.safetensors", weights.stat().st_size, "0" * 64),
        HubFile("model_index.json", 1),
    )
    home = BY_NAME["sdxl"].sources[0]
    write_record(tiny, DownloadRecord(home.repo_id, "a" * 40, "main", False, files))
    weights.unlink()
    with pytest.raises(
        ModelError,
        match=re.escape(f"half downloaded ({files[0].path} missing); `dreamwright models download sdxl --to {tiny}`"),
    ):
        resolve_model(tiny)


def test_damaged_record_is_a_one_line_error(tiny):
    record_path(tiny).parent.mkdir()
    for content in (
        "{",
        "[]",
        '{"files": [{"path": "../x", "size": 1}], "repo_id": "a/b", "revision": "", "asked": "", "complete": true}',
    ):
        record_path(tiny).write_text(content)
        with pytest.raises(ModelError, match="cannot read the download's record .*delete that file"):
            read_record(tiny)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a//b", "a/../b", "c:\\x", "a/b\\..\\c", "", "."])
def test_paths_outside_the_folder_are_refused(path):
    assert not is_inside(path) and is_inside("unet/model-00001-of-00002.safetensors")


# --- required files ---

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


# --- verification ---


def test_packaged_and_saved_pipelines_verify(tiny):
    verdict = verify_folder(tiny)
    assert verdict.sound and verdict.hashed == 0 and verdict.checked >= 7
    assert verify_folder(resolve_model(STARTER)).sound


def test_hub_hashes_are_used_when_present(tiny, tmp_path):
    folder = snapshot(tiny, "someone/thing", "a" * 40)
    verdict = verify_folder(folder)
    assert verdict.sound and verdict.hashed == verdict.checked
    blob = (folder / "scheduler" / "scheduler_config.json").resolve()
    blob.write_text(blob.read_text().replace("1000", "1001"))
    assert verify_folder(folder).faults == (
        "scheduler/scheduler_config.json: differs from the hub's: its hash is another",
    )
    # the same for `hf download --local-dir`, which leaves metadata files
    weights = tiny / "unet" / "diffusion_pytorch_model.safetensors"
    note = tiny / ".cache" / "huggingface" / "download" / "unet" / f"{weights.name}.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{'a' * 40}\n{hashlib.sha256(weights.read_bytes()).hexdigest()}\n1.0\n")
    assert verify_folder(tiny).sound and verify_folder(tiny).hashed == 1
    note.write_text(f"{'a' * 40}\n{'0' * 64}\n1.0\n")
    assert verify_folder(tiny).faults == (f"unet/{weights.name}: differs from the hub's: its hash is another",)


def test_verification_without_hashes_uses_headers(tiny):
    weights = tiny / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    (tiny / "text_encoder" / "model.safetensors").rename(tiny / "text_encoder" / "model-00001-of-00002.safetensors")
    (tiny / "unet" / "config.json").write_text("{")
    (tiny / "scheduler" / "scheduler_config.json").unlink()
    faults = verify_folder(tiny).faults
    size = weights.stat().st_size
    assert f"unet/{weights.name}: is cut off: {size} of {size + 5} bytes" in faults
    assert "text_encoder/model-00002-of-00002.safetensors: is missing" in faults
    assert "unet/config.json: is no readable JSON" in faults and "scheduler/scheduler_config.json: is missing" in faults
    assert "text_encoder/model.safetensors.index.json: is missing" in faults and len(faults) == 5


def test_damaged_headers_are_detected(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(100))
    assert header_error(path) == ""
    path.write_bytes(safetensors_bytes(100) + b"!")
    assert header_error(path) == "has 1 bytes too many"
    for entry in (
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 7]},
        {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]},
        {"dtype": "U8"},
        7,
    ):
        header = json.dumps({"a": entry}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
        assert "header" in header_error(path)
    path.write_bytes(struct.pack("<Q", 2**40))
    assert header_error(path) == "is no safetensors file"
    path.write_bytes(struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc")
    assert "damaged" in header_error(path)


def test_unsupported_folder_cannot_be_verified(tiny):
    (tiny / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ModelError, match="is a FluxPipeline; allowed are"):
        verify_folder(tiny)
    (tiny / "model_index.json").unlink()
    with pytest.raises(ModelError, match="has no model_index.json"):
        verify_folder(tiny)
