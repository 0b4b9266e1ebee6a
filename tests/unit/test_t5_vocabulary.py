# SPDX-License-Identifier: GPL-3.0-or-later
"""T5's vocabulary read from spiece.model: the layout in which DeepFloyd IF is published, without tokenizer.json."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

import pytest

from dreamwright.backend.errors import ModelError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from tests.testing.tiny_pipeline import write_pipeline

PIECES = [
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    ("▁", -2.0),
    ("a", -3.0),
    ("b", -3.5),
    ("ab", -4.0),
    ("▁a", -3.2),
    ("ba", -5.0),
    ("▁ab", -7.5),
    ("é", -4.0),
]


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def block(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def spiece_bytes(kind: int = 1, unknown: int = 2, charsmap: bytes = b"") -> bytes:
    """A serialized ModelProto, written from the format's description."""
    pieces = b"".join(
        block(1, block(1, piece.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + varint(3 << 3) + varint(1))
        for piece, score in PIECES
    )
    trainer = varint(3 << 3) + varint(kind) + varint(40 << 3) + varint(unknown) + varint(10 << 3 | 1) + bytes(8)
    return pieces + block(2, trainer) + block(3, block(1, b"nmt_nfkc") + (block(2, charsmap) if charsmap else b""))


def best_pieces(text: str) -> list[int]:
    """The most likely way to split "▁word" into pieces, by trying all of them."""
    ids = {piece: i for i, (piece, _) in enumerate(PIECES)}
    found = []
    for word in text.split():
        word = "▁" + word  # noqa: PLW2901  # as SentencePiece marks it
        ways = []
        for cuts in itertools.product((False, True), repeat=len(word) - 1):
            edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(word)]
            parts = [word[a:b] for a, b in itertools.pairwise(edges)]
            if all(part in ids for part in parts):
                ways.append((sum(PIECES[ids[part]][1] for part in parts), parts))
        found += [ids[part] for part in max(ways)[1]]
    return found


def published(folder: Path, vocabulary: bytes) -> Path:
    """A tiny pipeline as DeepFloyd publishes it: its tokenizer folder holds spiece.model and no tokenizer.json."""
    path = write_pipeline(folder, domain=False)
    for file in (path / "tokenizer").iterdir():
        file.unlink()
    (path / "tokenizer" / "spiece.model").write_bytes(vocabulary)
    described = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": 100}
    (path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(described))
    index = json.loads((path / "model_index.json").read_text())
    (path / "model_index.json").write_text(json.dumps(index | {"tokenizer": ["transformers", "T5Tokenizer"]}))
    return path


def test_deepfloyd_tokenizer_folder_is_read(tmp_path):
    denoiser = load_denoiser(published(tmp_path / "m", spiece_bytes()))
    assert denoiser.embed(["ab ba"]).tensors["hidden"].shape == (1, 77, 16)  # DeepFloyd IF's length, not T5's 512
    (part,) = denoiser.text.reader.parts
    for text in ("ab", "ab ba", "abba aab  b", "é"):
        assert part.tokenizer(text).input_ids == [*best_pieces(text), 1], text
    assert part.tokenizer("z").input_ids == [3, 2, 1]
    (warning,) = denoiser.check_prompt("ab " * 60)
    assert "121 tokens" in warning and "the first 77" in warning


@pytest.mark.parametrize(
    "content",
    [spiece_bytes()[:-3], b"\xff" * 40, b"<html>not found</html>", b""],
    ids=["cut", "garbage", "a page", "empty"],
)
def test_damaged_and_foreign_files_are_refused(tmp_path: Path, content: bytes):
    with pytest.raises(ModelError, match="cannot load the tokenizer") as caught:
        load_denoiser(published(tmp_path / "m", content))
    assert "\n" not in str(caught.value) and "download" in str(caught.value)
