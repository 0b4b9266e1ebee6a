# SPDX-License-Identifier: GPL-3.0-or-later
"""Previews as PNG files."""

from __future__ import annotations

import io

from PIL import Image

from dreamwright.shared import limits
from dreamwright.shared.arrays import inflate
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.messages import PreviewFrame


def preview_png(frame: PreviewFrame) -> bytes:
    """A preview, 8-bit sRGB with rows from the top, as a PNG. Raises ProtocolError for one that is no such image."""
    size = frame.width * frame.height
    if size > limits.PREVIEW_PIXELS:
        raise ProtocolError(f"a preview of {frame.width} x {frame.height}; allowed are {limits.PREVIEW_PIXELS} pixels")
    pixels = inflate(frame.data, 3 * size)
    if len(pixels) != 3 * size:
        raise ProtocolError(f"a preview of {frame.width} x {frame.height} has {len(pixels)} bytes")
    file = io.BytesIO()
    Image.frombytes("RGB", (frame.width, frame.height), bytes(pixels)).save(file, "PNG", compress_level=1)
    return file.getvalue()
