# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiny pipelines in folders and in the layout of the hub's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from dreamwright.backend.models import local
from tests.testing.fake_hub import folder_files, git_sha1
from tests.testing.tiny_pipeline import write_pipeline


@pytest.fixture(scope="module")
def written_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline, read-only."""
    return write_pipeline(tmp_path_factory.mktemp("written") / "tiny")


@pytest.fixture
def pipeline_folder(written_pipeline: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline, which a test may change."""
    return Path(shutil.copytree(written_pipeline, tmp_path / "tiny"))


@pytest.fixture
def only_packaged_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty model folders and an empty hub cache: only the packaged model exists."""
    monkeypatch.setenv("DREAMWRIGHT_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    local._warn_hidden.cache_clear()


def write_snapshot(source: Path, repo_id: str, revision: str) -> Path:
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
