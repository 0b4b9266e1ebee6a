# SPDX-License-Identifier: GPL-3.0-or-later
"""Offline verification of model folders by hashes, headers and names."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest

from dreamwright.backend.errors import ModelError
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.models.registry import STARTER
from dreamwright.backend.models.safetensors_header import header_error
from dreamwright.backend.models.verify import verify_folder
from tests.testing.fake_hub import safetensors_bytes
from tests.testing.local_models import write_snapshot

pytestmark = pytest.mark.usefixtures("only_packaged_models")


def test_packaged_and_saved_pipelines_verify(pipeline_folder):
    verdict = verify_folder(pipeline_folder)
    assert verdict.sound and verdict.hashed == 0 and verdict.checked >= 7
    assert verify_folder(resolve_model(STARTER)).sound


def test_hub_hashes_are_used_when_present(pipeline_folder, tmp_path):
    folder = write_snapshot(pipeline_folder, "someone/thing", "a" * 40)
    verdict = verify_folder(folder)
    assert verdict.sound and verdict.hashed == verdict.checked
    blob = (folder / "scheduler" / "scheduler_config.json").resolve()
    blob.write_text(blob.read_text().replace("1000", "1001"))
    assert verify_folder(folder).faults == (
        "scheduler/scheduler_config.json: differs from the record: its hash is another",
    )
    # the same for `hf download --local-dir`, which leaves metadata files
    weights = pipeline_folder / "unet" / "diffusion_pytorch_model.safetensors"
    note = pipeline_folder / ".cache" / "huggingface" / "download" / "unet" / f"{weights.name}.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{'a' * 40}\n{hashlib.sha256(weights.read_bytes()).hexdigest()}\n1.0\n")
    assert verify_folder(pipeline_folder).sound and verify_folder(pipeline_folder).hashed == 1
    note.write_text(f"{'a' * 40}\n{'0' * 64}\n1.0\n")
    assert verify_folder(pipeline_folder).faults == (
        f"unet/{weights.name}: differs from the record: its hash is another",
    )


def test_verification_without_hashes_uses_headers(pipeline_folder):
    weights = pipeline_folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    (pipeline_folder / "text_encoder" / "model.safetensors").rename(
        pipeline_folder / "text_encoder" / "model-00001-of-00002.safetensors"
    )
    (pipeline_folder / "unet" / "config.json").write_text("{")
    (pipeline_folder / "scheduler" / "scheduler_config.json").unlink()
    faults = verify_folder(pipeline_folder).faults
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


def test_unsupported_folder_cannot_be_verified(pipeline_folder):
    (pipeline_folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ModelError, match="is a FluxPipeline; allowed are"):
        verify_folder(pipeline_folder)
    (pipeline_folder / "model_index.json").unlink()
    with pytest.raises(ModelError, match="has no model_index.json"):
        verify_folder(pipeline_folder)
