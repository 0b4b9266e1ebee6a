# SPDX-License-Identifier: GPL-3.0-or-later
"""Volume rendering of dense grids as compiled loops over rays, forward and backward: eq 5 and eq 7 of each sample.

The formulas are those of `compositing` and `shading`, which tests hold these loops to. One ray's samples stay in the
cache, where the general renderer writes arrays of all samples to memory some fifty times. All numbers are float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..fields.compiled_loops import compiled, inlined

Floats = NDArray[np.float32]

# What a ray sums up, by column: color 0 to 2, normal 3 to 5, opacity, opacity-weighted distance, eq 10.
OPACITY, DISTANCE, FACING_AWAY = 6, 7, 8
COLUMNS = 9
EXP, SOFTPLUS = 0, 1  # activations of the raw density

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
LINEAR_FROM = np.float32(20)  # softplus(x) = x above, as in torch
LARGEST_EXPONENT = np.float32(11)  # fields.density.LARGEST_EXPONENT
SHORTEST_NORMAL, SHORTEST_WAY = np.float32(1e-6), np.float32(1e-12)  # the eps of each normalization


@inlined
def point_on_ray(origin, direction, t):
    """origin + t direction, as three numbers."""
    return origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2]


@inlined
def cell_of(x, y, z, radius, size):
    """Offset of the lower corner of the cell of a point in a grid (size, size, size), and the point's place in it."""
    scale = HALF * np.float32(size - 1)
    top = np.float32(size - 1)
    px = min(max((x / radius + ONE) * scale, ZERO), top)
    py = min(max((y / radius + ONE) * scale, ZERO), top)
    pz = min(max((z / radius + ONE) * scale, ZERO), top)
    ix, iy, iz = min(int(px), size - 2), min(int(py), size - 2), min(int(pz), size - 2)
    fx, fy, fz = px - np.float32(ix), py - np.float32(iy), pz - np.float32(iz)
    return (iz * size + iy) * size + ix, fx, fy, fz


@inlined
def corner_weights(fx, fy, fz, weights):
    """The eight trilinear weights, x fastest, then y, then z."""
    gx, gy, gz = ONE - fx, ONE - fy, ONE - fz
    weights[0], weights[1] = gx * gy * gz, fx * gy * gz
    weights[2], weights[3] = gx * fy * gz, fx * fy * gz
    weights[4], weights[5] = gx * gy * fz, fx * gy * fz
    weights[6], weights[7] = gx * fy * fz, fx * fy * fz


@compiled
def corner_offsets(size, offsets):
    """Offsets of the eight corners from the lower one, in the order of `corner_weights`."""
    for corner in range(8):
        offsets[corner] = (corner & 1) + ((corner >> 1) & 1) * size + (corner >> 2) * size * size


@inlined
def density_and_slope(raw, activation, scale):
    """tau of `density.activate_density`, and its derivative."""
    if activation == EXP:
        tau = scale * np.exp(min(raw, LARGEST_EXPONENT))
        return tau, tau if raw <= LARGEST_EXPONENT else ZERO
    if raw > LINEAR_FROM:
        return scale * raw, scale
    grown = np.exp(raw)
    return scale * np.log(ONE + grown), scale * grown / (ONE + grown)


@compiled
def march_ray(origin, direction, near, shift, step, radius, occupied, samples, raw, size, offsets, weights,
              activation, scale, place, slope, transmittance, visible):  # fmt: skip
    """Find a ray's kept samples and their weights w; returns how many. The four last arrays (samples,) are filled:
    distance t, d (tau step) / d raw, transmittance T before the sample, and w.
    """
    cells = occupied.shape[0]
    count, through = 0, ONE
    for i in range(samples):
        t = near + (np.float32(i) + shift) * step
        x, y, z = point_on_ray(origin, direction, t)
        if x * x + y * y + z * z >= radius * radius:
            continue
        if cells > 0:
            half = HALF * np.float32(cells)
            cx = min(max(int((x / radius + ONE) * half), 0), cells - 1)
            cy = min(max(int((y / radius + ONE) * half), 0), cells - 1)
            cz = min(max(int((z / radius + ONE) * half), 0), cells - 1)
            if not occupied[cz, cy, cx]:
                continue
        corner, fx, fy, fz = cell_of(x, y, z, radius, size)
        corner_weights(fx, fy, fz, weights)
        value = ZERO
        for k in range(8):
            value += weights[k] * raw[corner + offsets[k]]
        tau, tau_slope = density_and_slope(value, activation, scale)
        alpha = -np.expm1(-tau * step)
        place[count], slope[count] = t, tau_slope * step
        transmittance[count], visible[count] = through, through * alpha
        through *= ONE - alpha
        count += 1
    return count


