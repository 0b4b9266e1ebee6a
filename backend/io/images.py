# SPDX-License-Identifier: GPL-3.0-or-later
"""Images on disk: a grid of images as a PNG with its provenance."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional

from ..errors import ExportError
from .output_files import check_writable

GAP = 2  # pixels between the images of a grid


def check_image_path(path: str | Path) -> Path:
    """The path, if a PNG can be written there; touches nothing that exists. Raises ExportError."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ExportError(
            f"cannot write {str(path)!r}: its extension is {path.suffix or 'missing'!r}; allowed is .png; "
            "end the file's name with it"
        )
    return check_writable(path)


def image_grid(images: Tensor) -> Tensor:
    """Images (n, 3, h, w) -> one (3, H, W), row by row in a nearly square grid on white, `GAP` pixels apart."""
    n, _, height, width = images.shape
    if n == 1:
        return images[0]
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    padded = functional.pad(images, (0, GAP, 0, GAP), value=1.0)
    blank = padded.new_ones(rows * columns - n, *padded.shape[1:])
    cells = torch.cat([padded, blank]).view(rows, columns, 3, height + GAP, width + GAP)
    grid = cells.permute(2, 0, 3, 1, 4).reshape(3, rows * (height + GAP), columns * (width + GAP))
    return grid[:, :-GAP, :-GAP]


def png_bytes(image: Tensor, provenance: Mapping[str, str]) -> bytes:
    """An image (3, h, w) in [0, 1] display sRGB as an 8-bit PNG with text entries."""
    pixels = (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    text = PngInfo()
    for key, value in provenance.items():
        text.add_itxt(key, value)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", pnginfo=text)
    return stream.getvalue()
