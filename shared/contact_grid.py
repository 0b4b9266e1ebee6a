# SPDX-License-Identifier: GPL-3.0-or-later
"""The grid of a contact sheet: which tile lies where, and which tile a point lies in."""

from __future__ import annotations

import math


def grid_columns(count: int) -> int:
    """Columns of a grid of `count` tiles: the smallest c with c^2 >= count, so that no grid is higher than wide."""
    return math.isqrt(max(count, 1) - 1) + 1


def grid_rows(count: int) -> int:
    """Rows of a grid of `count` tiles."""
    return -(-max(count, 1) // grid_columns(count))


def tile_at(x: float, y: float, count: int) -> int | None:
    """The tile at a point of the sheet, numbered row by row from the top left; None where there is none.

    x and y are shares of the sheet's width and height in [0, 1], from its top left corner.
    """
    columns, rows = grid_columns(count), grid_rows(count)
    if not (0 <= x < 1 and 0 <= y < 1):
        return None
    index = int(y * rows) * columns + int(x * columns)
    return index if index < count else None