@inlined
def look_up(corner, offsets, weights, appearance, values):
    """Trilinear values (8,) of a flat grid (vertices, 8)."""
    a = b = c = d = e = f = g = h = ZERO  # named, so that the compiler keeps them in one vector register
    for k in range(8):
        row, weight = corner + offsets[k], weights[k]
        a += weight * appearance[row, 0]
        b += weight * appearance[row, 1]
        c += weight * appearance[row, 2]
        d += weight * appearance[row, 3]
        e += weight * appearance[row, 4]
        f += weight * appearance[row, 5]
        g += weight * appearance[row, 6]
        h += weight * appearance[row, 7]
    values[0], values[1], values[2], values[3] = a, b, c, d
    values[4], values[5], values[6], values[7] = e, f, g, h


@inlined
def lambert_term(x, y, z, light, normal, toward):
    """n . (l - mu) / |l - mu| of eq 7, not yet clamped; `toward` (3,) is filled with the unit direction."""
    dx, dy, dz = light[0] - x, light[1] - y, light[2] - z
    way = max(np.sqrt(dx * dx + dy * dy + dz * dz), SHORTEST_WAY)
    toward[0], toward[1], toward[2] = dx / way, dy / way, dz / way
    return normal[0] * toward[0] + normal[1] * toward[1] + normal[2] * toward[2]


@inlined
def unit_normal(values, normal):
    """Fill `normal` (3,) with the direction of values[3:6]; returns the length, at least 1e-6, that it divides by."""
    length = max(np.sqrt(values[3] * values[3] + values[4] * values[4] + values[5] * values[5]), SHORTEST_NORMAL)
    for c in range(3):
        normal[c] = values[3 + c] / length
    return length


