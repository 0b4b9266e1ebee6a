# SPDX-License-Identifier: GPL-3.0-or-later
"""Sheets of pictures with a word for each row and column."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..geometry.build import Mesh
from .classifier_metrics import render_views

GAP, HEAD, CHARACTER = 4, 14, 6  # pixels: between tiles, for a line of words, and a letter of PIL's own font


def contact_sheet(rows: Sequence[str], columns: Sequence[str], tiles: Mapping[tuple[int, int], Tensor]) -> Image.Image:
    """Tiles (3, h, w) in [0, 1], all of one size, by (row, column); a missing one stays white.

    Raises ValueError for no tile at all.
    """
    if not tiles:
        raise ValueError("no tiles; a sheet needs at least one")
    _, height, width = next(iter(tiles.values())).shape
    left = GAP + CHARACTER * max(len(row) for row in rows)
    sheet = Image.new("RGB", (left + GAP + len(columns) * (width + GAP), HEAD + len(rows) * (height + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, words in enumerate(columns):
        draw.text((left + GAP + number * (width + GAP), 1), words[: (width + GAP) // CHARACTER], fill="black")
    for number, words in enumerate(rows):
        draw.text((GAP, HEAD + number * (height + GAP) + height // 2 - HEAD // 2), words, fill="black")
    for (row, column), tile in tiles.items():
        pixels = (tile.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        sheet.paste(Image.fromarray(pixels), (left + GAP + column * (width + GAP), HEAD + row * (height + GAP)))
    return sheet


def mesh_tile(mesh: Mesh, resolution: int = 64) -> Tensor:
    """A mesh from its front and right side at 30 degrees of elevation, (3, 2 r, 2 r): above as albedo, below as lit clay."""
    albedo, clay = (
        render_views(mesh, 0.0, textureless, resolution=resolution, azimuths=4, lit=textureless)[:2]
        for textureless in (False, True)
    )
    return torch.cat([torch.cat(list(albedo), dim=-1), torch.cat(list(clay), dim=-1)], dim=-2)


def png_of(sheet: Image.Image) -> bytes:
    """The sheet as a PNG."""
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
