# SPDX-License-Identifier: GPL-3.0-or-later
"""The contact sheet of a group as pixels: its newest previews in a grid, each with its number. Does not import bpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .newest_previews import TILE_PIXELS
from .shared.contact_grid import grid_columns, grid_rows

BORDER = 3  # pixels around each tile; they show which one is picked
CELL_PIXELS = TILE_PIXELS + 2 * BORDER
BACKGROUND, EMPTY, PICKED, INK = (24, 24, 24), (56, 56, 56), (255, 170, 60), (255, 255, 255)
SCALE = 2  # pixels of a digit's dot

# Rows of three dots from the top, as bits.
_DIGITS = {
    "0": (7, 5, 5, 5, 7), "1": (2, 6, 2, 2, 7), "2": (7, 1, 7, 4, 7), "3": (7, 1, 3, 1, 7), "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7), "6": (7, 4, 7, 5, 7), "7": (7, 1, 2, 2, 2), "8": (7, 5, 7, 5, 7), "9": (7, 5, 7, 1, 7),
}  # fmt: skip


def number_mask(number: int) -> np.ndarray:
    """(5, 4 n - 1) bool: the dots of a number with n digits."""
    text = str(number)
    mask = np.zeros((5, 4 * len(text) - 1), bool)
    for place, digit in enumerate(text):
        for row, bits in enumerate(_DIGITS[digit]):
            mask[row, 4 * place : 4 * place + 3] = [bits & 4, bits & 2, bits & 1]
    return mask


def sheet_pixels(tiles: Sequence[np.ndarray | None], picked: int = -1) -> np.ndarray:
    """(rows CELL_PIXELS, columns CELL_PIXELS, 3) uint8, top first, of tiles (TILE_PIXELS, TILE_PIXELS, 3) uint8.

    A missing tile is grey. Tile `picked` has a bright border and its number on a bright ground; -1: none.
    """
    columns = grid_columns(len(tiles))
    sheet = np.empty((grid_rows(len(tiles)) * CELL_PIXELS, columns * CELL_PIXELS, 3), np.uint8)
    sheet[:] = BACKGROUND
    for index, tile in enumerate(tiles):
        top, left = index // columns * CELL_PIXELS, index % columns * CELL_PIXELS
        cell = sheet[top : top + CELL_PIXELS, left : left + CELL_PIXELS]
        if index == picked:
            cell[:] = PICKED
        cell[BORDER:-BORDER, BORDER:-BORDER] = EMPTY if tile is None else tile
        mask = number_mask(index + 1).repeat(SCALE, 0).repeat(SCALE, 1)
        height, width = mask.shape
        ground = cell[BORDER : BORDER + height + 2 * SCALE, BORDER : BORDER + width + 2 * SCALE]
        ground[:] = PICKED if index == picked else BACKGROUND
        ground[SCALE:-SCALE, SCALE:-SCALE][mask] = BACKGROUND if index == picked else INK
    return sheet
