# SPDX-License-Identifier: GPL-3.0-or-later
"""A model is identified by its contents: equal for copies, different after any change of a file that is loaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dreamwright.backend.errors import ModelError
from dreamwright.backend.models import fingerprint
from dreamwright.backend.models.fingerprint import file_digest, model_fingerprint
from dreamwright.backend.models.local import resolve_model
from tests.testing.tiny_clip import write_clip
from tests.testing.tiny_pipeline import write_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("model") / "m")


def loaded(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_copies_have_the_same_fingerprint(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "another name")
    for path in loaded(copy):
        os.utime(path, (1, 1))
    link = tmp_path / "link"
    link.symlink_to(model)
    (copy / "README.md").write_text("a page about the model")
    assert len(model_fingerprint(model)) == 64
    assert model_fingerprint(model) == model_fingerprint(copy) == model_fingerprint(link)


def test_any_changed_byte_changes_the_fingerprint(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "m")
    whole = model_fingerprint(model)
    for path in loaded(copy):
        content = path.read_bytes()
        # The last bytes of weights are numbers; JSON stays valid with a trailing blank.
        changed = content[:-1] + bytes([content[-1] ^ 1]) if path.suffix == ".safetensors" else content + b" "
        path.write_bytes(changed)
        assert model_fingerprint(copy) != whole, path
        path.write_bytes(content)
        assert model_fingerprint(copy) == whole, path


def test_replaced_model_changes_the_fingerprint(tmp_path: Path) -> None:
    first = model_fingerprint(write_pipeline(tmp_path / "m"))
    shutil.rmtree(tmp_path / "m")
    assert model_fingerprint(write_pipeline(tmp_path / "m", prediction_type="epsilon")) != first


def test_large_files_are_hashed_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "SETTLED_S", -1.0)
    large = tmp_path / "weights"
    large.write_bytes(b"a" * fingerprint.CACHED_FROM)
    first, status = file_digest(large), large.stat()
    reads = []
    monkeypatch.setattr(fingerprint, "_sha256", lambda path: reads.append(path) or "0" * 64)
    assert file_digest(large) == first and not reads
    # Replace it by a file of the same size and modification time.
    other = tmp_path / "other"
    other.write_bytes(b"b" * fingerprint.CACHED_FROM)
    os.replace(other, large)
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_digest(large) == "0" * 64 and reads == [large]


def test_damaged_or_missing_cache_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_S", -1.0)
    large = tmp_path / "weights"
    large.write_bytes(b"a" * fingerprint.CACHED_FROM)
    monkeypatch.setenv("DREAMWRIGHT_CACHE", str(tmp_path / "cache"))
    first = file_digest(large)
    for entry in (tmp_path / "cache" / "digests").iterdir():
        entry.write_bytes(b"\xff not a digest")
    assert file_digest(large) == first
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DREAMWRIGHT_CACHE", str(tmp_path / "file" / "cannot be made"))
    assert file_digest(large) == first


def test_packaged_models_and_clip_folders_have_fingerprints(tmp_path: Path) -> None:
    folders = [resolve_model(name) for name in ("starter", "starter-clip", "starter-clip-retrieval")]
    assert len({model_fingerprint(folder) for folder in [*folders, write_clip(tmp_path / "clip")]}) == 4


def test_other_folders_have_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model_index.json"):
        model_fingerprint(tmp_path)
