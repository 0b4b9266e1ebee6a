# SPDX-License-Identifier: GPL-3.0-or-later
"""Preview frames of a job, kept compressed so that the whole run can be looked through. Does not import bpy."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from .shared import limits
from .shared.arrays import inflate
from .shared.errors import ProtocolError
from .shared.messages import PreviewFrame

MAX_FRAMES = 256  # per job
MAX_BYTES = 32 * 1024 * 1024  # compressed, per job


class PreviewHistory:
    """Frames of one job by rising step. When full, every second frame is dropped, so the whole run stays covered."""

    def __init__(self, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        self._frames: list[PreviewFrame] = []
        self._ordinals: list[int] = []  # of all frames received; kept are the multiples of the stride, and the newest
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._bytes, self._received, self._stride = 0, 0, 1

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: PreviewFrame) -> None:
        """Append a frame. One of an earlier step means that the job restarted: frames from that step on are dropped."""
        while self._frames and (self._frames[-1].step >= frame.step or self._ordinals[-1] % self._stride):
            self._bytes -= len(self._frames.pop().data)
            self._ordinals.pop()
        self._frames.append(frame)
        self._ordinals.append(self._received)
        self._received += 1
        self._bytes += len(frame.data)
        while len(self._frames) > 2 and (len(self._frames) > self._max_frames or self._bytes > self._max_bytes):
            self._thin_out()

    def _thin_out(self) -> None:
        self._stride *= 2
        newest = self._ordinals[-1]
        kept = [index for index, n in enumerate(self._ordinals) if n % self._stride == 0 or n == newest]
        self._ordinals = [self._ordinals[index] for index in kept]
        self._frames = [self._frames[index] for index in kept]
        self._bytes = sum(len(frame.data) for frame in self._frames)

    def at(self, position: float) -> PreviewFrame | None:
        """The frame at a position, 0 oldest to 1 newest; None when there is none."""
        if not self._frames:
            return None
        last = len(self._frames) - 1
        return self._frames[min(last, max(0, round(position * last)))]

    def neighbor(self, position: float, offset: int) -> float:
        """The position of the frame `offset` frames further, clamped to 0 to 1."""
        last = max(1, len(self._frames) - 1)
        return min(1.0, max(0.0, (round(position * last) + offset) / last))


def decode_frame(frame: PreviewFrame) -> np.ndarray:
    """(height, width, 3) uint8, display sRGB, rows from the top. Raises ProtocolError for a false size."""
    pixels = frame.width * frame.height
    if pixels > limits.PREVIEW_PIXELS:
        raise ProtocolError(f"a preview of {frame.width} x {frame.height}; allowed are {limits.PREVIEW_PIXELS} pixels")
    data = inflate(frame.data, pixels * 3)
    if len(data) != pixels * 3:
        raise ProtocolError(
            f"a preview of {frame.width} x {frame.height} with {len(data)} bytes; it needs {pixels * 3}"
        )
    return np.frombuffer(data, np.uint8).reshape(frame.height, frame.width, 3)


def encode_png(frame: PreviewFrame) -> bytes:
    """A frame as an uncompressed PNG, which never leaves this machine. Raises ProtocolError."""
    return png_of_pixels(decode_frame(frame))


def png_of_pixels(pixels: np.ndarray) -> bytes:
    """Pixels (height, width, 3) uint8 as an uncompressed PNG."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row starts with its filter type, 0: none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)  # 8-bit RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