@compiled
def render_rays(begin, end, origins, directions, near, meets, shift, step, radius, occupied, samples, raw, appearance,
                size, activation, scale, view_of_ray, lighting, lights, with_normals, least_weight, least_transmittance,
                sums):  # fmt: skip
    """Fill rows begin to end of `sums` (rays, COLUMNS); returns the number of samples whose density was looked up.

    raw (vertices,) and appearance (vertices, 8) are flat grids in order (z, y, x), a row of which is rho before the
    sigmoid, a normal and two numbers that are not used; lighting (views, 3) is ambient, diffuse and 1 for textureless;
    lights (views, 3).
    """
    offsets, weights = np.empty(8, np.int64), np.empty(8, np.float32)
    corner_offsets(size, offsets)
    place, slope = np.empty(samples, np.float32), np.empty(samples, np.float32)
    transmittance, visible = np.empty(samples, np.float32), np.empty(samples, np.float32)
    values, normal, toward = np.zeros(8, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    total = 0
    for ray in range(begin, end):
        for c in range(COLUMNS):
            sums[ray, c] = ZERO
        if not meets[ray]:
            continue
        origin, direction = origins[ray], directions[ray]
        view = view_of_ray[ray]
        ambient, diffuse, textureless, light = lighting[view, 0], lighting[view, 1], lighting[view, 2], lights[view]
        count = march_ray(origin, direction, near[ray], shift[ray], step, radius, occupied, samples, raw, size,
                          offsets, weights, activation, scale, place, slope, transmittance, visible)  # fmt: skip
        total += count
        for i in range(count):
            w = visible[i]
            sums[ray, OPACITY] += w
            sums[ray, DISTANCE] += w * place[i]
            if w <= least_weight or transmittance[i] <= least_transmittance:
                continue
            x, y, z = point_on_ray(origin, direction, place[i])
            corner, fx, fy, fz = cell_of(x, y, z, radius, size)
            corner_weights(fx, fy, fz, weights)
            look_up(corner, offsets, weights, appearance, values)
            brightness = ONE
            if with_normals:
                unit_normal(values, normal)
                brightness = ambient + diffuse * max(lambert_term(x, y, z, light, normal, toward), ZERO)
                away = ZERO
                for c in range(3):
                    sums[ray, 3 + c] += w * normal[c]
                    away += normal[c] * direction[c]
                away = max(away, ZERO)
                sums[ray, FACING_AWAY] += w * away * away
            for c in range(3):
                rho = ONE if with_normals and textureless > ZERO else ONE / (ONE + np.exp(-values[c]))
                sums[ray, c] += w * rho * brightness
    return total


@compiled
def backpropagate_rays(begin, end, origins, directions, near, meets, shift, step, radius, occupied, samples, raw,
                       appearance, size, activation, scale, view_of_ray, lighting, lights, with_normals, least_weight,
                       least_transmittance, sums_gradient, raw_gradient,
                       appearance_gradient):  # fmt: skip
    """Add the gradients of rows begin to end of `sums_gradient` (rays, COLUMNS) to those of the two grids.

    As in the general renderer, distances have no gradient, and eq 10 has none in the weights.
    """
    offsets, weights = np.empty(8, np.int64), np.empty(8, np.float32)
    corner_offsets(size, offsets)
    place, slope = np.empty(samples, np.float32), np.empty(samples, np.float32)
    transmittance, visible = np.empty(samples, np.float32), np.empty(samples, np.float32)
    weight_gradient = np.empty(samples, np.float32)
    values, normal, toward = np.zeros(8, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    normal_gradient, value_gradient = np.zeros(3, np.float32), np.zeros(8, np.float32)
    for ray in range(begin, end):
        if not meets[ray]:
            continue
        origin, direction, given = origins[ray], directions[ray], sums_gradient[ray]
        view = view_of_ray[ray]
        ambient, diffuse, textureless, light = lighting[view, 0], lighting[view, 1], lighting[view, 2], lights[view]
        count = march_ray(origin, direction, near[ray], shift[ray], step, radius, occupied, samples, raw, size,
                          offsets, weights, activation, scale, place, slope, transmittance, visible)  # fmt: skip
        for i in range(count):
            w = visible[i]
            weight_gradient[i] = given[OPACITY]
            if w <= least_weight or transmittance[i] <= least_transmittance:
                continue
            x, y, z = point_on_ray(origin, direction, place[i])
            corner, fx, fy, fz = cell_of(x, y, z, radius, size)
            corner_weights(fx, fy, fz, weights)
            look_up(corner, offsets, weights, appearance, values)
            lit, brightness, away, length = ZERO, ONE, ZERO, ONE
            if with_normals:
                length = unit_normal(values, normal)
                lit = lambert_term(x, y, z, light, normal, toward)
                brightness = ambient + diffuse * max(lit, ZERO)
                away = max(normal[0] * direction[0] + normal[1] * direction[1] + normal[2] * direction[2], ZERO)
            brightness_gradient = ZERO
            for c in range(3):
                colored = not (with_normals and textureless > ZERO)
                rho = ONE / (ONE + np.exp(-values[c])) if colored else ONE
                weight_gradient[i] += given[c] * rho * brightness
                brightness_gradient += w * given[c] * rho
                value_gradient[c] = w * given[c] * brightness * rho * (ONE - rho) if colored else ZERO
            if with_normals:
                along = ZERO
                for c in range(3):
                    weight_gradient[i] += given[3 + c] * normal[c]
                    normal_gradient[c] = w * given[3 + c] + TWO * w * given[FACING_AWAY] * away * direction[c]
                    if lit > ZERO:
                        normal_gradient[c] += brightness_gradient * diffuse * toward[c]
                    along += normal_gradient[c] * normal[c]
                if length <= SHORTEST_NORMAL:
                    along = ZERO  # the divisor is the constant
                for c in range(3):
                    value_gradient[3 + c] = (normal_gradient[c] - along * normal[c]) / length
            for k in range(8):
                row = corner + offsets[k]
                for c in range(8):
                    appearance_gradient[row, c] += weights[k] * value_gradient[c]
        # With o = tau step and w_j = T_j (1 - exp(-o_j)): dw_j/do_i = -w_j for j > i, and T_i exp(-o_i) = T_i - w_i.
        behind = ZERO
        for i in range(count - 1, -1, -1):
            change = ((transmittance[i] - visible[i]) * weight_gradient[i] - behind) * slope[i]
            behind += visible[i] * weight_gradient[i]
            x, y, z = point_on_ray(origin, direction, place[i])
            corner, fx, fy, fz = cell_of(x, y, z, radius, size)
            corner_weights(fx, fy, fz, weights)
            for k in range(8):
                raw_gradient[corner + offsets[k]] += weights[k] * change
