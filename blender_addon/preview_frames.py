# SPDX-License-Identifier: GPL-3.0-or-later
"""Preview pictures of a job, kept as they arrived so that an artist can look back over the whole run."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from .shared import limits
from .shared.arrays import inflate
from .shared.errors import ProtocolError
from .shared.messages import PreviewFrame

FRAMES = 256  # of one job
BYTES = 32 * 1024 * 1024  # of one job's packed pictures


class Frames:
    """The pictures of one job by rising step. When full, every second one goes, so that all of the run stays covered."""

    def __init__(self, frames: int = FRAMES, max_bytes: int = BYTES) -> None:
        self._frames: list[PreviewFrame] = []
        self._ordinals: list[
            int
        ] = []  # which of all that came; the kept ones are multiples of the stride, and the newest
        self._max_frames, self._max_bytes = frames, max_bytes
        self._bytes, self._came, self._stride = 0, 0, 1

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: PreviewFrame) -> None:
        """Keep a picture; one of an earlier step means that the job began again, and what came after it is dropped."""
        while self._frames and (self._frames[-1].step >= frame.step or self._ordinals[-1] % self._stride):
            self._bytes -= len(self._frames.pop().data)
            self._ordinals.pop()
        self._frames.append(frame)
        self._ordinals.append(self._came)
        self._came += 1
        self._bytes += len(frame.data)
        while len(self._frames) > 2 and (len(self._frames) > self._max_frames or self._bytes > self._max_bytes):
            self._stride *= 2
            newest = self._ordinals[-1]
            kept = [
                pair for pair in zip(self._ordinals, self._frames) if pair[0] % self._stride == 0 or pair[0] == newest
            ]
            self._ordinals, self._frames = [pair[0] for pair in kept], [pair[1] for pair in kept]
            self._bytes = sum(len(kept_frame.data) for kept_frame in self._frames)

    def at(self, share: float) -> PreviewFrame | None:
        """The picture at a share of the run so far, 0 oldest and 1 newest; None when there is none."""
        if not self._frames:
            return None
        last = len(self._frames) - 1
        return self._frames[min(last, max(0, round(share * last)))]

    def neighbor(self, share: float, offset: int) -> float:
        """The share of the picture `offset` places further."""
        last = max(1, len(self._frames) - 1)
        return min(1.0, max(0.0, (round(share * last) + offset) / last))


def decode_frame(frame: PreviewFrame) -> np.ndarray:
    """(height, width, 3) bytes of a picture, rows from the top. Raises ProtocolError for one that lies about its size."""
    pixels = frame.width * frame.height
    if pixels > limits.PREVIEW_PIXELS:
        raise ProtocolError(f"a preview of {frame.width} x {frame.height}; allowed are {limits.PREVIEW_PIXELS} pixels")
    data = inflate(frame.data, pixels * 3)
    if len(data) != pixels * 3:
        raise ProtocolError(
            f"a preview of {frame.width} x {frame.height} with {len(data)} bytes; it needs {pixels * 3}"
        )
    return np.frombuffer(data, np.uint8).reshape(frame.height, frame.width, 3)


def png_of(frame: PreviewFrame) -> bytes:
    """A picture as a PNG file, not compressed: it is only handed on within this machine. Raises ProtocolError."""
    rows = np.zeros((frame.height, 1 + 3 * frame.width), np.uint8)  # each begins with the number of its filter: none
    rows[:, 1:] = decode_frame(frame).reshape(frame.height, -1)
    header = struct.pack(">2I5B", frame.width, frame.height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
