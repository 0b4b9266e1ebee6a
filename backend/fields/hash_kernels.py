# SPDX-License-Identifier: GPL-3.0-or-later
"""The hash encoding of one level as compiled loops over points: values, slopes, and the gradients of both.

The formulas are those of `hash_encoding` and `hash_density`, which tests hold these loops to. A point's eight entries
and weights stay in registers and the first cache, where torch writes and reads eight numbers a point for each
operation. Levels have entries of their own, so threads that take one level each never add to the same number. All
numbers are float32. A `level` is (number, scale, vertices a side, size, offset of its first entry, hashed).
"""

from __future__ import annotations

import numpy as np

from .compiled_loops import compiled, inlined

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
PRIME_Y, PRIME_Z = np.int64(2654435761), np.int64(805459861)  # hash_encoding.PRIMES; that of x is 1


@inlined
def cell_along(position, scale, side):
    """The lower vertex and the place in its cell, of a coordinate in [0, 1].

    Anything else, NaN too, gets a vertex of the level, so that no look-up leaves the table.
    """
    place = position * scale + HALF
    cell = np.int64(min(place, np.float32(side - 1))) if place > ZERO else np.int64(0)
    return cell, place - np.float32(cell)


@inlined
def corners_of(where, point, level, entries, sides):
    """Fill `entries` (8,), x fastest, then y, then z, and `sides` (3, 2), weights of the lower and the upper vertex."""
    _, scale, side, size, offset, hashed = level
    x, fx = cell_along(where[0, point], scale, side)
    y, fy = cell_along(where[1, point], scale, side)
    z, fz = cell_along(where[2, point], scale, side)
    sides[0, 0], sides[0, 1] = ONE - fx, fx
    sides[1, 0], sides[1, 1] = ONE - fy, fy
    sides[2, 0], sides[2, 1] = ONE - fz, fz
    if hashed:
        mask = size - 1  # a power of two
        for k in range(4):
            row = ((y + (k & 1)) * PRIME_Y) ^ ((z + (k >> 1)) * PRIME_Z)
            entries[2 * k] = offset + ((x ^ row) & mask)
            entries[2 * k + 1] = offset + (((x + 1) ^ row) & mask)
    else:
        for k in range(4):
            lower = x + ((y + (k & 1)) + (z + (k >> 1)) * side) * side
            upper = lower + 1
            # The last vertex of an integer scale lies one layer beyond the table and wraps, as in tiny-cuda-nn.
            entries[2 * k] = offset + (lower if lower < size else lower - size)
            entries[2 * k + 1] = offset + (upper if upper < size else upper - size)


@inlined
def weights_of(sides, weights):
    """The eight trilinear weights."""
    for k in range(4):
        plane = sides[1, k & 1] * sides[2, k >> 1]
        weights[2 * k], weights[2 * k + 1] = sides[0, 0] * plane, sides[0, 1] * plane


@compiled
def encode_level(level, table, where, out):
    """Fill the level of `out` (F, levels, m) with the features of a table (F, entries) at positions (3, m)."""
    number = level[0]
    entries, sides, weights = np.empty(8, np.int64), np.empty((3, 2), np.float32), np.empty(8, np.float32)
    for point in range(where.shape[1]):
        corners_of(where, point, level, entries, sides)
        weights_of(sides, weights)
        for feature in range(len(table)):
            total = ZERO
            for k in range(8):
                total += weights[k] * table[feature, entries[k]]
            out[feature, number, point] = total


@compiled
def add_level_gradient(level, where, gradient, total):
    """Add the gradient (F, levels, m) of the level's features to that of the table, total (F, entries)."""
    number = level[0]
    entries, sides, weights = np.empty(8, np.int64), np.empty((3, 2), np.float32), np.empty(8, np.float32)
    for point in range(where.shape[1]):
        corners_of(where, point, level, entries, sides)
        weights_of(sides, weights)
        for feature in range(len(total)):
            share = gradient[feature, number, point]
            for k in range(8):
                total[feature, entries[k]] += weights[k] * share


@compiled
def slope_of_level(level, table, where, factors, out):
    """Fill the level of `out` (levels, 3, m) with sum over f of factors[f, level] d enc[f, level] / dx."""
    number, scale = level[0], level[1]
    entries, sides, mixed = np.empty(8, np.int64), np.empty((3, 2), np.float32), np.empty(8, np.float32)
    for point in range(where.shape[1]):
        corners_of(where, point, level, entries, sides)
        for k in range(8):
            mixed[k] = ZERO
        for feature in range(len(table)):
            factor = factors[feature, number, point]
            for k in range(8):
                mixed[k] += factor * table[feature, entries[k]]
        along_x = along_y = along_z = ZERO
        for k in range(4):
            a, b = k & 1, k >> 1  # the two axes that the difference does not run along, the faster one first
            along_x += (mixed[2 * k + 1] - mixed[2 * k]) * sides[1, a] * sides[2, b]
            along_y += (mixed[a + 4 * b + 2] - mixed[a + 4 * b]) * sides[0, a] * sides[2, b]
            along_z += (mixed[a + 2 * b + 4] - mixed[a + 2 * b]) * sides[0, a] * sides[1, b]
        out[number, 0, point], out[number, 1, point] = along_x * scale, along_y * scale
        out[number, 2, point] = along_z * scale


@compiled
def add_level_slope_gradient(level, table, where, pulled, factors, of_slope, of_factors, total):
    """The gradients of `encode_level` and of `slope_of_level` together, which share the corners.

    From those of the features, pulled (F, levels, m), and of the slope, of_slope (3, m): adds the table's to total
    (F, entries), and fills the level of of_factors (F, levels, m) with the factors'.
    """
    number, scale = level[0], level[1]
    entries, sides = np.empty(8, np.int64), np.empty((3, 2), np.float32)
    weights, moved = np.empty(8, np.float32), np.empty(8, np.float32)
    for point in range(where.shape[1]):
        corners_of(where, point, level, entries, sides)
        weights_of(sides, weights)
        dx, dy, dz = of_slope[0, point] * scale, of_slope[1, point] * scale, of_slope[2, point] * scale
        for k in range(4):
            y, z = sides[1, k & 1], sides[2, k >> 1]
            plane = y * z
            turned = (dy if k & 1 else -dy) * z + (dz if k >> 1 else -dz) * y  # d (y z) in the direction of_slope
            moved[2 * k] = turned * sides[0, 0] - plane * dx
            moved[2 * k + 1] = turned * sides[0, 1] + plane * dx
        for feature in range(len(table)):
            share, factor, of_factor = pulled[feature, number, point], factors[feature, number, point], ZERO
            for k in range(8):
                of_factor += table[feature, entries[k]] * moved[k]
                total[feature, entries[k]] += weights[k] * share + moved[k] * factor
            of_factors[feature, number, point] = of_factor
