# SPDX-License-Identifier: GPL-3.0-or-later
"""Contact sheets: images in a grid with a label for each row and column."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from dreamwright.shared.contact_grid import grid_columns

from ..geometry.build import Mesh
from .classifier_metrics import render_views

GAP, LINE, CHARACTER = 4, 14, 6  # pixels: between tiles, height of a line of text, width of a letter in PIL's own font


def contact_sheet(rows: Sequence[str], columns: Sequence[str], tiles: Mapping[tuple[int, int], Tensor]) -> Image.Image:
    """Tiles (3, h, w) in [0, 1], all of one size, by (row, column); a missing one stays white.

    Raises ValueError without any tile.
    """
    if not tiles:
        raise ValueError("no tiles; a sheet needs at least one")
    _, height, width = next(iter(tiles.values())).shape
    left = GAP + CHARACTER * max(len(row) for row in rows)
    sheet = Image.new("RGB", (left + GAP + len(columns) * (width + GAP), LINE + len(rows) * (height + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, label in enumerate(columns):
        draw.text((left + GAP + number * (width + GAP), 1), label[: (width + GAP) // CHARACTER], fill="black")
    for number, label in enumerate(rows):
        draw.text((GAP, LINE + number * (height + GAP) + height // 2 - LINE // 2), label, fill="black")
    for (row, column), tile in tiles.items():
        sheet.paste(to_image(tile), (left + GAP + column * (width + GAP), LINE + row * (height + GAP)))
    return sheet


def labeled_sheet(tiles: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Images of any sizes, row by row in a grid of `grid_columns`, each below its label.

    Raises ValueError without any.
    """
    if not tiles:
        raise ValueError("no tiles; a sheet needs at least one")
    columns = grid_columns(len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = (max(image.size[axis] for _, image in tiles) for axis in (0, 1))
    across, down = width + GAP, LINE + height + GAP
    sheet = Image.new("RGB", (GAP + columns * across, rows * down), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (label, image) in enumerate(tiles):
        left, top = GAP + index % columns * across, index // columns * down
        draw.text((left, top + 1), label[: width // CHARACTER], fill="black")
        sheet.paste(image, (left, top + LINE))
    return sheet


def mesh_tile(mesh: Mesh, elevation_deg: float, resolution: int = 64) -> Tensor:
    """Front and right side of a mesh, (3, 2 r, 2 r) in [0, 1]: albedo above, lit and textureless below."""
    albedo, bare = (
        render_views(mesh, 0.0, textureless, elevation_deg, resolution, azimuths=4, lit=textureless)[:2]
        for textureless in (False, True)
    )
    return torch.cat([torch.cat(list(albedo), dim=-1), torch.cat(list(bare), dim=-1)], dim=-2)


def to_image(tile: Tensor) -> Image.Image:
    """An image (3, h, w) in [0, 1] with 8 bits a channel, rounded."""
    return Image.fromarray((tile.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def png_of(sheet: Image.Image) -> bytes:
    """The sheet as a PNG file."""
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
